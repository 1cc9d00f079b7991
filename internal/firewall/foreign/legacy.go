package foreign

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The older iptables (linux/netfilter_ipv4/ip_tables.h) is read by getsockopt.

// Constants of ip_tables.h; those of ip6_tables.h are the same.
const (
	soGetInfo    = 64 // IPT_SO_GET_INFO
	soGetEntries = 65 // IPT_SO_GET_ENTRIES
	entriesAt    = 40 // of struct ipt_get_entries, where the rules are
	verdictAt    = 32 // of struct xt_standard_target
	legacyDrop   = -nfDrop - 1
	legacyAccept = -nfAccept - 1
	legacyReturn = -5 // XT_RETURN
)

// legacyInfo is struct ipt_getinfo.
type legacyInfo struct {
	name               [32]byte
	validHooks         uint32
	hookEntry, policy  [5]uint32
	entries, entryByte uint32
}

// legacyFamily is what differs between ip_tables and ip6_tables.
type legacyFamily struct {
	name, tables  string
	domain, level int
	targetAt      int // target_offset in struct ipt_entry
	flagsAt       int // flags, and then invflags, in struct ipt_ip
	size          int // of struct ipt_entry
}

var legacyFamilies = []legacyFamily{
	{"legacy ip", "ip_tables_names", unix.AF_INET, unix.IPPROTO_IP, 88, 82, 112},
	{"legacy ip6", "ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6, 140, 131, 168},
}

// legacyDrops returns the chains FORWARD of the older iptables that drop
// or reject what none of their rules lets through. A user without the right to ask, as in
// a user namespace without such tables, is told of none.
func legacyDrops(interfaces []string) ([]Drop, error) {
	var all []Drop
	var errs []error
	for _, f := range legacyFamilies {
		tables, err := os.ReadFile("/proc/thread-self/net/" + f.tables)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		// To ask for a table that is not there would make it.
		if err == nil && slices.Contains(strings.Fields(string(tables)), "filter") {
			var l legacyRules
			if l, err = f.rules(); err == nil {
				var end string
				if end, err = l.end(); end != "" {
					all = append(all, Drop{Family: f.name, Table: "filter", Chain: "FORWARD", Hook: "forward", End: end, Named: naming(l.rules, interfaces)})
				}
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s table filter: %w", f.name, err))
		}
	}
	return all, errors.Join(errs...)
}

var errLegacy = errors.New("the kernel's answer is not understood")

// legacyRules is the table filter: all its rules, and where in them FORWARD
// begins and its policy is.
type legacyRules struct {
	legacyFamily
	rules         []byte
	begin, policy int
}

// rules reads the table filter.
func (f legacyFamily) rules() (legacyRules, error) {
	l := legacyRules{legacyFamily: f}
	fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return l, err
	}
	defer func() { _ = unix.Close(fd) }()
	info := legacyInfo{}
	copy(info.name[:], "filter")
	if err := getsockopt(fd, f.level, soGetInfo, unsafe.Pointer(&info), int(unsafe.Sizeof(info))); err != nil {
		return l, err
	}
	buf := make([]byte, entriesAt+int(info.entryByte))
	copy(buf, "filter")
	binary.NativeEndian.PutUint32(buf[len(info.name):], info.entryByte)
	if err := getsockopt(fd, f.level, soGetEntries, unsafe.Pointer(&buf[0]), len(buf)); err != nil {
		return l, err // EAGAIN: changed meanwhile
	}
	l.rules, l.begin, l.policy = buf[entriesAt:], int(info.hookEntry[hookForward]), int(info.policy[hookForward])
	return l, nil
}

// end says how FORWARD ends if not in accept.
func (l legacyRules) end() (string, error) {
	policy, err := l.entry(l.policy)
	if err != nil {
		return "", err
	}
	does, err := l.decides(l.begin, l.policy, 0)
	switch {
	case err != nil || does == "accept":
		return "", err
	case does != "":
		return "last rule " + does, nil
	case policy.verdict == legacyDrop:
		return "policy drop", nil
	}
	return "", nil
}

// legacyEntry is one rule.
type legacyEntry struct {
	next    int    // where the next one is
	always  bool   // it asks for nothing of the packet
	target  string // "": a verdict
	verdict int32  // above 0: where the chain is that it jumps to
}

func (l legacyRules) entry(at int) (legacyEntry, error) {
	if at < 0 || at+l.size > len(l.rules) {
		return legacyEntry{}, errLegacy
	}
	b := l.rules[at:]
	target, next := int(binary.NativeEndian.Uint16(b[l.targetAt:])), int(binary.NativeEndian.Uint16(b[l.targetAt+2:]))
	if target < l.size || next < target+verdictAt+4 || next > len(b) {
		return legacyEntry{}, errLegacy
	}
	name, _, _ := bytes.Cut(b[target+2:target+verdictAt-1], []byte{0})
	return legacyEntry{
		next: at + next, target: string(name), verdict: int32(binary.NativeEndian.Uint32(b[target+verdictAt:])),
		always: target == l.size && len(bytes.Trim(b[:l.flagsAt], "\x00")) == 0 && b[l.flagsAt+1] == 0,
	}, nil
}

// decides returns what the rules from at on, up to end, do with what none of
// those with conditions concerns: "accept", "drop", "reject", or nothing.
func (l legacyRules) decides(at, end, depth int) (string, error) {
	for at < end && depth < maxJumps {
		e, err := l.entry(at)
		if err != nil {
			return "", err
		}
		at = e.next
		switch {
		case !e.always:
		case e.target == "REJECT":
			return "reject", nil
		case e.target == "ERROR": // the head of the next chain
			return "", nil
		case e.target != "":
		case e.verdict == legacyDrop:
			return "drop", nil
		case e.verdict == legacyAccept:
			return "accept", nil
		case e.verdict == legacyReturn:
			return "", nil
		case e.verdict > 0:
			if does, err := l.decides(int(e.verdict), len(l.rules), depth+1); does != "" || err != nil {
				return does, err
			}
		}
	}
	return "", nil
}

func getsockopt(fd, level, opt int, p unsafe.Pointer, size int) error {
	n := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(p), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

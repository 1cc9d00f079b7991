package firewall

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
}

var legacyFamilies = []legacyFamily{
	{"legacy ip", "ip_tables_names", unix.AF_INET, unix.IPPROTO_IP, 88},
	{"legacy ip6", "ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6, 140},
}

// legacyForwardDrops returns the chains FORWARD of the older iptables that have
// policy drop.
func legacyForwardDrops(interfaces []string) ([]ForeignChain, error) {
	var all []ForeignChain
	var errs []error
	for _, f := range legacyFamilies {
		tables, err := os.ReadFile("/proc/thread-self/net/" + f.tables)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// To ask for a table that is not there would make it.
		if err == nil && slices.Contains(strings.Fields(string(tables)), "filter") {
			var drops bool
			var rules []byte
			if drops, rules, err = f.forward(); drops {
				all = append(all, ForeignChain{f.name, "filter", "FORWARD", "policy drop", naming(rules, interfaces)})
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s table filter: %w", f.name, err))
		}
	}
	return all, errors.Join(errs...)
}

var errLegacy = errors.New("the kernel's answer is not understood")

// forward reads the table filter: whether FORWARD has policy drop, and all rules.
func (f legacyFamily) forward() (drops bool, rules []byte, err error) {
	fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return false, nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	info := legacyInfo{}
	copy(info.name[:], "filter")
	if err := getsockopt(fd, f.level, soGetInfo, unsafe.Pointer(&info), int(unsafe.Sizeof(info))); err != nil {
		return false, nil, err
	}
	buf := make([]byte, entriesAt+int(info.entryByte))
	copy(buf, "filter")
	binary.NativeEndian.PutUint32(buf[len(info.name):], info.entryByte)
	if err := getsockopt(fd, f.level, soGetEntries, unsafe.Pointer(&buf[0]), len(buf)); err != nil {
		return false, nil, err // EAGAIN: changed meanwhile
	}
	rules = buf[entriesAt:]
	policy := rules[min(int(info.policy[hookForward]), len(rules)):]
	if len(policy) < f.targetAt+2 {
		return false, nil, errLegacy
	}
	at := int(binary.NativeEndian.Uint16(policy[f.targetAt:])) + verdictAt
	if len(policy) < at+4 {
		return false, nil, errLegacy
	}
	code := int32(binary.NativeEndian.Uint32(policy[at:]))
	return code == legacyDrop, bytes.Clone(rules), nil
}

func getsockopt(fd, level, opt int, p unsafe.Pointer, size int) error {
	n := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(p), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

package storm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// truth is what the kernel and the files say, by the owner's name: "net/c1/eth0".
type truth struct {
	links   map[string]bool // with this owner's alias
	records map[string]bool
	rules   map[string][]port // of any kind; the ports among them
	leases  map[string][]netip.Addr
}

const (
	stateDir = "/run/libnet"
	dataDir  = "/var/lib/cni/networks"
	// dumps is how often something is looked at: a dump may be torn by what goes on.
	dumps = 5
)

// inspect holds the attachments that no call is for against the truth, and the
// namespaces of some pods, too.
func (s *storm) inspect(pods []*pod) {
	s.t.Helper()
	var wrong []string
	for range dumps {
		if wrong = append(s.differences(), s.inside(pods)...); len(wrong) == 0 {
			return
		}
	}
	s.t.Errorf("after %d calls:\n%s", s.calls, strings.Join(wrong, "\n"))
}

func (s *storm) differences() []string {
	var tr truth
	if err := tr.read(); err != nil {
		return []string{err.Error()}
	}
	var wrong []string
	for _, a := range s.atts {
		if a.busy > 0 || a.now == unclear {
			continue
		}
		name, lives := a.String(), a.now == living
		ports := a.ports
		if slices.ContainsFunc(ports, func(p port) bool { return p.HostPortEnd != 0 }) {
			ports, tr.rules[name] = nil, nil // ranges are other rules
		}
		for _, v := range []struct {
			what string
			ok   bool
		}{
			{"link", tr.links[name] == lives},
			{"record", tr.records[name] == lives},
			{"leases", slices.Equal(tr.leases[name], a.addrs)},
			{"ports", !lives || samePorts(tr.rules[name], ports)},
			{"rules", lives || tr.rules[name] == nil},
		} {
			if !v.ok {
				wrong = append(wrong, fmt.Sprintf("%s: lives %v with %v %v: %s: link %v, record %v, leases %v, rules %v",
					a, lives, a.addrs, a.ports, v.what, tr.links[name], tr.records[name], tr.leases[name], tr.rules[name]))
			}
		}
	}
	return wrong
}

// samePorts compares regardless of order; each port is there once for each
// family of the container.
func samePorts(rules, want []port) bool {
	for _, p := range want {
		if !slices.Contains(rules, p) {
			return false
		}
	}
	return !slices.ContainsFunc(rules, func(p port) bool { return !slices.Contains(want, p) })
}

// inside holds the addresses in namespaces against what was given: those of
// the living are there, and no other attachment has one of them.
func (s *storm) inside(pods []*pod) []string {
	given := map[string]*attachment{}
	for _, a := range s.atts {
		for _, addr := range a.addrs {
			given[a.net.name+" "+addr.String()] = a
		}
	}
	var wrong []string
	for _, p := range pods {
		for _, a := range p.atts {
			if a.busy > 0 || a.dead {
				continue
			}
			have, err := addresses(s, a)
			if err != nil {
				wrong = append(wrong, fmt.Sprintf("%s: %v", a, err))
			}
			if a.now == gone && len(have) > 0 || a.now == living && !slices.Equal(have, a.addrs) {
				wrong = append(wrong, fmt.Sprintf("%s has %v in %s, want %v", a, have, p.netns, a.addrs))
			}
			for _, addr := range have {
				if o := given[a.net.name+" "+addr.String()]; o != nil && o != a {
					wrong = append(wrong, fmt.Sprintf("%s has %s, which %s was given", a, addr, o))
				}
			}
		}
	}
	return wrong
}

// addresses are those of an attachment's interface in its pod; none if it has
// no interface.
func addresses(s *storm, a *attachment) (have []netip.Addr, err error) {
	lntest.Enter(s.t, netnsPath(a.pod.netns), func() {
		var l netlink.Link
		if l, err = netlink.LinkByName(a.ifName); err != nil {
			if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
				err = nil
			}
			return
		}
		var list []netlink.Addr
		list, err = netlink.AddrList(l, netlink.FAMILY_ALL)
		for _, ip := range list {
			if addr, ok := netip.AddrFromSlice(ip.IP); ok && !addr.IsLinkLocalUnicast() {
				have = append(have, addr.Unmap())
			}
		}
	})
	return have, err
}

func (tr *truth) read() error {
	*tr = truth{links: map[string]bool{}, records: map[string]bool{}, rules: map[string][]port{}, leases: map[string][]netip.Addr{}}
	links, err := netlink.LinkList()
	for _, l := range links {
		if owner, ours := strings.CutPrefix(l.Attrs().Alias, "libnet:"); ours {
			tr.links[owner] = true
		}
	}
	return errors.Join(err, tr.readRecords(), tr.readLeases(), tr.readRules())
}

func (tr *truth) readRecords() error {
	for _, root := range []string{stateDir, stateDir + "/portmap"} {
		files, err := filepath.Glob(root + "/networks/*/endpoints/*.json")
		if err != nil {
			return err
		}
		for _, f := range files {
			rel, _ := filepath.Rel(root+"/networks", f)
			net, file, _ := strings.Cut(rel, "/endpoints/")
			tr.records[net+"/"+strings.Replace(strings.TrimSuffix(file, ".json"), ":", "/", 1)] = true
		}
	}
	return nil
}

func (tr *truth) readLeases() error {
	files, err := filepath.Glob(dataDir + "/*/*")
	for _, f := range files {
		addr, addrErr := netip.ParseAddr(filepath.Base(f))
		if addrErr != nil {
			continue // the lock, and the last address given
		}
		data, readErr := os.ReadFile(f)
		if errors.Is(readErr, fs.ErrNotExist) {
			continue
		}
		err = errors.Join(err, readErr)
		owner := filepath.Base(filepath.Dir(f)) + "/" + strings.Replace(string(data), "\r\n", "/", 1)
		tr.leases[owner] = append(tr.leases[owner], addr)
	}
	for _, addrs := range tr.leases {
		slices.SortFunc(addrs, netip.Addr.Compare) // IPv4 first, as in a result
	}
	return err
}

func (tr *truth) readRules() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		sets, err := conn.GetSets(t)
		if err != nil {
			return err
		}
		for _, set := range sets {
			elements, err := conn.GetSetElements(set)
			if err != nil && !errors.Is(err, unix.ENOENT) { // the last one took the table with it
				return err
			}
			for _, e := range elements {
				tr.rule(set.Name, e)
			}
		}
	}
	return nil
}

// rule notes an element by its owner, and its port if it is of a published one.
func (tr *truth) rule(set string, e nftables.SetElement) {
	owner := strings.TrimPrefix(strings.TrimPrefix(e.Comment, "libnet-portmap:"), "libnet:")
	ports := tr.rules[owner]
	if ports == nil {
		ports = []port{}
	}
	kind, n := strings.TrimRight(set, "46"), len(e.Key)
	if kind == "anyport" || kind == "port" {
		p := port{
			Protocol: map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[e.Key[n-8]],
			HostPort: int(binary.BigEndian.Uint16(e.Key[n-4:])), ContainerPort: int(binary.BigEndian.Uint16(e.Val[len(e.Val)-4:])),
		}
		if host, ok := netip.AddrFromSlice(e.Key[:n-8]); ok {
			p.HostIP = host.String()
		}
		ports = append(ports, p)
	}
	tr.rules[owner] = ports
}

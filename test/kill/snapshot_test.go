package kill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/responder"
)

// snapshot is what of the host and the container a plugin could change, one
// sorted line each.
type snapshot []string

func (h *host) snapshot() snapshot {
	h.t.Helper()
	var s snapshot
	take := func(where string, part func() ([]string, error)) {
		lines, err := part()
		if err != nil {
			h.t.Fatalf("snapshot: %v", err)
		}
		for _, line := range lines {
			s = append(s, where+line)
		}
	}
	for _, part := range []func() ([]string, error){linkLines, routeLines, nftLines, conntrackLines, sysctlLines, fileLines, nameLines} {
		take("", part)
	}
	lntest.Enter(h.t, netns, func() {
		for _, part := range []func() ([]string, error){linkLines, routeLines, nftLines, sysctlLines} {
			take("container ", part)
		}
	})
	slices.Sort(s)
	return s
}

// nameLines are what the kernel knows of names, one line for each attachment, and what is pinned.
func nameLines() (lines []string, err error) {
	none := func() (responder.Known, error) { return responder.Known{}, nil }
	owners, err := responder.New("/run/libnet", nil).Strays(context.Background(), false, none)
	if err != nil {
		return nil, err
	}
	for _, words := range owners {
		lines = append(lines, "in the kernel: "+words)
	}
	err = filepath.WalkDir("/sys/fs/bpf", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != "/sys/fs/bpf" {
			lines = append(lines, "pinned "+path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	})
	return lines, err
}

// since returns the lines that were not there before.
func (s snapshot) since(before snapshot) (more []string) {
	for _, line := range s {
		if _, found := slices.BinarySearch(before, line); !found {
			more = append(more, line)
		}
	}
	return more
}

func (s snapshot) without(line func(string) bool) snapshot {
	return slices.DeleteFunc(slices.Clone(s), line)
}

// linkLines leaves out what the kernel gives a link when it sees a carrier.
func linkLines() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, l := range links {
		a := l.Attrs()
		line := fmt.Sprintf("link %s %s mtu %d alias %q mac %s up %t", a.Name, l.Type(), a.MTU, a.Alias, a.HardwareAddr, a.RawFlags&unix.IFF_UP != 0)
		if l.Type() == "bridge" { // its ports are promiscuous while they are
			line += fmt.Sprintf(" promisc %d", a.Promisc)
		}
		entries, err := entryLines(l)
		if err != nil {
			return nil, err
		}
		lines = append(append(lines, line), entries...)
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, err
		}
		for _, addr := range addrs {
			if !addr.IP.IsLinkLocalUnicast() {
				lines = append(lines, fmt.Sprintf("addr %s %s", a.Name, addr.IPNet))
			}
		}
	}
	return lines, nil
}

// entryLines lists what leads to other hosts: neighbours and forwarding entries
// of VXLAN devices.
func entryLines(l netlink.Link) ([]string, error) {
	if l.Type() != "vxlan" {
		return nil, nil
	}
	var lines []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		entries, err := netlink.NeighList(l.Attrs().Index, family)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.State&unix.NUD_PERMANENT != 0 {
				lines = append(lines, fmt.Sprintf("entry %s %d %s %s", l.Attrs().Name, family, e.IP, e.HardwareAddr))
			}
		}
	}
	return lines, nil
}

func routeLines() ([]string, error) {
	var lines []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if r.Table == unix.RT_TABLE_LOCAL || r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast() {
				continue // the kernel's, by the addresses
			}
			lines = append(lines, fmt.Sprintf("route %v via %v dev %d table %d", r.Dst, r.Gw, r.LinkIndex, r.Table))
		}
		rules, err := netlink.RuleList(family)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			lines = append(lines, "rule "+r.String())
		}
	}
	return lines, nil
}

func nftLines() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, t := range tables {
		table := fmt.Sprintf("nft %d %s", t.Family, t.Name)
		lines = append(lines, table)
		for _, c := range chains {
			if c.Table.Name != t.Name || c.Table.Family != t.Family {
				continue
			}
			rules, err := ruleLines(conn, t, c)
			if err != nil {
				return nil, err
			}
			lines = append(lines, fmt.Sprintf("%s chain %s rules %d", table, c.Name, len(rules)))
			for _, r := range rules {
				lines = append(lines, fmt.Sprintf("%s chain %s rule %s", table, c.Name, r))
			}
		}
		more, err := setLines(conn, table, t)
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
	}
	return lines, nil
}

// families are the names of those that we have tables of.
var families = map[nftables.TableFamily]string{nftables.TableFamilyINet: "inet", nftables.TableFamilyBridge: "bridge"}

// ruleLines lists the rules of a chain. The library cannot read the direction of a ct
// expression, which services have: their rules the program nft lists.
func ruleLines(conn *nftables.Conn, t *nftables.Table, c *nftables.Chain) (lines []string, err error) {
	if t.Name == balance.TableName {
		out, err := exec.Command("nft", "list", "chain", families[t.Family], t.Name, c.Name).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("nft list chain %s: %w: %s", c.Name, err, out)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
	}
	rules, err := conn.GetRules(t, c)
	for _, r := range rules {
		exprs, err := json.Marshal(r.Exprs)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("%s %q", exprs, r.UserData))
	}
	return lines, err
}

func setLines(conn *nftables.Conn, table string, t *nftables.Table) ([]string, error) {
	sets, err := conn.GetSets(t)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, s := range sets {
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("%s set %s elements %d", table, s.Name, len(elements)))
		for _, e := range elements {
			lines = append(lines, fmt.Sprintf("%s set %s element %q: %x %q", table, s.Name, e.Key, e.Val, e.Comment))
		}
	}
	return lines, nil
}

// conntrackLines lists the flows by the published ports. Asking the kernel is
// slow even if there are none: it looks through the table of all namespaces.
func conntrackLines() ([]string, error) {
	n, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if err != nil || strings.TrimSpace(string(n)) == "0" {
		return nil, err
	}
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, f := range flows {
		if f.Forward.DstPort == udpPort {
			lines = append(lines, fmt.Sprintf("flow %d %s to %s, answers from %s", f.Forward.Protocol, f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP))
		}
	}
	return lines, nil
}

// sysctls are those that a program that connects containers could change.
var sysctls = []string{
	"ipv4/ip_forward", "ipv4/ip_local_port_range", "ipv4/ip_local_reserved_ports", "bridge/*",
	"ipv4/conf/*/forwarding", "ipv4/conf/*/route_localnet", "ipv4/conf/*/rp_filter", "ipv4/conf/*/accept_local",
	"ipv4/conf/*/proxy_arp", "ipv4/conf/*/arp_ignore", "ipv4/conf/*/arp_announce", "ipv4/conf/*/arp_notify",
	"ipv6/conf/*/disable_ipv6", "ipv6/conf/*/forwarding", "ipv6/conf/*/accept_ra", "ipv6/conf/*/accept_dad", "ipv6/conf/*/autoconf",
	"ipv6/conf/*/keep_addr_on_down", "ipv6/conf/*/ndisc_notify", "ipv6/conf/*/proxy_ndp", "ipv6/conf/*/addr_gen_mode",
}

func sysctlLines() ([]string, error) {
	var lines []string
	for _, pattern := range sysctls {
		paths, err := filepath.Glob("/proc/sys/net/" + pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			value, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			lines = append(lines, fmt.Sprintf("sysctl %s = %q", path, value))
		}
	}
	return lines, nil
}

// fileLines lists records and leases, and what is beside them. The index of the
// pools is left out: it is made anew where it does not fit the leases.
func fileLines() ([]string, error) {
	var lines []string
	for _, root := range []string{"/run/libnet", "/var/lib"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() || d.Type()&fs.ModeSocket != 0 { // that of wireguard-go
				return err
			}
			switch name := d.Name(); {
			case strings.Contains(path, "/.libnet/") || path == "/run/libnet/addresses" || path == "/run/libnet/ports/lock": // of all attachments
				return nil
			case strings.HasPrefix(name, "last_reserved_ip.") || name == "lock":
				lines = append(lines, "file "+path)
				return nil
			}
			data, err := os.ReadFile(path)
			lines = append(lines, fmt.Sprintf("file %s %q", path, data))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

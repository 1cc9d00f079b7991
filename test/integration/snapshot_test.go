package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// snapshot is what of the host a plugin could change, one sorted line each:
// links, addresses, routes, policy rules, nftables, leases and records.
type snapshot []string

func (h *host) snapshot() snapshot {
	h.t.Helper()
	var s snapshot
	for _, part := range []func() ([]string, error){linkLines, routeLines, nftLines, fileLines} {
		lines, err := part()
		if err != nil {
			h.t.Fatalf("snapshot: %v", err)
		}
		s = append(s, lines...)
	}
	slices.Sort(s)
	return s.withoutGuards()
}

// ofGuard matches what of the firewall belongs to a bridge. It stays as long as
// the bridge does, whose own line tells of both.
var ofGuard = regexp.MustCompile(`^nft 1 libnet set \w+ element .* "libnet-bridge:|^nft 1 libnet set strict element|^file /run/libnet/bridges/`)

// withoutGuards leaves out the guards of bridges, and our tables where guards are
// all that is in them.
func (s snapshot) withoutGuards() snapshot {
	rest := slices.DeleteFunc(slices.Clone(s), ofGuard.MatchString)
	guarded := slices.ContainsFunc(s, func(line string) bool { return strings.Contains(line, `"libnet-bridge:`) })
	used := slices.ContainsFunc(rest, func(line string) bool {
		return strings.HasPrefix(line, "nft 1 libnet set ") && strings.Contains(line, " element ")
	})
	if guarded && !used {
		rest = slices.DeleteFunc(rest, func(line string) bool {
			return strings.HasPrefix(line, "nft 1 libnet") && !strings.Contains(line, "marks rule")
		})
	}
	return rest
}

// same fails the test if the host differs from before.
func (h *host) same(before snapshot) {
	h.t.Helper()
	if diff := cmp.Diff(before, h.snapshot()); diff != "" {
		h.t.Errorf("the host is not as before (-before +now):\n%s", diff)
	}
}

// sameBut is same without the lines that match, if there is a pattern.
func (h *host) sameBut(before snapshot, pattern string) {
	h.t.Helper()
	now := h.snapshot()
	for _, d := range []struct {
		what string
		rest snapshot
	}{{"left behind", now.since(before)}, {"missing on the host", before.since(now)}} {
		if rest := d.rest.without(pattern); len(rest) > 0 {
			h.t.Errorf("%s:\n%s", d.what, strings.Join(rest, "\n"))
		}
	}
}

// since returns the lines that were not there before.
func (s snapshot) since(before snapshot) snapshot {
	return slices.DeleteFunc(slices.Clone(s), func(line string) bool { return slices.Contains(before, line) })
}

// without leaves out lines that match; the empty pattern matches none.
func (s snapshot) without(pattern string) snapshot {
	if pattern == "" {
		return s
	}
	re := regexp.MustCompile(pattern)
	return slices.DeleteFunc(slices.Clone(s), re.MatchString)
}

func linkLines() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, l := range links {
		a := l.Attrs()
		line := fmt.Sprintf("link %s %s mtu %d alias %q", a.Name, l.Type(), a.MTU, a.Alias)
		if l.Type() == "bridge" { // its ports are promiscuous while they are
			line += fmt.Sprintf(" promisc %d", a.Promisc)
		}
		lines = append(lines, line)
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, err
		}
		for _, addr := range addrs {
			lines = append(lines, fmt.Sprintf("addr %s %s", a.Name, addr.IPNet))
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
			if r.Table == unix.RT_TABLE_LOCAL {
				continue // the kernel's, by the addresses
			}
			dev := fmt.Sprint(r.LinkIndex)
			if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
				dev = l.Attrs().Name
			}
			lines = append(lines, fmt.Sprintf("route %v via %v dev %s table %d", r.Dst, r.Gw, dev, r.Table))
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
			more, err := chainLines(conn, table, t, c)
			if err != nil {
				return nil, err
			}
			lines = append(lines, more...)
		}
		more, err := setLines(conn, table, t)
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
	}
	return lines, nil
}

func chainLines(conn *nftables.Conn, table string, t *nftables.Table, c *nftables.Chain) ([]string, error) {
	lines := []string{table + " chain " + c.Name}
	rules, err := conn.GetRules(t, c)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				*c = expr.Counter{} // packets that pass are no change
			}
		}
		exprs, err := json.Marshal(r.Exprs)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("%s chain %s rule %s", table, c.Name, exprs))
	}
	return lines, nil
}

func setLines(conn *nftables.Conn, table string, t *nftables.Table) ([]string, error) {
	sets, err := conn.GetSets(t)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, s := range sets {
		lines = append(lines, table+" set "+s.Name)
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			lines = append(lines, fmt.Sprintf("%s set %s element %s %q", table, s.Name, readable(e.Key), e.Comment))
		}
	}
	return lines, nil
}

// readable is the key of an element: interface names as they are, anything
// else in hex.
func readable(key []byte) string {
	names := strings.FieldsFunc(string(key), func(r rune) bool { return r == 0 })
	for _, name := range names {
		if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Sprintf("%x", key)
		}
	}
	return strings.Join(names, " . ")
}

// fileLines lists leases, records and libcni's cache. Locks, indexes and the
// last address given are no state of an attachment.
func fileLines() ([]string, error) {
	var lines []string
	for _, root := range []string{"/run/libnet", "/var/lib/cni"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() || d.Type()&fs.ModeSocket != 0 { // that of ln-agent's wireguard-go
				return err
			}
			rel, _ := filepath.Rel(root, path)
			name := d.Name()
			if name == "lock" || name == "addresses" || strings.HasPrefix(name, "last_reserved_ip.") || strings.Contains(rel, "/.") {
				return nil
			}
			data, err := os.ReadFile(path)
			lines = append(lines, fmt.Sprintf("file %s %.60q", path, data))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// leases returns the files of a network's leases.
func leases(t testing.TB, network string) []string {
	t.Helper()
	lines, err := fileLines()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(lines, func(line string) bool {
		return !strings.HasPrefix(line, "file /var/lib/cni/networks/"+network+"/")
	})
}

// flushTables removes every nftables table, as a restart of the host's
// firewall may.
func flushTables() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		conn.DelTable(t)
	}
	return conn.Flush()
}

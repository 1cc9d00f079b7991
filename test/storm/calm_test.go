package storm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// calm checks what lives, deletes all there is, and then the networks.
func (s *storm) calm() {
	var checks, dels []*op
	for _, a := range s.atts {
		if a.now == living {
			checks = append(checks, &op{verb: "CHECK", net: a.net, att: a, prev: a.result})
		}
		dels = append(dels, &op{verb: "DEL", net: a.net, att: a})
	}
	s.t.Logf("%d of %d attachments live", len(checks), len(s.atts))
	if len(checks) == 0 {
		s.t.Error("none lives: the storm shows nothing")
	}
	s.all(checks)
	s.all(dels)
	var dead, ends []*op
	for _, n := range s.nets {
		s.counts["orphans in the end"] += len(n.orphans)
		dead = append(dead, &op{verb: "GC", net: n})
		ends = append(ends, &op{verb: "GC", net: n, more: object{"cni.dev/valid-attachments": []object{}}})
	}
	s.all(dead)
	s.empty()
	for _, n := range s.nets {
		n.collecting++ // as collect would have it
	}
	s.all(ends)
}

// all runs operations, as many at once as may be.
func (s *storm) all(ops []*op) {
	for len(ops) > 0 || len(s.running) > 0 {
		for len(ops) > 0 && len(s.running) < s.atOnce {
			s.begin(ops[0])
			ops = ops[1:]
		}
		s.next()
	}
}

// empty holds that nothing of any attachment is left, of those least that only
// GC could know of.
func (s *storm) empty() {
	var tr truth
	s.check(tr.read())
	for what, owners := range map[string][]string{
		"link": keys(tr.links), "record": keys(tr.records), "lease": keys(tr.leases), "rule": keys(tr.rules),
	} {
		for _, owner := range owners {
			if strings.Count(strings.Trim(owner, "/"), "/") > 1 { // not a whole network's
				s.t.Errorf("%s left of %s", what, owner)
			}
		}
	}
}

func keys[V any](m map[string]V) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	return all
}

// snapshot is what of the host a plugin could change, one sorted line each.
// Locks, indexes and the last address given are no state of an attachment.
func (s *storm) snapshot() []string {
	s.t.Helper()
	links, err := netlink.LinkList()
	s.check(err)
	var lines []string
	idle := map[int]bool{} // devices that wireguard-go makes again, in its own time
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "wg-") && l.Attrs().Alias == "" {
			idle[l.Attrs().Index] = true
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		s.check(err)
		lines = append(lines, fmt.Sprintf("link %s %s %v", l.Attrs().Name, l.Attrs().Alias, addrs))
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	s.check(err)
	for _, r := range routes {
		if idle[r.LinkIndex] {
			continue
		}
		lines = append(lines, "route "+r.String())
	}
	conn, err := nftables.New()
	s.check(err)
	tables, err := conn.ListTables()
	s.check(err)
	for _, t := range tables {
		lines = append(lines, "table "+t.Name)
	}
	for _, root := range []string{stateDir, "/var/lib/cni"} {
		lines = append(lines, s.files(root)...)
	}
	pins, err := filepath.Glob("/sys/fs/bpf/libnet/*")
	s.check(err)
	lines = append(lines, pins...)
	slices.Sort(lines)
	return lines
}

func (s *storm) files(root string) []string {
	var lines []string
	s.check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if path == filepath.Join(stateDir, "wireguard") { // locks and sockets of ln-agent's wireguard-go
			return fs.SkipDir
		}
		if err != nil || d.IsDir() && d.Name() != ".libnet" {
			return err
		}
		if d.Name() == ".libnet" {
			return fs.SkipDir
		}
		if d.Name() == "lock" || d.Name() == "addresses" || strings.HasPrefix(d.Name(), "last_reserved_ip.") {
			return nil
		}
		data, err := os.ReadFile(path)
		lines = append(lines, fmt.Sprintf("file %s %.200s", path, data))
		return err
	}))
	return lines
}

// allFiles lists the files below a directory.
func (h host) allFiles(root string) []string {
	h.t.Helper()
	var all []string
	h.check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			all = append(all, path)
		}
		return err
	}))
	return all
}

// without is what of all is not in some.
func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(line string) bool { return slices.Contains(some, line) })
}

package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// snapshot is what there is, a line each, the kind first: links, addresses,
// routes and policy rules of the host and the containers; nftables tables and
// files of the host. Left out are routes of the table local, the kernel's
// shadow of the addresses, and directories.
type snapshot []string

func (s *snapshot) add(format string, args ...any) { *s = append(*s, fmt.Sprintf(format, args...)) }

func takeSnapshot() (s snapshot, err error) {
	for _, at := range []string{hostNetns, container("c1"), container("c2")} {
		if err := within(at, func() error { return s.network(at) }); err != nil {
			return nil, err
		}
	}
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	for _, t := range tables {
		s.add("tables %s of family %d", t.Name, t.Family)
	}
	for _, root := range []string{"/run", "/var/lib"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				s.add("files %s", path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// network adds what the current namespace has.
func (s *snapshot) network(at string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		a := l.Attrs()
		s.add("links %s: %s %s, MTU %d, up %t", at, l.Type(), a.Name, a.MTU, a.RawFlags&unix.IFF_UP != 0)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		s.add("addresses %s: %s on link %d", at, a.IPNet, a.LinkIndex)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if r.Table != unix.RT_TABLE_LOCAL {
				s.add("routes %s: %s", at, r)
			}
		}
		rules, err := netlink.RuleList(family)
		if err != nil {
			return err
		}
		for _, r := range rules {
			s.add("rules %s: %s", at, r)
		}
	}
	return nil
}

// String says how many lines of each kind there are.
func (s snapshot) String() string {
	var out []string
	for _, kind := range []string{"links", "addresses", "routes", "rules", "tables", "files"} {
		n := 0
		for _, line := range s {
			if strings.HasPrefix(line, kind) {
				n++
			}
		}
		out = append(out, fmt.Sprintf("%d %s", n, kind))
	}
	return strings.Join(out, ", ")
}

// diff returns the lines that only one has, with "-" what s has and with "+"
// what after has.
func (s snapshot) diff(after snapshot) (lines []string) {
	for _, line := range s {
		if !slices.Contains(after, line) {
			lines = append(lines, "- "+line)
		}
	}
	for _, line := range after {
		if !slices.Contains(s, line) {
			lines = append(lines, "+ "+line)
		}
	}
	return lines
}

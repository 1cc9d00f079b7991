package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
)

const (
	leaseDir  = "/var/lib/cni/networks/" + network
	recordDir = "/run/libnet/networks/" + network + "/endpoints"
)

// traces is everything on the host of containers, by what it is.
func (m *machine) traces(t *testing.T) map[string][]string {
	t.Helper()
	return map[string][]string{
		"lease":                         leases(t),
		"endpoint record":               files(t, recordDir),
		"link":                          m.newLinks(t),
		"element of our sets":           elements(t),
		"rule of portmap":               portRules(t),
		"result in the cache of libcni": files(t, "/var/lib/cni/results"),
		"network namespace":             files(t, "/run/netns"),
	}
}

// holds fails the test unless the host has what n containers need: otherwise
// finding nothing later would prove nothing.
func (m *machine) holds(t *testing.T, n int) {
	t.Helper()
	traces := m.traces(t)
	for what, want := range map[string]int{"lease": 2 * n, "endpoint record": n, "link": n} {
		if got := traces[what]; len(got) != want {
			t.Errorf("with %d containers: %d of %s, want %d: %v", n, len(got), what, want, got)
		}
	}
	if len(traces["element of our sets"]) == 0 {
		t.Errorf("with %d containers: no element in our sets", n)
	}
}

// nothingLeft fails the test if there is anything on the host of any container
// that ever was. The network itself stays: its bridge, its record, its chains.
func (m *machine) nothingLeft(t *testing.T) {
	t.Helper()
	traces := m.traces(t)
	for _, what := range slices.Sorted(maps.Keys(traces)) {
		for _, left := range traces[what] {
			t.Errorf("left behind: %s %s", what, left)
		}
	}
	if !t.Failed() {
		t.Log("no address, record, link or rule is left")
	}
}

func leases(t *testing.T) []string {
	return slices.DeleteFunc(files(t, leaseDir), func(name string) bool {
		_, err := netip.ParseAddr(name)
		return err != nil
	})
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func links(t *testing.T) []string {
	t.Helper()
	all, err := net.Interfaces()
	check(t, err)
	var names []string
	for _, l := range all {
		names = append(names, l.Name)
	}
	return names
}

// newLinks returns the host's links of containers.
func (m *machine) newLinks(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(links(t), func(name string) bool {
		return name == bridge || slices.Contains(m.links, name)
	})
}

// elements returns those of our sets, with their owners.
func elements(t *testing.T) []string {
	t.Helper()
	conn, err := nftables.New()
	check(t, err)
	tables, err := conn.ListTables()
	check(t, err)
	var all []string
	for _, table := range tables {
		if table.Name != "libnet" {
			continue
		}
		sets, err := conn.GetSets(table)
		check(t, err)
		for _, s := range sets {
			elements, err := conn.GetSetElements(s)
			check(t, err)
			for _, e := range elements {
				all = append(all, fmt.Sprintf("%s %x of %s", s.Name, e.Key, e.Comment))
			}
		}
	}
	return all
}

// portRules returns the reference portmap's rules of containers.
func portRules(t *testing.T) []string {
	t.Helper()
	if !hasIPTables() {
		return nil
	}
	var all []string
	for _, save := range []string{"iptables-save", "ip6tables-save"} {
		for line := range strings.Lines(command(t, save, "-t", "nat")) {
			if strings.Contains(line, "CNI-DN-") {
				all = append(all, strings.TrimSpace(line))
			}
		}
	}
	return all
}

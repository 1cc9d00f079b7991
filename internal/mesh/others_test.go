package mesh

import (
	"cmp"
	"testing"

	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/service"
)

// Hosts divide by the order of keys, which compareNamed does not make.
func TestCompareNamedAsKeys(t *testing.T) {
	var all []*overlay.Named
	for _, container := range []string{"", "a", "a-", "a1", "a:", "ab", "aé", "b", "ba"} {
		for _, ifName := range []string{"", "-", "b", "eth0", "eth1"} {
			for _, node := range []string{"h1", "h2"} {
				all = append(all, &overlay.Named{NamedID: overlay.NamedID{Network: "net1", Container: container, IfName: ifName, Node: node}})
			}
		}
	}
	for _, a := range all {
		for _, b := range all {
			want := cmp.Or(cmp.Compare(asBackend(a).Key(), asBackend(b).Key()), cmp.Compare(a.Node, b.Node))
			if got := compareNamed(a, b); got != want {
				t.Errorf("%v and %v: %d, want %d", a.NamedID, b.NamedID, got, want)
			}
		}
	}
}

// Containers with one key on two hosts, and with a name in two forms, come and go one by one.
func TestNamesInTwoForms(t *testing.T) {
	m := newMesh()
	m.Defined([]service.Shared{webOf("web", 1)}, true)
	one, two := far("h2", "c", "shop", "10.5.1.2"), far("h3", "c", "Shop", "10.5.1.3")
	one.Names = append(one.Names, "SHOP")
	expect := func(about, want string) {
		t.Helper()
		if to, dirty := m.led("web"); to != want || dirty != "web" {
			t.Errorf("%s: web leads to %q, want %q; to be looked at: %q", about, to, want, dirty)
		}
	}
	m.Others([]overlay.Named{two, one}, true)
	expect("both come", "h2/c h3/c")
	one.Names = []string{"other"}
	m.Others([]overlay.Named{one}, false)
	expect("one has another name", "h3/c")
	m.Others(nil, true)
	if expect("all are gone", ""); len(m.byName) > 0 || len(m.others) > 0 {
		t.Errorf("what is gone is kept: %v, %v", m.byName, m.others)
	}
}

package firewall

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// A change of what we write has to give the tables another name, or no host
// with a living container would ever have it.
func TestReleases(t *testing.T) {
	for _, family := range tableFamilies {
		if want := sum(tableOf(family)); releases[family] != want {
			t.Errorf("releases of family %s: %q; the rules of today are %q: put that into releases.go", familyName(family), releases[family], want)
		}
		if want := tableOf(family).content(); contents[family] != want {
			t.Errorf("contents of family %s: %#x; the rules of today have %#x: put that into releases.go", familyName(family), contents[family], want)
		}
	}
}

// released is a network and an endpoint with rules of all kinds.
func released() (Network, Endpoint) {
	return Network{Name: "libnet:net1/", Bridge: "br0", IPv4: Published, NoICC: true, AcceptMark: &Mark{1, 1}},
		Endpoint{
			Owner: "libnet:net1/c1/eth0", Bridge: "br0", Port: "veth0", Addrs: addrs("10.0.0.2", "fd00::2"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1},
			Masquerade: Families{true, true}, Hairpin: true, Ports: []PortMap{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}},
		}
}

func mustComplete(t *testing.T, f *Firewall) {
	t.Helper()
	if err := f.Complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.Intact(t.Context(), Network{}); err != nil {
		t.Fatal(err)
	}
}

// A rule that does something else is seen, though its comment is ours, and
// written anew; the elements stay.
func TestRestore(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := released()
	mustApply(t, f, n, e)
	if err := f.Intact(t.Context(), Network{}); !errors.Is(err, ErrMissing) {
		t.Errorf("intact before Complete: %v, want ErrMissing: others may have lost their elements", err)
	}
	mustComplete(t, f)
	if changed, err := f.Restore(t.Context()); changed || err != nil {
		t.Errorf("restore of what is whole: %v, %v", changed, err)
	}
	for _, family := range []uint8{unix.NFPROTO_INET, unix.NFPROTO_BRIDGE} {
		tab := tableOf(family)
		for i, ch := range tab.chains {
			for j, r := range ch.rules {
				old := tableOf(family)
				does := part(accept)
				if len(r.does()) == 1 { // a verdict alone
					does = ret
				}
				old.chains[i].rules = slices.Clone(ch.rules)
				old.chains[i].rules[j].does = does
				// Rules that jump have to stay, as others are counted by them.
				if strings.Contains(r.why, "what is for this host") {
					continue
				}
				if err := f.transact(t.Context(), func(_ *conn, b *batch) error { b.write(old); return nil }); err != nil {
					t.Fatal(err)
				}
				if err := f.Verify(t.Context(), n, e); err == nil || !strings.Contains(err.Error(), r.why) && !errors.Is(err, ErrMissing) {
					t.Errorf("verify with another rule %q: %v", r.why, err)
				}
				if changed, err := f.Restore(t.Context()); !changed || err != nil {
					t.Errorf("restore of rule %q: %v, %v", r.why, changed, err)
				}
				mustVerify(t, f, n, e)
			}
		}
	}
	if err := f.Intact(t.Context(), Network{}); !errors.Is(err, ErrMissing) {
		t.Errorf("intact after Restore: %v, want ErrMissing until Complete", err)
	}
	mustComplete(t, f)
	if err := f.RemoveLast(t.Context(), n, e); err != nil {
		t.Fatal(err)
	}
	wantTables(t, f, false, false)
}

// otherRelease is a table with a set, a chain and a rule that are not ours, and
// with sets of other types.
func otherRelease() (table, *set, *set) {
	old := inetTable()
	gone := set{unix.NFPROTO_INET, "gone", tuple{iifname}, nil, false}
	turned := set{unix.NFPROTO_INET, "closed", tuple{oifname, nfproto}, nil, false}
	wider := set{unix.NFPROTO_INET, "masq4", tuple{saddr4, iifname, etherSource}, nil, false}
	for i, s := range old.sets {
		switch s {
		case &closed:
			old.sets[i] = &turned
		case &ipv4().masq:
			old.sets[i] = &wider
		}
	}
	old.sets = append(old.sets, &gone)
	for i := range old.chains {
		old.chains[i].rules = nil
	}
	old.chains = append(old.chains, chain{name: "gone", rules: []rule{{"gone", rules(in(&gone), drop)}}},
		chain{"early", "filter", unix.NF_INET_FORWARD, priFilter - 7, 1, []rule{{"early", rules(in(&turned), drop)}, {"x", rules(jump("gone"))}}})
	return old, &turned, &wider
}

// The first Apply after an upgrade leaves the table as this release has it.
func TestOtherRelease(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := released()
	old, turned, wider := otherRelease()
	kept := elem{set: &noicc, key: noicc.key.of([]byte("br7"), []byte("br7")), owner: "libnet:net7/"}
	err := f.transact(t.Context(), func(_ *conn, b *batch) error {
		b.write(old)
		b.put(kept)
		b.put(elem{set: turned, key: turned.key.of([]byte("br7"), []byte{unix.NFPROTO_IPV4}), owner: "libnet:net7/"})
		b.put(elem{set: wider, key: wider.key.of([]byte{10, 0, 0, 7}, []byte("br7"), make([]byte, 6)), owner: "libnet:net7/c7/eth0"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	restored, err := f.Apply(t.Context(), n, e)
	if err != nil || !restored {
		t.Fatalf("apply: restored %v, %v; want true", restored, err)
	}
	mustVerify(t, f, n, e)
	if err := f.Verify(t.Context(), Network{Name: "libnet:net7/", Bridge: "br7", IPv4: Published, NoICC: true}, Endpoint{}); err != nil {
		if !strings.HasSuffix(err.Error(), "inside { br7 . br7 }: missing") { // that release had none
			t.Errorf("elements of others: %v", err)
		}
	}
	rules := listed(t)
	for _, left := range []string{"gone", "early", "10.0.0.7"} {
		if strings.Contains(rules, left) {
			t.Errorf("%s is left:\n%s", left, rules)
		}
	}
	mustComplete(t, f)
}

// What keeps packets out is never lost: where it cannot be told what an element
// would be in this release, nothing changes.
func TestOtherReleaseStaysClosed(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := released()
	old := inetTable()
	odd := set{unix.NFPROTO_INET, "internal", tuple{saddr4}, nil, false}
	for i, s := range old.sets {
		if s == &internal {
			old.sets[i] = &odd
		}
	}
	for i := range old.chains {
		old.chains[i].rules = nil
	}
	err := f.transact(t.Context(), func(_ *conn, b *batch) error {
		b.write(old)
		b.put(elem{set: &odd, key: []byte{10, 0, 0, 7}, owner: "libnet:net7/"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	before := listed(t)
	if _, err := f.Apply(t.Context(), n, e); !errors.Is(err, ErrOtherRelease) {
		t.Errorf("apply: %v, want ErrOtherRelease", err)
	}
	if err := f.Remove(t.Context(), e); !errors.Is(err, ErrOtherRelease) {
		t.Errorf("remove: %v, want ErrOtherRelease: it removes nothing", err)
	}
	if after := listed(t); after != before {
		t.Errorf("the refused Apply changed the rules:\n%s", after)
	}
}

// A key that has no interface gets the one of the container.
func TestTurn(t *testing.T) {
	before := elem{set: &set{name: "masq4", key: tuple{saddr4}}, key: []byte{10, 0, 0, 2}, owner: "o"}
	to := &set{name: "masq4", key: tuple{iifname, saddr4}}
	if _, ok := before.as(to, nil); ok {
		t.Error("turned without knowing the interface")
	}
	got, ok := before.as(to, map[string][]byte{string([]byte{10, 0, 0, 2}): iifname.bytes("br0")})
	if want := to.key.of([]byte("br0"), []byte{10, 0, 0, 2}); !ok || string(got.key) != string(want) || got.owner != "o" {
		t.Errorf("turned: %v, %v", got, ok)
	}
}

// BenchmarkRelease is the first look at which release wrote the tables, by the
// names that are written down and by hashes of the messages.
func BenchmarkRelease(b *testing.B) {
	each := func(name func(table) string) func() {
		return func() {
			for _, family := range []uint8{unix.NFPROTO_INET, unix.NFPROTO_BRIDGE} {
				_ = name(tableOf(family))
			}
		}
	}
	lntest.Cold(b, map[string]func(){
		"written-down": each(func(t table) string { return t.release().name }),
		"computed":     each(sum),
	})
}

package nft

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// A change of what we write has to give the tables another name, or no host
// with a living container would ever have it.
func TestReleases(t *testing.T) {
	for _, family := range ruleset.TableFamilies {
		if want := sum(ruleset.TableOf(family)); ruleset.Releases[family] != want {
			t.Errorf("releases of family %s: %q; the rules of today are %q: put that into releases.go", ruleset.FamilyName(family), ruleset.Releases[family], want)
		}
		if want := ruleset.TableOf(family).Content(); ruleset.Contents[family] != want {
			t.Errorf("contents of family %s: %#x; the rules of today have %#x: put that into releases.go", ruleset.FamilyName(family), ruleset.Contents[family], want)
		}
	}
}

// released is a network and an endpoint with rules of all kinds.
func released() (firewall.Network, firewall.Endpoint) {
	return firewall.Network{Name: "libnet:net1/", Bridge: "br0", IPv4: firewall.Published, NoICC: true, AcceptMark: &firewall.Mark{Value: 1, Mask: 1}},
		firewall.Endpoint{
			Owner: "libnet:net1/c1/eth0", Bridge: "br0", Port: "veth0", Addrs: addrs("10.0.0.2", "fd00::2"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1},
			Masquerade: firewall.Families{IPv4: true, IPv6: true}, Hairpin: true, Ports: []firewall.PortMap{{Protocol: firewall.TCP, HostPort: 8080, ContainerPort: 80}},
		}
}

func mustComplete(t *testing.T, f *Firewall) {
	t.Helper()
	if err := f.Complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.Intact(t.Context(), firewall.Network{}); err != nil {
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
	if err := f.Intact(t.Context(), firewall.Network{}); !errors.Is(err, firewall.ErrMissing) {
		t.Errorf("intact before Complete: %v, want ErrMissing: others may have lost their elements", err)
	}
	mustComplete(t, f)
	if changed, err := f.Restore(t.Context()); changed || err != nil {
		t.Errorf("restore of what is whole: %v, %v", changed, err)
	}
	for _, family := range []uint8{unix.NFPROTO_INET, unix.NFPROTO_BRIDGE} {
		tab := ruleset.TableOf(family)
		for i, ch := range tab.Chains {
			for j, r := range ch.Rules {
				old := ruleset.TableOf(family)
				does := ruleset.Part(ruleset.Accept)
				if len(r.Does()) == 1 { // a verdict alone
					does = ruleset.Return
				}
				old.Chains[i].Rules = slices.Clone(ch.Rules)
				old.Chains[i].Rules[j].Does = does
				// Rules that jump have to stay, as others are counted by them.
				if strings.Contains(r.Why, "what is for this host") {
					continue
				}
				if err := f.transact(t.Context(), func(_ *conn, b *batch) error { b.write(old); return nil }); err != nil {
					t.Fatal(err)
				}
				if err := f.Verify(t.Context(), n, e); err == nil || !strings.Contains(err.Error(), r.Why) && !errors.Is(err, firewall.ErrMissing) {
					t.Errorf("verify with another rule %q: %v", r.Why, err)
				}
				if changed, err := f.Restore(t.Context()); !changed || err != nil {
					t.Errorf("restore of rule %q: %v, %v", r.Why, changed, err)
				}
				mustVerify(t, f, n, e)
			}
		}
	}
	if err := f.Intact(t.Context(), firewall.Network{}); !errors.Is(err, firewall.ErrMissing) {
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
func otherRelease() (ruleset.Table, *ruleset.Set, *ruleset.Set) {
	old := ruleset.InetTable()
	gone := ruleset.Set{Family: unix.NFPROTO_INET, Name: "gone", Key: ruleset.Tuple{ruleset.IIFName}, Data: nil, Interval: false}
	turned := ruleset.Set{Family: unix.NFPROTO_INET, Name: "closed", Key: ruleset.Tuple{ruleset.OIFName, ruleset.NFProto}, Data: nil, Interval: false}
	wider := ruleset.Set{Family: unix.NFPROTO_INET, Name: "masq4", Key: ruleset.Tuple{ruleset.SAddr4, ruleset.IIFName, ruleset.EtherSource}, Data: nil, Interval: false}
	for i, s := range old.Sets {
		switch s {
		case &ruleset.Closed:
			old.Sets[i] = &turned
		case &ruleset.IPv4().Masq:
			old.Sets[i] = &wider
		}
	}
	old.Sets = append(old.Sets, &gone)
	for i := range old.Chains {
		old.Chains[i].Rules = nil
	}
	old.Chains = append(old.Chains, ruleset.Chain{Name: "gone", Rules: []ruleset.Rule{{Why: "gone", Does: ruleset.Rules(ruleset.In(&gone), ruleset.Drop)}}},
		ruleset.Chain{Name: "early", Kind: "filter", Hook: unix.NF_INET_FORWARD, Priority: -7, Jumps: 1, Rules: []ruleset.Rule{{Why: "early", Does: ruleset.Rules(ruleset.In(&turned), ruleset.Drop)}, {Why: "x", Does: ruleset.Rules(ruleset.Jump("gone"))}}})
	return old, &turned, &wider
}

// The first Apply after an upgrade leaves the table as this release has it.
func TestOtherRelease(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := released()
	old, turned, wider := otherRelease()
	kept := ruleset.Elem{Set: &ruleset.NoICC, Key: ruleset.NoICC.Key.Of([]byte("br7"), []byte("br7")), Owner: "libnet:net7/"}
	err := f.transact(t.Context(), func(_ *conn, b *batch) error {
		b.write(old)
		b.Put(kept)
		b.Put(ruleset.Elem{Set: turned, Key: turned.Key.Of([]byte("br7"), []byte{unix.NFPROTO_IPV4}), Owner: "libnet:net7/"})
		b.Put(ruleset.Elem{Set: wider, Key: wider.Key.Of([]byte{10, 0, 0, 7}, []byte("br7"), make([]byte, 6)), Owner: "libnet:net7/c7/eth0"})
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
	if err := f.Verify(t.Context(), firewall.Network{Name: "libnet:net7/", Bridge: "br7", IPv4: firewall.Published, NoICC: true}, firewall.Endpoint{}); err != nil {
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

// An element that keeps packets out is never lost: where it cannot be told which it
// would be in this release, nothing changes.
func TestOtherReleaseStaysClosed(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := released()
	old := ruleset.InetTable()
	odd := ruleset.Set{Family: unix.NFPROTO_INET, Name: "internal", Key: ruleset.Tuple{ruleset.SAddr4}, Data: nil, Interval: false}
	for i, s := range old.Sets {
		if s == &ruleset.Internal {
			old.Sets[i] = &odd
		}
	}
	for i := range old.Chains {
		old.Chains[i].Rules = nil
	}
	err := f.transact(t.Context(), func(_ *conn, b *batch) error {
		b.write(old)
		b.Put(ruleset.Elem{Set: &odd, Key: []byte{10, 0, 0, 7}, Owner: "libnet:net7/"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	before := listed(t)
	if _, err := f.Apply(t.Context(), n, e); !errors.Is(err, firewall.ErrOtherRelease) {
		t.Errorf("apply: %v, want ErrOtherRelease", err)
	}
	if err := f.Remove(t.Context(), e); !errors.Is(err, firewall.ErrOtherRelease) {
		t.Errorf("remove: %v, want ErrOtherRelease: it removes nothing", err)
	}
	if after := listed(t); after != before {
		t.Errorf("the refused Apply changed the rules:\n%s", after)
	}
}

// BenchmarkRelease is the first look at which release wrote the tables, by the
// names that are written down and by hashes of the messages.
func BenchmarkRelease(b *testing.B) {
	each := func(name func(ruleset.Table) string) func() {
		return func() {
			for _, family := range []uint8{unix.NFPROTO_INET, unix.NFPROTO_BRIDGE} {
				_ = name(ruleset.TableOf(family))
			}
		}
	}
	lntest.Cold(b, map[string]func(){
		"written-down": each(func(t ruleset.Table) string { return t.Release().Name }),
		"computed":     each(sum),
	})
}

// Only an owner before which no other can have had rules completes a table that was
// missing, and not if another comes in between.
func TestFirst(t *testing.T) {
	t.Parallel()
	other := firewall.Endpoint{Owner: "libnet:net1/c2/eth0", Bridge: "br0", Port: "veth1", Addrs: addrs("10.0.0.3"), Masquerade: firewall.Families{IPv4: true}}
	for _, tt := range []struct {
		name           string
		first, between bool
		restored       bool
	}{
		{"first", true, false, false},
		{"not first", false, false, true},
		{"first, and another comes", true, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			asked := 0
			e := firewall.Endpoint{Owner: "libnet:net1/c1/eth0", Bridge: "br0", Port: "veth0", Addrs: addrs("10.0.0.2"), Masquerade: firewall.Families{IPv4: true}}
			e.First = func() bool {
				if asked++; tt.between {
					if _, err := f.Apply(t.Context(), firewall.Network{}, other); err != nil {
						t.Error(err)
					}
				}
				return tt.first
			}
			restored, err := f.Apply(t.Context(), firewall.Network{}, e)
			if restored != tt.restored || asked != 1 || err != nil {
				t.Errorf("restored %v, asked %d times, %v; want %v, once", restored, asked, err, tt.restored)
			}
			if err := f.Intact(t.Context(), firewall.Network{}); errors.Is(err, firewall.ErrMissing) != tt.restored {
				t.Errorf("intact: %v", err)
			}
			for _, e := range []firewall.Endpoint{e, other} {
				if e.Owner == other.Owner && !tt.between {
					continue
				}
				if err := f.Verify(t.Context(), firewall.Network{}, e); err != nil {
					t.Error(err)
				}
			}
			if restored, err := f.Apply(t.Context(), firewall.Network{}, other); restored != tt.restored || err != nil {
				t.Errorf("the next one: restored %v, %v; want %v", restored, err, tt.restored)
			}
		})
	}
}

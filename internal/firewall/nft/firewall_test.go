package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// sample returns network and endpoint number i with every kind of rule.
func sample(i int) (firewall.Network, firewall.Endpoint) {
	br := fmt.Sprintf("br%d", i)
	return firewall.Network{Name: fmt.Sprintf("net%d", i), Bridge: br, Internal: true, NoICC: true},
		firewall.Endpoint{
			Owner: fmt.Sprintf("net%d/c%d/eth0", i, i), Bridge: br, Port: fmt.Sprintf("veth%d", i),
			Addrs: []netip.Addr{
				netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}),
				netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}),
			},
			Masquerade: both,
			MAC:        net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)},
		}
}

// start isolates the test and returns a Firewall for it.
func start(t testing.TB) *Firewall {
	t.Helper()
	lntest.Isolate(t)
	return fresh(t)
}

func fresh(t testing.TB) *Firewall {
	f := New()
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func mustApply(t testing.TB, f *Firewall, n firewall.Network, e firewall.Endpoint) {
	t.Helper()
	if _, err := f.Apply(t.Context(), n, e); err != nil {
		t.Fatal(err)
	}
}

func mustVerify(t testing.TB, f *Firewall, n firewall.Network, e firewall.Endpoint) {
	t.Helper()
	if err := f.Verify(t.Context(), n, e); err != nil {
		t.Fatalf("differs: %v", err)
	}
}

func mustRemove(t testing.TB, f *Firewall, e firewall.Endpoint) {
	t.Helper()
	if err := f.Remove(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// Several endpoints go in one transaction, and no other goes with them.
func TestRemoveSeveral(t *testing.T) {
	t.Parallel()
	f := start(t)
	var all []firewall.Endpoint
	for i := range 4 {
		n, e := sample(i)
		mustApply(t, f, n, e)
		all = append(all, e)
	}
	staying, stays := sample(3)
	generation := func() (n uint32) {
		if err := f.do(t.Context(), func(c *conn) (err error) {
			n, err = transaction.Generation(c.nl)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := generation()
	if err := f.Remove(t.Context(), all[:3]...); err != nil {
		t.Fatal(err)
	}
	if n := generation() - before; n != 1 {
		t.Errorf("%d transactions, want 1", n)
	}
	mustVerify(t, f, staying, stays)
	owners, err := f.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all[:3] {
		if slices.Contains(owners, e.Owner) {
			t.Errorf("%s still has rules", e.Owner)
		}
	}
}

func mustRemoveNetwork(t testing.TB, f *Firewall, n firewall.Network) {
	t.Helper()
	if err := f.RemoveNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

func wantOwners(t testing.TB, f *Firewall, want ...string) {
	t.Helper()
	got, err := f.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("owners: %s", diff)
	}
}

func tableExists(t testing.TB, f *Firewall, family uint8) bool {
	t.Helper()
	var there []bool
	err := f.do(t.Context(), func(c *conn) (err error) {
		there, err = c.holds(askTable(family))
		return err
	})
	if err != nil {
		t.Error(err) // not Fatal: other goroutines call this too
		return false
	}
	return there[0]
}

func wantTables(t testing.TB, f *Firewall, inet, bridge bool) {
	t.Helper()
	if got := tableExists(t, f, unix.NFPROTO_INET); got != inet {
		t.Errorf("table inet libnet: there is %v, want %v", got, inet)
	}
	if got := tableExists(t, f, unix.NFPROTO_BRIDGE); got != bridge {
		t.Errorf("table bridge libnet: there is %v, want %v", got, bridge)
	}
	if !inet && (tableExists(t, f, unix.NFPROTO_IPV4) || tableExists(t, f, unix.NFPROTO_IPV6)) {
		t.Error("there is a table of conditions")
	}
}

// send commits what fill puts into a batch.
func send(t testing.TB, f *Firewall, fill func(*batch)) {
	t.Helper()
	err := f.do(t.Context(), func(c *conn) error {
		b := newBatch(0)
		fill(b)
		return b.Commit(c.nl)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTwiceIsOnce(t *testing.T) {
	t.Parallel()
	f := start(t)
	if err := f.Available(); err != nil {
		t.Fatal(err)
	}
	n, e := sample(1)
	mustRemove(t, f, e) // nothing is there
	mustRemoveNetwork(t, f, n)
	wantOwners(t, f)
	for range 2 {
		mustApply(t, f, n, e)
		mustVerify(t, f, n, e)
		wantOwners(t, f, e.Owner)
	}
	for range 2 {
		mustRemove(t, f, e)
		wantOwners(t, f)
		wantTables(t, f, true, true)
	}
	for range 2 {
		mustRemoveNetwork(t, f, n)
		wantTables(t, f, false, false)
	}
}

func TestNoRulesNoTables(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := sample(1)
	n.Internal, n.NoICC, e.Masquerade, e.MAC = false, false, firewall.Families{}, nil
	mustApply(t, f, n, e)
	mustApply(t, f, firewall.Network{}, firewall.Endpoint{})
	mustVerify(t, f, n, e)
	wantTables(t, f, false, false)
	e.Masquerade = both
	mustApply(t, f, n, e)
	wantTables(t, f, true, false)
}

func TestTablesStayWhileUsed(t *testing.T) {
	t.Parallel()
	f := start(t)
	n1, e1 := sample(1)
	n2, e2 := sample(2)
	mustApply(t, f, n1, e1)
	mustApply(t, f, n2, e2)
	mustRemove(t, f, e1)
	mustRemoveNetwork(t, f, n1)
	mustVerify(t, f, n2, e2)
	wantOwners(t, f, e2.Owner)
	mustRemove(t, f, e2)
	mustRemoveNetwork(t, f, n1) // not its own, but the bridge table has no element left
	wantTables(t, f, true, false)
	mustRemoveNetwork(t, f, n2)
	wantTables(t, f, false, false)
}

// An endpoint keeps its elements until it is removed; those of a network
// go to the next one that names the same bridge.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, old := sample(1)
	next := old
	next.Owner = "net1/next/eth0"
	mustApply(t, f, n, old)
	var held *firewall.HeldError
	if _, err := f.Apply(t.Context(), n, next); !errors.As(err, &held) || held.Owner != old.Owner {
		t.Fatalf("apply for the address of a living owner: got %v, want a HeldError that names %s", err, old.Owner)
	}
	wantOwners(t, f, old.Owner)
	mustVerify(t, f, n, old)
	mustRemove(t, f, old)
	mustApply(t, f, n, next)

	renamed := n
	renamed.Name = "renamed"
	mustApply(t, f, renamed, next)
	mustRemoveNetwork(t, f, n)
	mustVerify(t, f, renamed, next)
}

func TestRemoveKnowingLittle(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		forget func(*firewall.Endpoint)
	}{
		{"everything known", func(*firewall.Endpoint) {}},
		{"owner only", func(e *firewall.Endpoint) { *e = firewall.Endpoint{Owner: e.Owner} }},
		{"owner and port", func(e *firewall.Endpoint) { *e = firewall.Endpoint{Owner: e.Owner, Port: e.Port} }},
		{"no bridge", func(e *firewall.Endpoint) { e.Bridge = "" }},
		{"no port", func(e *firewall.Endpoint) { e.Port = "" }},
		{"no mac", func(e *firewall.Endpoint) { e.MAC = nil }},
		{"other mac", func(e *firewall.Endpoint) { e.MAC = net.HardwareAddr{6, 6, 6, 6, 6, 6} }},
		{"changed conf", func(e *firewall.Endpoint) { e.Masquerade = firewall.Families{} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			n, e := sample(1)
			_, other := sample(2)
			e.Owner = strings.Repeat(e.Owner, 20) // longer than a comment
			mustApply(t, f, n, e)
			mustApply(t, f, n, other)
			tt.forget(&e)
			mustRemove(t, f, e)
			wantOwners(t, f, other.Owner)
			mustVerify(t, f, n, other)
			mustRemove(t, f, other)
			mustRemoveNetwork(t, f, firewall.Network{Name: n.Name})
			wantTables(t, f, false, false)
		})
	}
}

func TestVerifyNames(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := sample(1)
	p, err := ruleset.Plan(n, e)
	if err != nil {
		t.Fatal(err)
	}
	// check breaks something, and wants Verify to name it and Apply to mend it.
	check := func(is error, want string, breaking func(*batch)) {
		t.Helper()
		mustApply(t, f, n, e)
		mustVerify(t, f, n, e)
		send(t, f, breaking)
		if err := f.Verify(t.Context(), n, e); !errors.Is(err, is) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q: %v", err, want, is)
		}
		var held *firewall.HeldError
		if _, err := f.Apply(t.Context(), n, e); errors.As(err, &held) { // a living owner's stays
			send(t, f, func(b *batch) {
				for _, el := range p.Elems {
					if held.Element == el.String() {
						b.takeOver(el)
					}
				}
			})
		}
		mustApply(t, f, n, e)
		mustVerify(t, f, n, e)
	}
	for _, el := range p.Elems {
		check(firewall.ErrMissing, "element "+el.String(), func(b *batch) { b.Del(el) })
		check(firewall.ErrConflict, `element `+el.String()+` of "thief"`, func(b *batch) { b.takeOver(ruleset.Elem{Set: el.Set, Key: el.Key, Owner: "thief"}) })
	}
	for _, tab := range []ruleset.Table{ruleset.InetTable(), ruleset.BridgeTable()} {
		checkTable(check, tab)
	}
	check(firewall.ErrMissing, "set inet libnet home4", func(b *batch) { // as a table of another version
		for _, typ := range []uint8{unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWTABLE} {
			b.Add(typ, 0, unix.NFPROTO_INET, func(a *nfnl.Attrs) { a.String(unix.NFTA_TABLE_NAME, firewall.TableName) })
		}
	})
}

func checkTable(check func(is error, want string, breaking func(*batch)), tab ruleset.Table) {
	name := ruleset.FamilyName(tab.Family) + " libnet"
	check(firewall.ErrMissing, "table "+name, func(b *batch) {
		b.Add(unix.NFT_MSG_DELTABLE, 0, tab.Family, func(a *nfnl.Attrs) {
			a.String(unix.NFTA_TABLE_NAME, firewall.TableName)
		})
	})
	for _, ch := range tab.Chains {
		del := func(typ uint8) func(*batch) { // the chain, or all its rules
			return func(b *batch) {
				b.Add(typ, 0, tab.Family, func(a *nfnl.Attrs) {
					a.String(unix.NFTA_RULE_TABLE, firewall.TableName)
					if typ == unix.NFT_MSG_DELCHAIN {
						a.String(unix.NFTA_CHAIN_NAME, ch.Name)
					} else {
						a.String(unix.NFTA_RULE_CHAIN, ch.Name)
					}
				})
			}
		}
		if ch.Jumps == 0 { // the kernel keeps those that are jumped to
			check(firewall.ErrMissing, "chain "+name+" "+ch.Name, del(unix.NFT_MSG_DELCHAIN))
		}
		if ch.Name == ruleset.MarksChain {
			continue
		}
		check(firewall.ErrConflict, "rules of chain "+name+" "+ch.Name, func(b *batch) { b.AddRule(tab.Family, ch.Name, ruleset.Rule{Why: "theirs", Does: ruleset.Rules()}) })
		for _, r := range ch.Rules {
			check(firewall.ErrMissing, fmt.Sprintf("rule %s %s %q", name, ch.Name, r.Why), del(unix.NFT_MSG_DELRULE))
		}
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	f := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n, e := sample(1)
	if _, err := f.Apply(ctx, n, e); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	wantTables(t, f, false, false)
}

package balance

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

func TestMain(m *testing.M) { os.Exit(lntest.Main(m)) }

// elems is a service with one backend, of both families.
func (f Families) elems(target string) (all []Elem) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for _, vip := range []string{"10.1.0.9", "fd01::9"} {
		p := Port{netip.MustParseAddr(vip), firewall.TCP, 80}
		to := netip.MustParseAddr(target)
		if p.Addr.Is6() {
			to = netip.MustParseAddr("fd01::2")
		}
		backend := Port{to, firewall.TCP, 8080}
		all = append(append(all, f.Address(p.Addr, "br0")...), f.Count(p), f.Lead(p, to), f.Take(p), f.Self(to), f.Bridged(backend, mac))
		for i := range spreadBuckets {
			all = append(all, f.Bucket(Spread, p, i, netip.AddrPortFrom(to, 8080)))
		}
		all = append(all, f.Bucket(Rest, p, 7, netip.AddrPortFrom(to, 8080)), f.Bucket(Sticky, p, 255, netip.AddrPortFrom(to, 8080)))
	}
	return all
}

// Elements come, change and go; what was flushed or broken is written anew, and told.
func TestApply(t *testing.T) {
	lntest.Isolate(t)
	f, ctx := New(), context.Background()
	defer func() { _ = f.Close() }()
	apply := func(want, gone []Elem, wantFresh bool) {
		t.Helper()
		fresh, err := f.Apply(ctx, want, gone)
		if err != nil || fresh != wantFresh {
			t.Fatalf("Apply: fresh %v, %v; want %v", fresh, err, wantFresh)
		}
		missing, stray, err := f.Differs(ctx, want, gone)
		if err != nil || len(missing)+len(stray) > 0 {
			t.Fatalf("after Apply: missing %v, stray %v, %v", missing, stray, err)
		}
	}
	one, other := f.elems("10.1.0.2"), f.elems("10.1.0.3")
	if missing, _, err := f.Differs(ctx, one, nil); err != nil || len(missing) != len(one) {
		t.Fatalf("without tables %d of %d are missing, %v", len(missing), len(one), err)
	}
	apply(one, nil, true)
	apply(one, nil, false)
	apply(other, one, false)
	all, err := f.List(ctx)
	if err != nil || len(all) != len(other) {
		t.Fatalf("%d elements, %v; want %d", len(all), err, len(other))
	}
	for _, damage := range [][]string{
		{"flush", "ruleset"},
		{"delete", "table", "inet", TableName},
		{"flush", "table", "bridge", TableName},
		{"flush", "chain", "inet", TableName, "services"},
		{"add", "table", "inet", TableName, "{ flags dormant; }"},
	} {
		lntest.Run(t, "nft", damage...)
		if missing, _, err := f.Differs(ctx, other, nil); err != nil || len(missing) == 0 {
			t.Errorf("after %v nothing is missing, %v", damage, err)
		}
		apply(other, nil, true)
	}
	lntest.Run(t, "nft", "add", "element", "inet", TableName, "self4", "{ 10.9.9.9 . 10.9.9.9 }")
	lntest.Run(t, "nft", "delete", "element", "inet", TableName, "host4", "{ 10.1.0.9 }")
	stranger := f.Self(netip.MustParseAddr("10.9.9.9"))
	missing, stray, err := f.Differs(ctx, other, []Elem{stranger})
	if err != nil || len(missing) != 1 || len(stray) != 1 {
		t.Errorf("missing %v, stray %v, %v; want one of each", missing, stray, err)
	}
	apply(nil, other, false)
	unused := func() (bool, error) { return true, nil }
	if err := f.Drop(ctx, func() (bool, error) { return false, nil }); err != nil || lntest.Run(t, "nft", "list", "ruleset") == "" {
		t.Fatalf("Drop of tables that are in use: %v", err)
	}
	asked := 0
	if err := f.Drop(ctx, func() (bool, error) { // a service comes as Drop is about to begin
		if asked++; asked > 1 {
			return false, nil
		}
		_, err := New().Apply(ctx, one, nil)
		return true, err
	}); err != nil || asked != 2 || lntest.Run(t, "nft", "list", "ruleset") == "" {
		t.Fatalf("Drop beside a new service: asked %d times, %v", asked, err)
	}
	if err := f.Drop(ctx, unused); err != nil {
		t.Fatal(err)
	}
	if left := lntest.Run(t, "nft", "list", "ruleset"); left != "" {
		t.Errorf("left after Drop:\n%s", left)
	}
	if err := f.Drop(ctx, unused); err != nil {
		t.Errorf("Drop of nothing: %v", err)
	}
}

// A table that is lost is written anew, and the other one stays as it is, with what other services
// have in it: connections meet these meanwhile.
func TestApplyLeavesTheOtherTable(t *testing.T) {
	lntest.Isolate(t)
	f, ctx := New(), context.Background()
	defer func() { _ = f.Close() }()
	one, others := f.elems("10.1.0.2"), f.Self(netip.MustParseAddr("10.9.9.9"))
	if _, err := f.Apply(ctx, append(slices.Clone(one), others), nil); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		family string
		stays  bool
	}{{"bridge", true}, {"inet", false}} {
		lntest.Run(t, "nft", "delete", "table", tt.family, TableName)
		for i, wantFresh := range []bool{true, false} {
			if fresh, err := f.ApplyNew(ctx, one[:20], one[20:], nil); err != nil || fresh != wantFresh {
				t.Fatalf("%s: call %d: fresh %v, %v", tt.family, i, fresh, err)
			}
		}
		missing, stray, err := f.Differs(ctx, one, []Elem{others})
		if err != nil || len(missing) > 0 || len(stray) > 0 != tt.stays {
			t.Errorf("%s was lost: missing %v, of others %v, %v", tt.family, missing, stray, err)
		}
	}
}

// Elements that are thought to be missing are not looked for; if others stand there they go.
func TestApplyNew(t *testing.T) {
	lntest.Isolate(t)
	f, ctx := New(), context.Background()
	defer func() { _ = f.Close() }()
	one, other := f.elems("10.1.0.2"), f.elems("10.1.0.3")
	for _, step := range []struct{ missing, want, gone []Elem }{
		{one, nil, nil}, {one, nil, one}, {other, nil, one}, {one[:20], one[20:], other},
	} {
		if _, err := f.ApplyNew(ctx, step.missing, step.want, step.gone); err != nil {
			t.Fatal(err)
		}
		want := append(append([]Elem(nil), step.missing...), step.want...)
		missing, stray, err := f.Differs(ctx, want, step.gone)
		if err != nil || len(missing)+len(stray) > 0 {
			t.Fatalf("missing %v, stray %v, %v", missing, stray, err)
		}
		if all, err := f.List(ctx); err != nil || len(all) != len(want) {
			t.Fatalf("%d elements, %v; want %d", len(all), err, len(want))
		}
	}
}

// nft reads our rules as they are meant.
func TestRulesInWords(t *testing.T) {
	lntest.Isolate(t)
	f := New()
	defer func() { _ = f.Close() }()
	if _, err := f.Apply(context.Background(), f.elems("10.1.0.2"), nil); err != nil {
		t.Fatal(err)
	}
	words := lntest.Run(t, "nft", "list", "ruleset")
	for _, want := range []string{
		`iifname . ip daddr @inside4 jump services`,
		`ip daddr @host4 jump services`,
		`dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 64 map @spread4`,
		`dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 64 map @rest6`,
		`dnat ip to ip daddr . meta l4proto . th dport . jhash ip saddr mod 256 seed 0x6c6e map @sticky4`,
		`ct original ip daddr . meta l4proto . ct original proto-dst . ip daddr @led4`,
		`ct original ip6 daddr & :: . meta l4proto . ct original proto-dst . ip6 daddr @led6`,
		`ip saddr . ip daddr @self4 masquerade`, `reject with tcp reset`, `!= icmp ct direction original reject`,
		`fib daddr type local jump published`, `ip saddr 127.0.0.0/8 ip daddr . ip daddr @self4 masquerade`,
		`ip daddr @host4 dnat ip to ip daddr`, `ip6 daddr & :: . meta l4proto . th dport @taken6 dnat ip6 to ip6 daddr`,
		`ct state new jump refused`, `ip daddr & 0.0.0.0 . meta l4proto . tcp dport @taken4 reject with tcp reset`,
		`dnat ip to ip daddr & 0.0.0.0 . meta l4proto . th dport . numgen random mod 64 map @spread4`,
		`ip saddr . ip daddr @self4 masquerade`, `reject with tcp reset`, `!= icmp ct direction original reject`,
		`fib daddr type local jump published`, `ip saddr 127.0.0.0/8 ip daddr . ip daddr @self4 masquerade`,
		`ip daddr @host4 dnat ip to ip daddr`, `ip6 daddr & :: . meta l4proto . th dport @taken6 dnat ip6 to ip6 daddr`,
		`dnat ip to ip daddr & 0.0.0.0 . meta l4proto . th dport . numgen random mod 64 map @spread4`,
		`ct state new jump refused`, `ip daddr & 0.0.0.0 . meta l4proto . tcp dport @taken4 reject with tcp reset`,
		`meta pkttype other ether daddr set ip saddr . meta l4proto . th sport map @bridged4 meta pkttype set host`,
		`10.1.0.9 . tcp . 80 counter packets 0`, `10.1.0.9 . tcp . 80 . 10.1.0.2 counter packets 0`,
	} {
		if !strings.Contains(words, want) {
			t.Errorf("nft does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(words)
	}
}

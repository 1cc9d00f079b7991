package admit

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/lntest"
)

func TestMain(m *testing.M) { os.Exit(lntest.Main(m)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func start(t testing.TB) *Tables {
	f := New()
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// some are elements of all sets; class tells two lots of them apart.
func (s *Sets) some(class uint32) (all []Elem) {
	for _, text := range []string{"10.1.0.2", "fd01::2"} {
		a := netip.MustParseAddr(text)
		for side := range sides {
			all = append(all, s.Isolate(a, side, class), s.Judge(a), s.Self(a), s.Allow(a, side, class, class), s.Allow(a, side, AnyPod, class))
		}
		all = append(all, s.Peer(a, class), s.Block(a, a.Next(), class), s.Pod(a), s.Local(a), s.Home(netip.PrefixFrom(a, 28)), s.Lift(a, net.HardwareAddr{2, 0, 0, 0, 0, 1}))
	}
	return ruleset.Dedupe(append(all, s.Open("veth0"), s.Ports(class, firewall.TCP, 80, 80), s.Ports(class, firewall.SCTP, 1, 65535)))
}

// Tables are written, changed, lost and removed, and told to be so.
func TestTables(t *testing.T) {
	lntest.Isolate(t)
	f, ctx := start(t), context.Background()
	stands := func(wantWhole, wantThere bool) {
		t.Helper()
		whole, there, err := f.Whole(ctx)
		if whole != wantWhole || there != wantThere || err != nil {
			t.Errorf("whole %v, there %v, %v; want %v, %v", whole, there, err, wantWhole, wantThere)
		}
	}
	holds := func(want []Elem) {
		t.Helper()
		list, err := f.List(ctx)
		check(t, err)
		all, err := list.Elems()
		check(t, err)
		have := map[string]bool{}
		for _, e := range all {
			have[e.String()] = true
		}
		for _, e := range want {
			if !have[e.String()] {
				t.Errorf("missing: %s", e)
			}
		}
		if len(all) != len(want) {
			t.Errorf("%d elements, want %d: %v", len(all), len(want), all)
		}
	}
	stands(false, false)
	if err := f.Change(ctx, nil, f.some(1)); !errors.Is(err, ErrLost) {
		t.Errorf("Change without tables: %v", err)
	}
	check(t, f.Replace(ctx, f.some(1)))
	holds(f.some(1))
	check(t, f.Change(ctx, f.some(1), f.some(7)))
	holds(f.some(7))
	if err := f.Change(ctx, []Elem{f.Isolate(netip.MustParseAddr("10.9.9.9"), In, NoPorts)}, f.some(1)); !errors.Is(err, ErrLost) {
		t.Errorf("Change of what is not there: %v", err)
	}
	stands(true, true)
	for _, damage := range [][]string{
		{"delete", "table", "inet", TableName},
		{"flush", "table", "bridge", TableName},
		{"flush", "chain", "inet", TableName, "ingressreplies4"},
		{"add", "table", "inet", TableName, "{ flags dormant; }"},
	} {
		lntest.Run(t, "nft", damage...)
		stands(false, true)
		if err := f.Change(ctx, nil, []Elem{f.Isolate(netip.MustParseAddr("10.9.9.9"), In, NoPorts)}); !errors.Is(err, ErrLost) {
			t.Errorf("Change after %v: %v", damage, err)
		}
		check(t, f.Replace(ctx, f.some(1)))
		stands(true, true)
		holds(f.some(1))
	}
	f.blind.Store(true) // as on a kernel without classes of routes
	check(t, f.Replace(ctx, f.some(7)))
	check(t, f.Change(ctx, f.some(7), f.some(1)))
	f.blind.Store(false)
	stands(true, true)
	holds(f.some(1))
	if words := lntest.Run(t, "nft", "list", "table", "bridge", TableName); strings.Contains(words, "rtclassid") {
		t.Errorf("the kernel cannot say so:\n%s", words)
	}
	check(t, f.Drop(ctx))
	stands(false, false)
	if left := lntest.Run(t, "nft", "list", "ruleset"); left != "" {
		t.Errorf("left after Drop:\n%s", left)
	}
	check(t, f.Drop(ctx))
}

// nft reads our rules as they are meant.
func TestRulesInWords(t *testing.T) {
	lntest.Isolate(t)
	f := start(t)
	check(t, f.Replace(context.Background(), f.some(1)))
	words := lntest.Run(t, "nft", "list", "ruleset")
	for _, want := range []string{
		`ip daddr @judged4 goto judge4`, `ip6 saddr @judged6 goto judge6`, `ct direction reply goto replies4`, `ct state invalid,untracked drop`,
		`meta priority set ip saddr map @out4 jump egressrequests4`, `meta priority set ip6 saddr map @in6 jump ingressreplies6`,
		`tcp flags ! syn jump answers4`, `ip saddr . ip daddr @self4 return`, `10.1.0.2 : 0:1`, `10.1.0.2 : 8000:1`,
		`ip6 daddr @pods6 meta priority set ip6 saddr map @outpod6`, `meta priority 0:1 return`,
		`meta priority set ip saddr map @peers4`, `meta priority set meta nfproto . ip6 daddr map @blocks6`,
		`meta priority set ip saddr . meta priority map @inclass4`, `meta priority . meta l4proto . th sport @ports return`,
		`ip daddr != @local4 jump home4`, `meta nfproto . ip6 daddr @home6 reject with icmpx host-unreachable`, `goto done4`,
		`iifgroup != 1819177076 return`, `icmpv6 type 133-137 return`, `iifname @open return`, `meta rtclassid`, `meta protocol != arp drop`, `@nh,0,16 & 0xfff == 0x0 meta protocol 8021q drop`,
		`meta pkttype != host ether daddr set ip daddr map @lift4 meta pkttype set host`, `meta priority set ip6 daddr map @out6 drop`,
	} {
		if !strings.Contains(words, want) {
			t.Errorf("nft does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(words)
	}
	restore := exec.Command("nft", "-c", "-f", "-")
	restore.Stdin = strings.NewReader("flush ruleset\n" + words)
	if out, err := restore.CombinedOutput(); err != nil {
		t.Errorf("nft does not take back what it lists: %v: %s", err, out)
	}
}

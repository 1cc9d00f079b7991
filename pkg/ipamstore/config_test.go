package ipamstore

import (
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/ipmath"
)

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	one := func(r Range) Config { return Config{Network: "n", Sets: []RangeSet{{r}}} }
	for _, c := range []struct {
		conf Config
		key  string
	}{
		{Config{}, "name"},
		{Config{Network: "../x"}, "name"},
		{Config{Network: ".libnet"}, "name"},
		{Config{Network: "a/b"}, "name"},
		{Config{Network: "n", DataDir: "a\x00b"}, "dataDir"},
		{Config{Network: "n", Strategy: "best"}, "strategy"},
		{Config{Network: "n", RebootPolicy: "maybe"}, "rebootPolicy"},
		{Config{Network: "n", Cooldown: -1}, "cooldown"},
		{Config{Network: "n", WarnAt: 101}, "warnAt"},
		{Config{Network: "n", LockTimeout: -time.Second}, "lockTimeout"},
		{Config{Network: "n", BootID: "a b"}, "bootID"},
		{Config{Network: "n", Sets: []RangeSet{{}}}, "ranges[0]"},
		{one(Range{}), "ranges[0][0].subnet"},
		{one(Range{Subnet: prefix("10.0.0.1/24")}), "ranges[0][0].subnet"},
		{one(Range{Subnet: prefix("::ffff:10.0.0.0/120")}), "ranges[0][0].subnet"},
		{one(Range{Subnet: prefix("10.0.0.0/24"), Start: addr("10.0.1.1")}), "ranges[0][0].rangeStart"},
		{one(Range{Subnet: prefix("10.0.0.0/24"), End: addr("fd00::1")}), "ranges[0][0].rangeEnd"},
		{one(Range{Subnet: prefix("10.0.0.0/24"), Start: addr("10.0.0.9"), End: addr("10.0.0.8")}), "ranges[0][0].rangeEnd"},
		{one(Range{Subnet: prefix("10.0.0.0/24"), Start: addr("10.0.0.255")}), "ranges[0][0].rangeStart"},
		{one(Range{Subnet: prefix("10.0.0.0/24"), Start: addr("10.0.0.255"), End: addr("10.0.0.255")}), "ranges[0][0].rangeStart"},
		{one(Range{Subnet: prefix("10.0.0.0/24"), Gateway: addr("fd00::1")}), "ranges[0][0].gateway"},
		{one(Range{Subnet: prefix("fe80::/64"), Start: addr("fe80::1%eth0")}), "ranges[0][0].rangeStart"},
		{Config{Network: "n", Sets: sets("10.0.0.0/8", "10.1.0.0/16")}, "ranges[1][0]"},
		{Config{Network: "n", Sets: []RangeSet{{{Subnet: prefix("10.0.0.0/24")}, {Subnet: prefix("fd00::/64")}}}}, "ranges[0][1]"},
		{Config{Network: "n", Sets: sets("10.0.0.0/24"), Exclude: []netip.Prefix{{}}}, "exclude[0]"},
		{Config{Network: "n", Sets: sets("10.0.0.0/24"), Aux: map[string]netip.Addr{"a": addr("10.0.1.1")}}, "auxAddresses.a"},
	} {
		_, err := Open(c.conf)
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Key != c.key {
			t.Errorf("%+v: %v, want an error of %s", c.conf, err, c.key)
		}
	}
}

func TestRangeDefaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		r                   Range
		start, end, gateway string
		size                uint64
	}{
		{Range{Subnet: prefix("10.0.0.0/24")}, "10.0.0.1", "10.0.0.254", "10.0.0.1", 253},
		{Range{Subnet: prefix("10.0.0.0/30")}, "10.0.0.1", "10.0.0.2", "10.0.0.1", 1},
		{Range{Subnet: prefix("10.0.0.0/24"), Start: addr("10.0.0.254"), End: addr("10.0.0.255")}, "10.0.0.254", "10.0.0.254", "10.0.0.1", 1},
		{Range{Subnet: prefix("10.0.0.0/24"), Start: addr("10.0.0.0"), End: addr("10.0.0.3")}, "10.0.0.1", "10.0.0.3", "10.0.0.1", 2},
		{Range{Subnet: prefix("fd00::/120"), Start: addr("fd00::"), End: addr("fd00::ff")}, "fd00::1", "fd00::ff", "fd00::1", 254},
		{Range{Subnet: prefix("10.0.0.0/31")}, "10.0.0.0", "10.0.0.1", "", 2},
		{Range{Subnet: prefix("10.0.0.0/31"), Gateway: addr("10.0.0.0")}, "10.0.0.0", "10.0.0.1", "10.0.0.0", 1},
		{Range{Subnet: prefix("10.0.0.7/32"), Gateway: addr("169.254.1.1")}, "10.0.0.7", "10.0.0.7", "169.254.1.1", 1},
		{Range{Subnet: prefix("10.0.0.0/8")}, "10.0.0.1", "10.255.255.254", "10.0.0.1", 1<<24 - 3},
		{Range{Subnet: prefix("fd00::/126")}, "fd00::1", "fd00::3", "fd00::1", 2},
		{Range{Subnet: prefix("fd00::/127")}, "fd00::", "fd00::1", "", 2},
		{Range{Subnet: prefix("fd00::9/128")}, "fd00::9", "fd00::9", "", 1},
		{Range{Subnet: prefix("fd00::/64")}, "fd00::1", "fd00::ffff:ffff:ffff:ffff", "fd00::1", math.MaxUint64 - 1},
		{Range{Subnet: prefix("fd00::/48")}, "fd00::1", "fd00::ffff:ffff:ffff:ffff:ffff", "fd00::1", math.MaxUint64},
	} {
		s := mustOpen(t, Config{Sets: []RangeSet{{c.r}}})
		got := s.pools[0].ranges[0]
		var gw netip.Addr
		if c.gateway != "" {
			gw = addr(c.gateway)
		}
		if got.Start != addr(c.start) || got.End != addr(c.end) || got.Gateway != gw || s.pools[0].size != c.size {
			t.Errorf("%s: %v size %d, want %v", c.r.Subnet, got, s.pools[0].size, c)
		}
	}
}

// Search order, sizes and places agree with counting one by one.
func TestSpans(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		base := []string{"10.0.0.0/24", "fd00::fff0:0/120"}[rng.IntN(2)]
		nth := func(n int) netip.Addr { return ipmath.Add(prefix(base).Addr(), uint64(n)) }
		var c Config
		cuts := []int{0, 30 + rng.IntN(50), 100 + rng.IntN(50), 160 + rng.IntN(80)}
		var set RangeSet
		want := map[netip.Addr]bool{}
		for _, i := range rng.Perm(3) {
			lo, hi := cuts[i]+rng.IntN(10), cuts[i+1]-1-rng.IntN(10)
			set = append(set, Range{Subnet: prefix(base), Start: nth(lo), End: nth(hi), Gateway: nth(rng.IntN(256))})
			for n := max(lo, 1); n <= hi; n++ { // not the network address
				want[nth(n)] = true
			}
		}
		for range 3 {
			p, _ := nth(rng.IntN(256)).Prefix(prefix(base).Addr().BitLen() - rng.IntN(5))
			c.Exclude = append(c.Exclude, p)
			for a := p.Addr(); p.Contains(a); a = a.Next() {
				delete(want, a)
			}
		}
		for _, r := range set {
			delete(want, r.Gateway)
		}
		c.Sets = []RangeSet{set}
		p := &mustOpen(t, c).pools[0]
		checkSpans(t, p, want, nth(rng.IntN(256)))
	}
}

func checkSpans(t *testing.T, p *pool, want map[netip.Addr]bool, last netip.Addr) {
	t.Helper()
	if p.size != uint64(len(want)) {
		t.Fatalf("size %d, want %d", p.size, len(want))
	}
	var order []netip.Addr
	for k := range p.size {
		a, _ := p.nth(k)
		if !want[a] || !p.choosable(a) {
			t.Fatalf("%s is not free to choose", a)
		}
		order = append(order, a)
	}
	start, ok := p.after(last)
	if !ok {
		return
	}
	var got []netip.Addr
	for _, s := range p.from(start) {
		for a := s.first; ; a = a.Next() {
			got = append(got, a)
			if a == s.last {
				break
			}
		}
	}
	if len(got) != len(order) || got[0] != start {
		t.Fatalf("%d addresses from %s, want %d from %s", len(got), got[0], len(order), start)
	}
	for i, a := range order {
		if a == start {
			for j := range got {
				if got[j] != order[(i+j)%len(order)] {
					t.Fatalf("from %s: place %d is %s", start, j, got[j])
				}
			}
		}
	}
	if p.choosable(last) && p.size > 1 {
		if i := indexOf(order, last); start != order[(i+1)%len(order)] {
			t.Fatalf("after %s comes %s", last, start)
		}
	}
}

func indexOf(list []netip.Addr, a netip.Addr) int {
	for i, x := range list {
		if x == a {
			return i
		}
	}
	return -1
}

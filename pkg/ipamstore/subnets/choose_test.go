package subnets

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/ipmath"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// poolsOf reads "10.1.0.0/16:24 fd00::/48:64": bases and sizes.
func poolsOf(t testing.TB, s string) (out []Pool) {
	t.Helper()
	for f := range strings.FieldsSeq(s) {
		cut := strings.LastIndexByte(f, ':')
		size, err := strconv.Atoi(f[cut+1:])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Pool{netip.MustParsePrefix(f[:cut]), size})
	}
	return out
}

func prefixes(s string) (out []netip.Prefix) {
	for f := range strings.FieldsSeq(s) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

const none = "exhausted"

// TestChoose is the table of what is chosen. The cases go around a pool
// from its start to its end, then over several pools, sizes and families.
func TestChoose(t *testing.T) {
	const (
		one  = "10.8.0.0/22:24"                                    // gives 10.8.0.0, .1, .2 and .3
		two  = "10.8.0.0/23:24 10.9.0.0/23:24"                     // and two more
		mix  = "10.8.0.0/23:24 172.30.0.0/15:16 192.168.0.0/17:18" // three sizes
		dual = "10.8.0.0/22:24 fd12:3456:789a::/48:64"
	)
	for _, tt := range []struct{ name, pools, inUse, ask, want string }{
		{"nothing in use", one, "", "auto", "10.8.0.0/24"},
		{"only in use below the pool", one, "10.7.0.0/16", "auto", "10.8.0.0/24"},
		{"only in use above the pool", one, "10.8.4.0/24 10.9.0.0/16", "auto", "10.8.0.0/24"},
		{"neighbours on both sides of the pool", one, "10.7.255.0/24 10.8.4.0/24", "auto", "10.8.0.0/24"},
		{"the first is in use", one, "10.8.0.0/24", "auto", "10.8.1.0/24"},
		{"the first two are in use", one, "10.8.0.0/24 10.8.1.0/24", "auto", "10.8.2.0/24"},
		{"a gap after the first", one, "10.8.0.0/24 10.8.2.0/24", "auto", "10.8.1.0/24"},
		{"a gap of two: the lower", one, "10.8.0.0/24 10.8.3.0/24", "auto", "10.8.1.0/24"},
		{"a gap before the first in use", one, "10.8.1.0/24 10.8.2.0/24", "auto", "10.8.0.0/24"},
		{"only the last is free", one, "10.8.0.0/24 10.8.1.0/24 10.8.2.0/24", "auto", "10.8.3.0/24"},
		{"only the last is in use", one, "10.8.3.0/24", "auto", "10.8.0.0/24"},
		{"all are in use", one, "10.8.0.0/24 10.8.1.0/24 10.8.2.0/24 10.8.3.0/24", "auto", none},
		{"in use in any order", one, "10.8.2.0/24 10.8.0.0/24 10.8.1.0/24", "auto", "10.8.3.0/24"},
		{"in use twice", one, "10.8.0.0/24 10.8.0.0/24", "auto", "10.8.1.0/24"},

		{"a host address at the start", one, "10.8.0.0/32", "auto", "10.8.1.0/24"},
		{"a host address at the end of the first", one, "10.8.0.255/32", "auto", "10.8.1.0/24"},
		{"a host address in each but one", one, "10.8.0.1/32 10.8.1.1/32 10.8.3.1/32", "auto", "10.8.2.0/24"},
		{"a host address in each", one, "10.8.0.1/32 10.8.1.1/32 10.8.2.1/32 10.8.3.1/32", "auto", none},
		{"many small ones in one subnet", one, "10.8.0.0/26 10.8.0.64/26 10.8.0.200/32 10.8.0.224/27", "auto", "10.8.1.0/24"},
		{"small ones in a larger one", one, "10.8.0.0/23 10.8.0.5/32 10.8.1.7/32", "auto", "10.8.2.0/24"},
		{"host bits in what is in use", one, "10.8.0.77/24", "auto", "10.8.1.0/24"},
		{"one larger than a subnet at the start", one, "10.8.0.0/23", "auto", "10.8.2.0/24"},
		{"one larger than a subnet at the end", one, "10.8.2.0/23", "auto", "10.8.0.0/24"},
		{"one the size of the pool", one, "10.8.0.0/22", "auto", none},
		{"one larger than the pool", one, "10.0.0.0/8", "auto", none},
		{"one larger than the pool, with others inside", one, "10.0.0.0/8 10.8.0.0/24 10.8.3.0/24", "auto", none},

		{"the first pool is full", two, "10.8.0.0/24 10.8.1.0/24", "auto", "10.9.0.0/24"},
		{"the first pool is covered", two, "10.8.0.0/16", "auto", "10.9.0.0/24"},
		{"both are full but for the last", two, "10.8.0.0/23 10.9.0.0/24", "auto", "10.9.1.0/24"},
		{"both are full", two, "10.8.0.0/23 10.9.0.0/23", "auto", none},
		{"one covers both", two, "10.8.0.0/15", "auto", none},
		{"one between the pools", two, "10.8.0.0/24 10.8.2.0/23", "auto", "10.8.1.0/24"},
		{"pools in any order: the lowest", "10.9.0.0/23:24 10.8.0.0/23:24", "", "auto", "10.8.0.0/24"},
		{"a pool inside another", "10.8.0.0/22:24 10.8.1.0/24:26", "10.8.0.0/23", "auto", "10.8.2.0/24"},
		{"one pool twice", "10.8.0.0/24:24 10.8.0.0/24:24", "10.8.0.0/24", "auto", none},
		{"a pool that is one subnet", "10.8.0.0/24:24", "", "auto", "10.8.0.0/24"},
		{"the size is that of the pool", mix, "10.8.0.0/23", "auto", "172.30.0.0/16"},
		{"and of the next", mix, "10.8.0.0/23 172.30.0.0/15", "auto", "192.168.0.0/18"},

		{"smaller than the pool's size", one, "", "auto/26", "10.8.0.0/26"},
		{"smaller, behind what is in use", one, "10.8.0.0/26 10.8.0.64/27", "auto/26", "10.8.0.128/26"},
		{"smaller, in a gap too small for the pool's size", one, "10.8.0.0/25 10.8.0.192/26 10.8.1.0/24 10.8.2.0/23", "auto/26", "10.8.0.128/26"},
		{"larger than the pool's size", one, "", "auto/23", "10.8.0.0/23"},
		{"larger, kept to its own bounds", one, "10.8.0.0/24", "auto/23", "10.8.2.0/23"},
		{"larger, and no gap is wide enough", one, "10.8.1.0/24 10.8.2.0/24", "auto/23", none},
		{"as large as the pool", one, "", "auto/22", "10.8.0.0/22"},
		{"larger than the first pool: the next", mix, "", "auto/16", "172.30.0.0/16"},
		{"larger than all but one, which is full", mix, "172.30.0.0/15", "auto/16", none},

		{"IPv6", dual, "", "auto6", "fd12:3456:789a::/64"},
		{"IPv6 behind others", dual, "fd12:3456:789a::/64 fd12:3456:789a:1::5/128", "auto6", "fd12:3456:789a:2::/64"},
		{"IPv6 of another size", dual, "fd12:3456:789a::/64", "auto6/60", "fd12:3456:789a:10::/60"},
		{"IPv6 in use does not matter for IPv4", dual, "::/1 fd12:3456:789a::/48", "auto", "10.8.0.0/24"},
		{"IPv4 in use does not matter for IPv6", dual, "10.0.0.0/8", "auto6", "fd12:3456:789a::/64"},
		{"IPv4 in use, written as IPv6", one, "::ffff:10.8.0.0/120", "auto", "10.8.1.0/24"},
		{"the end of the IPv4 addresses", "255.255.254.0/23:24", "255.255.254.0/23", "auto", none},
		{"the end of the IPv6 addresses", "ffff:ffff:ffff:ffff::/64:66", "ffff:ffff:ffff:ffff:8000::/65", "auto6", "ffff:ffff:ffff:ffff::/66"},
		{"a pool of very many", "fd00::/8:64", "fd00::/9 fd80::/64", "auto6", "fd80:0:0:1::/64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ask, err := ParseRequest(tt.ask)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Choose(poolsOf(t, tt.pools), prefixes(tt.inUse), ask)
			if errors.Is(err, ipamstore.ErrExhausted) && tt.want == none {
				return
			}
			if err != nil || got.String() != tt.want {
				t.Errorf("got %v, %v, want %s", got, err, tt.want)
			}
		})
	}
}

// One chosen, released and chosen again is the same.
func TestChooseReuses(t *testing.T) {
	var used []netip.Prefix
	next := func() netip.Prefix {
		t.Helper()
		p, err := Choose(poolsOf(t, "10.8.0.0/22:24"), used, Request{})
		if err != nil {
			t.Fatal(err)
		}
		used = append(used, p)
		return p
	}
	next()
	second := next()
	next()
	used = append(used[:1], used[2:]...)
	if got := next(); got != second {
		t.Errorf("got %s, want %s, which was released", got, second)
	}
}

func TestDefaultPools(t *testing.T) {
	pools := defaultPools([]byte("0123456789abcdef0123456789abcdef\n"))
	var used []netip.Prefix
	for {
		p, err := Choose(pools, used, Request{})
		if err != nil {
			if want := "172.17.0.0/16, 172.18.0.0/16"; !errors.Is(err, ipamstore.ErrExhausted) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "31 in use") {
				t.Errorf("error %v, want ErrExhausted that names %s and 31", err, want)
			}
			break
		}
		used = append(used, p)
	}
	if len(used) != 31 || used[0] != netip.MustParsePrefix("172.17.0.0/16") || used[14] != netip.MustParsePrefix("172.31.0.0/16") || used[15] != netip.MustParsePrefix("192.168.0.0/20") {
		t.Errorf("%d networks: %v", len(used), used)
	}
	six := pools[len(pools)-1]
	if !netip.MustParsePrefix("fd00::/8").Contains(six.Base.Addr()) || six.Base.Bits() != 48 || six.Size != 64 || six.Base != six.Base.Masked() {
		t.Errorf("IPv6 pool %v, want a /48 of fd00::/8 in /64s", six)
	}
	if again := defaultPools([]byte("0123456789abcdef0123456789abcdef")); again[len(again)-1] != six {
		t.Errorf("the same machine has %v and %v", six, again)
	}
	if other := defaultPools([]byte("1123456789abcdef0123456789abcdef")); other[len(other)-1] == six {
		t.Errorf("another machine has %v, too", six)
	}
	if _, err := Choose(defaultPools(nil), nil, Request{IPv6: true}); err == nil {
		t.Error("an IPv6 pool without a machine ID")
	}
}

func TestParseRequest(t *testing.T) {
	for s, want := range map[string]Request{
		"auto": {}, "auto/24": {Bits: 24}, "auto6": {IPv6: true}, "auto6/64": {IPv6: true, Bits: 64}, "auto/30": {Bits: 30},
	} {
		if got, err := ParseRequest(s); err != nil || got != want || got.String() != s {
			t.Errorf("%s: got %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "Auto", "auto/", "auto/0", "auto/31", "auto/-1", "auto6/127", "auto/24/1", "10.1.0.0/24", "auto/x"} {
		var bad *ipamstore.ConfigError
		if got, err := ParseRequest(s); !errors.As(err, &bad) || bad.Key != "subnet" || bad.Value != s {
			t.Errorf("%q: got %v, %v, want a ConfigError", s, got, err)
		}
	}
	var bad *ipamstore.ConfigError
	if _, err := Choose(poolsOf(t, "10.8.0.0/22:24"), nil, Request{Bits: 16}); !errors.As(err, &bad) || !strings.Contains(bad.Msg, "10.8.0.0/22") {
		t.Errorf("larger than every pool: %v", err)
	}
}

func TestLoadPools(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pools.json")
	load := func(text string) ([]Pool, error) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return LoadPools(path)
	}
	same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	got, err := LoadPools(path + ".missing")
	if diff := cmp.Diff(DefaultPools(), got, same); err != nil || diff != "" {
		t.Errorf("missing: %v (-want +got):\n%s", err, diff)
	}
	got, err = load(`[{"base":"10.200.0.0/16","size":24},{"Base":"fd00:5::/48","SIZE":64}]`)
	if diff := cmp.Diff(poolsOf(t, "10.200.0.0/16:24 fd00:5::/48:64"), got, same); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err = load(`[{"base":"fd00:5::/48","size":64}]`); err != nil || len(got) != 8 || got[1].Base != netip.MustParsePrefix("172.17.0.0/16") {
		t.Errorf("IPv6 alone: %v, %v, want Docker's IPv4 pools with it", got, err)
	}
	for text, want := range map[string]string{
		`{"base":"10.0.0.0/8"}`:               `addressPools "{\"base\"`,
		`[`:                                   "addressPools",
		``:                                    "addressPools",
		`["10.0.0.0/8"]`:                      `addressPools[0] "\"10.0.0.0/8\""`,
		`[{"size":24}]`:                       `addressPools[0].base "missing"`,
		`[{"base":"10.0.0.0/8"}]`:             `addressPools[0].size "missing"`,
		`[{"base":"10.0.0.0/8","size":"24"}]`: `addressPools[0].size "24"`,
		`[{"base":"10.0.0.0/8","size":7}]`:    `addressPools[0].size "7"`,
		`[{"base":"10.0.0.0/8","size":31}]`:   `addressPools[0].size "31"`,
		`[{"base":"10.0.0.0","size":24}]`:     `addressPools[0].base "10.0.0.0"`,
		`[{"base":"10.0.0.1/8","size":24}]`:   `addressPools[0].base "10.0.0.1/8"`,
		`[{"base":"::ffff:10.0.0.0/104","size":108}]`: `addressPools[0].base`,
	} {
		var bad *ipamstore.ConfigError
		if _, err := load(text); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want %s and the file", text, err, want)
		}
	}
	if _, err := LoadPools(filepath.Dir(path)); !errors.Is(err, ipamstore.ErrIO) {
		t.Errorf("a directory: %v, want ErrIO", err)
	}
}

// TestChooseAgainstModel compares with a search through every subnet.
func TestChooseAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	model := func(pools []Pool, used []netip.Prefix, want Request) netip.Prefix {
		slices.SortFunc(pools, func(a, b Pool) int { return a.Base.Addr().Compare(b.Base.Addr()) })
		for _, p := range pools {
			size := p.Size
			if want.Bits != 0 {
				size = want.Bits
			}
			if size < p.Base.Bits() {
				continue
			}
			for a := p.Base.Addr(); p.Base.Contains(a); a = ipmath.Last(netip.PrefixFrom(a, size)).Next() {
				s := netip.PrefixFrom(a, size)
				if !slices.ContainsFunc(used, s.Overlaps) {
					return s
				}
			}
		}
		return netip.Prefix{}
	}
	somewhere := func(least, most int) netip.Prefix { // in 10.8.0.0/22
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 8, byte(rnd.IntN(4)), byte(rnd.IntN(256))}), least+rnd.IntN(most-least+1)).Masked()
	}
	for range 20000 {
		var pools []Pool
		for range 1 + rnd.IntN(3) {
			base := somewhere(22, 26)
			pools = append(pools, Pool{base, base.Bits() + rnd.IntN(4)})
		}
		var used []netip.Prefix
		for range rnd.IntN(12) {
			used = append(used, somewhere(22, 32))
		}
		want := Request{Bits: []int{0, 0, 24, 26, 28}[rnd.IntN(5)]}
		got, err := Choose(pools, used, want)
		if expect := model(slices.Clone(pools), used, want); got != expect {
			t.Fatalf("pools %v, in use %v, want %s: got %v, %v, the model has %v", pools, used, want, got, err, expect)
		}
	}
}

package overlay

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/tunnel"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

func prefixes(ss ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range ss {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func TestPlan(t *testing.T) {
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	nodes := []Node{
		{Address: a, Blocks: prefixes("10.5.0.0/24", "fd05::/64")},
		{Address: b, Blocks: prefixes("10.5.1.0/24", "fd05:0:0:1::/64")},
		{Address: c, Blocks: prefixes("10.5.2.0/24")},
	}
	n := Network{Name: "vx0", Alias: "libnet:net1/", VNI: 7, Port: 4789, MTU: 1450}
	macB, macC := MAC(7, b), MAC(7, c)
	want := tunnel.Tunnel{
		Name: "vx0", Alias: "libnet:net1/", VNI: 7, Port: 4789, MTU: 1450, Local: a, MAC: MAC(7, a),
		IPv6: host.IPv6On, Addrs: prefixes("10.5.0.0/32", "fd05::/128"),
		Routes: []tunnel.Route{
			{Dst: netip.MustParsePrefix("10.5.1.0/24"), Via: netip.MustParseAddr("10.5.1.0")},
			{Dst: netip.MustParsePrefix("fd05:0:0:1::/64"), Via: netip.MustParseAddr("fd05:0:0:1::")},
			{Dst: netip.MustParsePrefix("10.5.2.0/24"), Via: netip.MustParseAddr("10.5.2.0")},
		},
		Neighbours: []tunnel.Neighbour{
			{Addr: netip.MustParseAddr("10.5.1.0"), MAC: macB}, {Addr: netip.MustParseAddr("fd05:0:0:1::"), MAC: macB},
			{Addr: netip.MustParseAddr("10.5.2.0"), MAC: macC},
		},
		FDB: []tunnel.FDBEntry{{MAC: macB, Remote: b}, {MAC: macC, Remote: c}},
	}
	if diff := cmp.Diff(want, Plan(n, nodes, a), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := Plan(n, nodes, c); len(got.Routes) != 2 || got.IPv6 != host.IPv6Off {
		t.Errorf("a host without IPv6 has routes %v, IPv6 mode %d", got.Routes, got.IPv6)
	}
}

// Two hosts, and two networks of one host, have MACs of their own; each is
// locally administered and of one station.
func TestMAC(t *testing.T) {
	seen := map[tunnel.MAC]bool{}
	host := netip.MustParseAddr("192.0.2.0")
	for range 2000 {
		for _, vni := range []int{1, 4096, 70000} {
			m := MAC(vni, host)
			if m[0]&3 != 2 {
				t.Fatalf("%s is not locally administered and unicast", m)
			}
			if seen[m] {
				t.Fatalf("%s is there twice", m)
			}
			seen[m] = true
		}
		host = host.Next()
	}
}

func TestVNI(t *testing.T) {
	// The first is documented: changing the derivation would part networks
	// whose hosts are not updated at once.
	if got := VNI("net1"); got != 13207627 {
		t.Errorf("VNI of net1 is %d", got)
	}
	for _, name := range []string{"", "a", "b", "production", "x.y-z_1"} {
		if v := VNI(name); v < MinVNI || v > MaxVNI {
			t.Errorf("VNI of %q is %d", name, v)
		}
	}
}

func TestBlock(t *testing.T) {
	for _, tt := range []struct {
		subnet string
		bits   int
		i      int
		want   string // empty: none
	}{
		{"10.5.0.0/16", 24, 0, "10.5.0.0/24"},
		{"10.5.0.0/16", 24, 255, "10.5.255.0/24"},
		{"10.5.0.0/16", 24, 256, ""},
		{"10.5.0.0/16", 26, 5, "10.5.1.64/26"},
		{"10.5.0.0/24", 24, 0, "10.5.0.0/24"},
		{"10.5.0.0/24", 24, 1, ""},
		{"10.5.0.0/25", 24, 0, ""},
		{"10.0.0.0/8", 24, 65535, "10.255.255.0/24"},
		{"fd05::/48", 64, 1, "fd05:0:0:1::/64"},
		{"fd05::/48", 64, 65536, ""},
		{"10.5.0.0/16", 33, 1, ""},
		{"fd00::/8", 80, 3, "fd00:0:0:0:3::/80"},
	} {
		got, ok := Block(netip.MustParsePrefix(tt.subnet), tt.bits, tt.i)
		if ok != (tt.want != "") || ok && got != netip.MustParsePrefix(tt.want) {
			t.Errorf("block %d of /%d of %s: got %s, %t, want %q", tt.i, tt.bits, tt.subnet, got, ok, tt.want)
		}
	}
}

// An encrypted network has a peer for each other host, with all its blocks, and routes by the
// device alone for the families that this host speaks.
func TestPlanSecure(t *testing.T) {
	t.Parallel()
	key := func(b byte) (k wireguard.Key) { k[0] = b; return k }
	nodes := []Node{
		{Address: netip.MustParseAddr("192.0.2.1"), Blocks: prefixes("10.5.0.0/24"), PublicKey: key(1)},
		{Address: netip.MustParseAddr("192.0.2.2"), Blocks: prefixes("10.5.1.0/24", "fd05:0:0:1::/64"), PublicKey: key(2)},
		{Address: netip.MustParseAddr("192.0.2.3"), Blocks: prefixes("10.5.2.0/24"), PublicKey: key(3)},
	}
	nets := prefixes("10.5.0.0/16", "fd05::/48")
	got := Plan(Network{Name: "wg-x", Alias: "a", Port: 61500, MTU: 1440, Instead: []string{"vx-x"}, Nets: nets}, nodes, nodes[0].Address)
	want := tunnel.Tunnel{
		Name: "wg-x", Alias: "a", Port: 61500, MTU: 1440, IPv6: host.IPv6Off, Addrs: prefixes("10.5.0.0/32"), Instead: []string{"vx-x"},
		Routes: []tunnel.Route{{Dst: nodes[1].Blocks[0]}, {Dst: nodes[2].Blocks[0]}},
		Secure: &tunnel.Secure{PublicKey: key(1), Nets: nets, Peers: []wireguard.Peer{
			{PublicKey: key(2), Endpoint: netip.MustParseAddrPort("192.0.2.2:61500"), Allowed: nodes[1].Blocks},
			{PublicKey: key(3), Endpoint: netip.MustParseAddrPort("192.0.2.3:61500"), Allowed: nodes[2].Blocks},
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v %+v\nwant %+v %+v", got, got.Secure, want, want.Secure)
	}
}

func TestSecurePort(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for i := range 10_000 {
		p := SecurePort(fmt.Sprint("net", i))
		if p < 61440 || p > 65535 {
			t.Fatalf("port %d", p)
		}
		seen[p] = true
	}
	if len(seen) < 3000 {
		t.Errorf("%d ports of 10000 names", len(seen))
	}
}

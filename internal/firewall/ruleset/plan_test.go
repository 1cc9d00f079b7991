package ruleset

import (
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall"
)

func TestPlan(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 5}
	tests := []struct {
		name string
		n    firewall.Network
		e    firewall.Endpoint
		want []string
	}{
		{name: "nothing asked for", n: firewall.Network{Name: "a", Bridge: "br0"}, e: firewall.Endpoint{Owner: "o", Addrs: addrs("10.0.0.2")}},
		{name: "zero values"},
		{name: "masquerade both families once each",
			e: firewall.Endpoint{Owner: "o", Bridge: "br0", Addrs: addrs("10.0.0.2", "fd00::2", "::ffff:10.0.0.2", "fd00::2%eth0"), Masquerade: both},
			want: []string{
				"inet libnet home4 { 10.0.0.2 . br0 }", "inet libnet masquerade4 { 10.0.0.2 . br0 }",
				"inet libnet home6 { fd00::2 . br0 }", "inet libnet masquerade6 { fd00::2 . br0 }",
				"inet libnet owners { d228:cb69:651a:8caf:7891:2b70:4e4a:7d16 }",
			}},
		{name: "mac", e: firewall.Endpoint{Owner: "o", Port: "veth0", MAC: mac},
			want: []string{"bridge libnet guarded { veth0 }", "bridge libnet macs { veth0 . 02:00:00:00:00:05 }"}},
		{name: "internal", n: firewall.Network{Name: "a", Bridge: "fifteen-bytes-x", Internal: true},
			want: []string{"inet libnet inside { fifteen-bytes-x . fifteen-bytes-x }", "inet libnet internal { fifteen-bytes-x }", "inet libnet strict { ipv4 }", "inet libnet strict { ipv6 }"}},
		{name: "tunnel", n: firewall.Network{Name: "a", Bridge: "br0", Tunnel: "vx0", VTEPs: []net.HardwareAddr{mac}, NoICC: true, NoHost: true, Underlay: firewall.Underlay{VNI: 0x010203, Port: 4789, Hosts: addrs("192.0.2.2", "2001:db8::2")}},
			e: firewall.Endpoint{Owner: "o", Bridge: "br0", Tunnel: "vx0", Addrs: addrs("10.0.0.2"), Masquerade: both},
			want: []string{
				"inet libnet inside { br0 . br0 }", "inet libnet noicc { br0 . br0 }", "inet libnet nohost { br0 }",
				"inet libnet inside { br0 . vx0 }", "inet libnet inside { vx0 . br0 }",
				"inet libnet noicc { br0 . vx0 }", "inet libnet noicc { vx0 . br0 }", "inet libnet nohost { vx0 }",
				"inet libnet vteps { vx0 . 02:00:00:00:00:05 }", "inet libnet tunnels { vx0 }",
				"inet libnet hosts4 { 192.0.2.2 . 4789 . 1.2.3.0 }", "inet libnet hosts6 { 2001:db8::2 . 4789 . 1.2.3.0 }", "inet libnet underlay { 4789 . 1.2.3.0 }",
				"inet libnet strict { ipv4 }", "inet libnet strict { ipv6 }",
				"inet libnet home4 { 10.0.0.2 . br0 }", "inet libnet home4 { 10.0.0.2 . vx0 }", "inet libnet masquerade4 { 10.0.0.2 . br0 }",
				"inet libnet owners { d228:cb69:651a:8caf:7891:2b70:4e4a:7d16 }",
			}},
		{name: "no icc", n: firewall.Network{Name: "a", Bridge: "br0", NoICC: true},
			want: []string{"inet libnet inside { br0 . br0 }", "inet libnet noicc { br0 . br0 }", "inet libnet strict { ipv4 }", "inet libnet strict { ipv6 }"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Plan(tt.n, tt.e)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range p.Elems {
				got = append(got, e.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	tests := []struct {
		name string
		n    firewall.Network
		e    firewall.Endpoint
	}{
		{"no owner", firewall.Network{}, firewall.Endpoint{Bridge: "br0", Masquerade: both}},
		{"owner with a quote", firewall.Network{}, firewall.Endpoint{Owner: `a"b`, Bridge: "br0", Masquerade: both}},
		{"no bridge", firewall.Network{}, firewall.Endpoint{Owner: "o", Masquerade: both}},
		{"long bridge", firewall.Network{}, firewall.Endpoint{Owner: "o", Bridge: "sixteen-bytes-xy", Masquerade: both}},
		{"zero address", firewall.Network{}, firewall.Endpoint{Owner: "o", Bridge: "br0", Addrs: []netip.Addr{{}}, Masquerade: both}},
		{"no port", firewall.Network{}, firewall.Endpoint{Owner: "o", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}},
		{"infiniband mac", firewall.Network{}, firewall.Endpoint{Owner: "o", Port: "p", MAC: make(net.HardwareAddr, 20)}},
		{"empty mac", firewall.Network{}, firewall.Endpoint{Owner: "o", Port: "p", MAC: net.HardwareAddr{}}},
		{"network without name", firewall.Network{Bridge: "br0", Internal: true}, firewall.Endpoint{}},
		{"network without bridge", firewall.Network{Name: "a", NoICC: true}, firewall.Endpoint{}},
		{"bridge with a slash", firewall.Network{Name: "a", Bridge: "../x", NoICC: true}, firewall.Endpoint{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Plan(tt.n, tt.e); !errors.Is(err, firewall.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
}

// The kernel compares these keys with the packet, byte for byte.
func TestKeyBytes(t *testing.T) {
	p, err := Plan(
		firewall.Network{Name: "a", Bridge: "br0", Internal: true},
		firewall.Endpoint{Owner: "o", Bridge: "br0", Port: "p1", Addrs: addrs("10.1.2.3", "fd00::2"), Masquerade: both,
			MAC: net.HardwareAddr{2, 4, 6, 8, 10, 12}})
	if err != nil {
		t.Fatal(err)
	}
	br0 := "62723000000000000000000000000000"
	p1 := "70310000000000000000000000000000"
	v6 := "fd000000000000000000000000000002"
	want := []string{br0 + br0, br0, "02", "0a", "0a010203" + br0, "0a010203" + br0, v6 + br0, v6 + br0, "d228cb69651a8caf78912b704e4a7d16", p1, p1 + "020406080a0c0000"}
	var got []string
	for _, e := range p.Elems {
		got = append(got, hex.EncodeToString(e.Key))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

package firewall_test

import (
	"net/netip"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// The one test of whether two publish the same port, from both sides.
func TestMeets(t *testing.T) {
	for name, tt := range map[string]struct {
		a, b firewall.PortMap
		want string // of the common part by the first family that has one; "": none
	}{
		"the same":                  {tcp(80, 8), tcp(80, 9), "tcp 0.0.0.0:80"},
		"another port":              {tcp(80, 8), tcp(81, 8), ""},
		"another protocol":          {tcp(80, 8), firewall.PortMap{Protocol: firewall.UDP, HostPort: 80, ContainerPort: 8}, ""},
		"a range":                   {firewall.PortMap{Protocol: firewall.TCP, HostPort: 80, HostPortEnd: 90}, firewall.PortMap{Protocol: firewall.TCP, HostPort: 85, HostPortEnd: 95}, "tcp 0.0.0.0:85-90"},
		"ranges that only touch":    {firewall.PortMap{Protocol: firewall.TCP, HostPort: 80, HostPortEnd: 84}, firewall.PortMap{Protocol: firewall.TCP, HostPort: 85, HostPortEnd: 95}, ""},
		"one address and any":       {at("192.0.2.1", tcp(80, 8)), tcp(80, 8), "tcp 192.0.2.1:80"},
		"one address and 0.0.0.0":   {at("192.0.2.1", tcp(80, 8)), at("0.0.0.0", tcp(80, 8)), "tcp 192.0.2.1:80"},
		"two addresses":             {at("192.0.2.1", tcp(80, 8)), at("192.0.2.2", tcp(80, 8)), ""},
		"an IPv4-mapped address":    {at("::ffff:192.0.2.1", tcp(80, 8)), at("192.0.2.1", tcp(80, 8)), "tcp 192.0.2.1:80"},
		"any of IPv4, any of IPv6":  {at("0.0.0.0", tcp(80, 8)), at("::", tcp(80, 8)), ""},
		"any of both, any of IPv6":  {tcp(80, 8), at("::", tcp(80, 8)), "tcp [::]:80"},
		"an address of IPv6":        {at("2001:db8::1", tcp(80, 8)), tcp(80, 8), "tcp [2001:db8::1]:80"},
		"an address and any IPv6":   {at("192.0.2.1", tcp(80, 8)), at("::", tcp(80, 8)), ""},
		"the highest port":          {firewall.PortMap{Protocol: firewall.TCP, HostPort: 65000, HostPortEnd: 65535}, tcp(65535, 8), "tcp 0.0.0.0:65535"},
		"the last address of IPv4":  {at("255.255.255.255", tcp(80, 8)), tcp(80, 8), "tcp 255.255.255.255:80"},
		"another end than the port": {firewall.PortMap{Protocol: firewall.TCP, HostPort: 80, HostPortEnd: 80}, tcp(80, 8), "tcp 0.0.0.0:80"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.a.Meets(tt.b); got != (tt.want != "") || tt.b.Meets(tt.a) != got {
				t.Errorf("%v meets %v: %v, the other way %v", tt.a, tt.b, got, tt.b.Meets(tt.a))
			}
			part := ""
			for _, a := range tt.a.Spans() {
				for _, b := range tt.b.Spans() {
					if p, ok := a.Common(b); ok && part == "" {
						part = p.String()
					}
				}
			}
			if part != tt.want {
				t.Errorf("the common part is %q, want %q", part, tt.want)
			}
		})
	}
}

// An index finds all that a look at each would find, also wide ones that begin far before.
func TestPortIndex(t *testing.T) {
	var all []firewall.PortSpan
	for lo := uint16(1); lo < 2000; lo += 7 {
		width := lo % 90
		ip := netip.AddrFrom4([4]byte{192, 0, 2, byte(lo % 3)})
		all = append(all, firewall.PortSpan{firewall.TCP, ip, ip, lo, lo + width})
	}
	x := firewall.IndexPorts(all, func(s firewall.PortSpan) firewall.PortSpan { return s })
	any4 := tcp(1, 1).Spans()[0]
	for lo := uint16(1); lo < 2100; lo++ {
		asked := firewall.PortSpan{firewall.TCP, any4.First, any4.Last, lo, lo + lo%5}
		want, got := map[firewall.PortSpan]bool{}, map[firewall.PortSpan]bool{}
		for _, s := range all {
			if _, ok := s.Common(asked); ok {
				want[s] = true
			}
		}
		x.Meeting(asked, func(s, _ firewall.PortSpan) { got[s] = true })
		if len(got) != len(want) {
			t.Fatalf("%v meets %d, want %d", asked, len(got), len(want))
		}
	}
}

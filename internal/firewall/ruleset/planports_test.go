package ruleset

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall"
)

func TestPlanPorts(t *testing.T) {
	v4 := addrs("10.0.0.2")
	tests := []struct {
		name      string
		n         firewall.Network
		noHairpin bool
		addrs     []netip.Addr
		ports     []firewall.PortMap
		want      []string
	}{
		{name: "any address, both families", addrs: addrs("10.0.0.2", "fd00::2", "10.0.0.9"), ports: []firewall.PortMap{tcp(8080, 80)},
			want: []string{"anyport4 { tcp . 8080 : 10.0.0.2 . 80 }", "anyport6 { tcp . 8080 : fd00::2 . 80 }"}},
		{name: "unspecified is any of its family", addrs: addrs("10.0.0.2", "fd00::2"), ports: []firewall.PortMap{at("0.0.0.0", tcp(1, 2)), at("::", tcp(3, 4))},
			want: []string{"anyport4 { tcp . 1 : 10.0.0.2 . 2 }", "anyport6 { tcp . 3 : fd00::2 . 4 }"}},
		{name: "one address", addrs: v4, ports: []firewall.PortMap{at("127.0.0.1", tcp(53, 53)), at("::1", tcp(53, 53))},
			want: []string{"port4 { 127.0.0.1 . tcp . 53 : 10.0.0.2 . 53 }"}},
		{name: "a range that keeps its numbers", addrs: v4, ports: []firewall.PortMap{upTo(20000, tcp(10000, 10000))},
			want: []string{"span4 { 0.0.0.0-255.255.255.255 . 0.0.0.0-255.255.255.255 . tcp . 10000-20000 : 10.0.0.2 }"}},
		{name: "a range that does not", addrs: v4, ports: []firewall.PortMap{upTo(11, tcp(10, 20))},
			want: []string{"anyport4 { tcp . 10 : 10.0.0.2 . 20 }", "anyport4 { tcp . 11 : 10.0.0.2 . 21 }"}},
		{name: "some clients", addrs: v4, ports: []firewall.PortMap{from(tcp(443, 443), "10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", "fd00::/8", "192.0.2.1/32")},
			want: []string{"from4 { 10.0.0.0-10.255.255.255 . 0.0.0.0-255.255.255.255 . tcp . 443 : 10.0.0.2 . 443 }",
				"from4 { 192.0.2.1 . 0.0.0.0-255.255.255.255 . tcp . 443 : 10.0.0.2 . 443 }"}},
		{name: "some clients of a range at an address", addrs: v4, ports: []firewall.PortMap{from(at("192.0.2.9", upTo(9, tcp(5, 5))), "10.0.0.0/8")},
			want: []string{"span4 { 10.0.0.0-10.255.255.255 . 192.0.2.9 . tcp . 5-9 : 10.0.0.2 }"}},
		{name: "no clients", addrs: v4, ports: []firewall.PortMap{{Protocol: firewall.TCP, HostPort: 1, ContainerPort: 1, Sources: []netip.Prefix{}}}},
		{name: "routed", n: firewall.Network{IPv4: firewall.Routed}, addrs: v4, ports: []firewall.PortMap{tcp(8080, 80), tcp(8081, 80), upTo(9, tcp(5, 50))},
			want: []string{"openspan4 { 0.0.0.0-255.255.255.255 . 10.0.0.2 . tcp . 50-54 }", "open4 { 10.0.0.2 . tcp . 80 }"}},
		{name: "not by localhost", noHairpin: true, addrs: v4, ports: []firewall.PortMap{tcp(8080, 80)},
			want: []string{"from4 { 0.0.0.0-255.255.255.255 . 0.0.0.0-126.255.255.255 . tcp . 8080 : 10.0.0.2 . 80 }",
				"from4 { 0.0.0.0-255.255.255.255 . 128.0.0.0-255.255.255.255 . tcp . 8080 : 10.0.0.2 . 80 }"}},
		{name: "routed, some clients", n: firewall.Network{IPv4: firewall.Routed}, addrs: v4, ports: []firewall.PortMap{from(tcp(8080, 80), "10.0.0.0/8")},
			want: []string{"openspan4 { 10.0.0.0-10.255.255.255 . 10.0.0.2 . tcp . 80 }"}},
		{name: "trusted interfaces", n: firewall.Network{IPv4: firewall.Published, Trusted: []string{"eth0"}}, addrs: v4, ports: []firewall.PortMap{tcp(8080, 80)},
			want: []string{"open4 { 10.0.0.2 . tcp . 80 }", "anyport4 { tcp . 8080 : 10.0.0.2 . 80 }"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := firewall.Endpoint{Owner: "o", Bridge: "br0", Addrs: tt.addrs, Ports: tt.ports, Hairpin: !tt.noHairpin}
			p, err := PlanPorts(tt.n, e)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range p.Elems {
				if strings.HasPrefix(e.Set.Name, "hairpin") {
					continue
				}
				got = append(got, strings.TrimPrefix(e.String(), "inet libnet "))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanRefusesPorts(t *testing.T) {
	for _, ports := range [][]firewall.PortMap{
		{{Protocol: 1, HostPort: 1, ContainerPort: 1}},
		{tcp(0, 80)}, {tcp(80, 0)}, {upTo(7, tcp(8, 8))}, {upTo(20, tcp(10, 65530))},
		{tcp(80, 80), tcp(80, 81)}, {tcp(80, 80), at("0.0.0.0", tcp(80, 81))}, {upTo(90, tcp(80, 80)), upTo(95, tcp(90, 1))},
	} {
		e := firewall.Endpoint{Owner: "o", Bridge: "br0", Addrs: addrs("10.0.0.2"), Ports: ports}
		if _, err := Plan(firewall.Network{}, e); !errors.Is(err, firewall.ErrInvalid) {
			t.Errorf("%v: got %v, want ErrInvalid", ports, err)
		}
	}
}

package iptables

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Apply and Remove of one endpoint with ports, of both families, where others
// have rules.
func BenchmarkApplyRemove(b *testing.B) {
	for _, others := range []int{0, 100, 1000} {
		for _, ports := range []int{1, 100} {
			b.Run(fmt.Sprintf("others=%d/ports=%d", others, ports), func(b *testing.B) {
				f := isolate(b)
				fill(b, others)
				n := firewall.Network{Name: "net", Bridge: "br0", IPv4: firewall.Published, IPv6: firewall.Published}
				e := firewall.Endpoint{Owner: "net/a/eth0", Bridge: "br0", Addrs: addrs("10.0.0.2", "fd00::2"), Hairpin: true,
					Masquerade: firewall.Families{IPv4: true, IPv6: true}}
				for i := range ports {
					e.Ports = append(e.Ports, port(firewall.TCP, "", uint16(30000+2*i)))
				}
				for b.Loop() {
					if _, err := f.Apply(b.Context(), n, e); err != nil {
						b.Fatal(err)
					}
					if err := f.Remove(b.Context(), e); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// fill applies the rules of others at once.
func fill(b *testing.B, others int) {
	b.Helper()
	for _, f := range bothFamilies() {
		snap, err := save(b.Context(), f)
		if err != nil {
			b.Fatal(err)
		}
		var all []rule
		for i := range others {
			addr := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
			if f == ipv6 {
				addr = netip.MustParseAddr(strings.ReplaceAll("fd01::"+addr.String(), ".", ":"))
			}
			all = append(all, endpointRules(f, firewall.Network{}, firewall.Endpoint{Owner: fmt.Sprint(i), Bridge: "br0", Hairpin: true, Addrs: []netip.Addr{addr},
				Masquerade: firewall.Families{IPv4: true, IPv6: true}, Ports: []firewall.PortMap{port(firewall.TCP, "", uint16(1000+i))}})...)
		}
		if err := restore(b.Context(), f, replace(snap, nil, all)); others > 0 && err != nil {
			b.Fatal(err)
		}
	}
}

package firewall_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall"
)

func except(m firewall.PortMap, hosts ...string) firewall.PortMap {
	m.Except = addrs(hosts...)
	return m
}

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		name           string
		ports, standby []firewall.PortMap
		want           []firewall.PortMap
	}{
		{name: "nothing twice", ports: []firewall.PortMap{tcp(2, 2), tcp(1, 1)}, want: []firewall.PortMap{tcp(2, 2), tcp(1, 1)}},
		{name: "the same line twice", ports: []firewall.PortMap{tcp(80, 8), tcp(80, 8)}, want: []firewall.PortMap{tcp(80, 8)}},
		{name: "any, and any of the family", ports: []firewall.PortMap{tcp(80, 8), at("0.0.0.0", tcp(80, 8)), at("::", tcp(80, 9))}, want: []firewall.PortMap{tcp(80, 8)}},
		{name: "any, and an address that means the same", ports: []firewall.PortMap{at("127.0.0.1", tcp(80, 8)), tcp(80, 8)}, want: []firewall.PortMap{tcp(80, 8)}},
		{name: "an address before any", ports: []firewall.PortMap{tcp(80, 8), at("127.0.0.1", tcp(80, 9))},
			want: []firewall.PortMap{at("127.0.0.1", tcp(80, 9)), except(tcp(80, 8), "127.0.0.1")}},
		{name: "a single port before a range", ports: []firewall.PortMap{tcp(85, 1), upTo(90, tcp(80, 180))},
			want: []firewall.PortMap{upTo(84, tcp(80, 180)), tcp(85, 1), upTo(90, tcp(86, 186))}},
		{name: "a range and a port of it that means the same", ports: []firewall.PortMap{tcp(85, 185), upTo(90, tcp(80, 180))}, want: []firewall.PortMap{upTo(90, tcp(80, 180))}},
		{name: "ranges that mean the same", ports: []firewall.PortMap{upTo(90, tcp(80, 180)), upTo(99, tcp(85, 185))}, want: []firewall.PortMap{upTo(99, tcp(80, 180))}},
		{name: "a range at an address before any", ports: []firewall.PortMap{upTo(90, tcp(80, 80)), at("192.0.2.1", upTo(99, tcp(89, 1)))},
			want: []firewall.PortMap{at("192.0.2.1", upTo(99, tcp(89, 1))), upTo(88, tcp(80, 80)), except(upTo(90, tcp(89, 89)), "192.0.2.1")}},
		{name: "clients together", ports: []firewall.PortMap{from(tcp(80, 8), "10.0.0.0/8"), from(tcp(80, 8), "192.0.2.0/24")}, want: []firewall.PortMap{from(tcp(80, 8), "10.0.0.0/8", "192.0.2.0/24")}},
		{name: "some clients and all", ports: []firewall.PortMap{from(tcp(80, 8), "10.0.0.0/8"), tcp(80, 8)}, want: []firewall.PortMap{tcp(80, 8)}},
		{name: "an address for some clients, any for all", ports: []firewall.PortMap{from(at("192.0.2.1", tcp(80, 8)), "10.0.0.0/8"), tcp(80, 8)},
			want: []firewall.PortMap{from(at("192.0.2.1", tcp(80, 8)), "10.0.0.0/8"), except(tcp(80, 8), "192.0.2.1")}},
		{name: "other protocols", ports: []firewall.PortMap{tcp(80, 8), {Protocol: firewall.UDP, HostPort: 80, ContainerPort: 9}}, want: []firewall.PortMap{tcp(80, 8), {Protocol: firewall.UDP, HostPort: 80, ContainerPort: 9}}},
		{name: "standby", ports: []firewall.PortMap{tcp(80, 8), tcp(81, 8)}, standby: []firewall.PortMap{tcp(80, 80)}, want: []firewall.PortMap{tcp(81, 8)}},
		{name: "standby of all", ports: []firewall.PortMap{tcp(80, 8)}, standby: []firewall.PortMap{at("0.0.0.0", tcp(80, 80))}},
		{name: "standby of the other family", ports: []firewall.PortMap{tcp(80, 8)}, standby: []firewall.PortMap{at("::", tcp(80, 80))}, want: []firewall.PortMap{tcp(80, 8)}},
		{name: "standby at an address", ports: []firewall.PortMap{tcp(80, 8)}, standby: []firewall.PortMap{at("127.0.0.1", tcp(80, 80))}, want: []firewall.PortMap{except(tcp(80, 8), "127.0.0.1")}},
		{name: "standby of any for an address", ports: []firewall.PortMap{at("127.0.0.1", tcp(80, 8))}, standby: []firewall.PortMap{at("0.0.0.0", upTo(90, tcp(70, 1)))}},
		{name: "standby within a range", ports: []firewall.PortMap{upTo(90, tcp(80, 180))}, standby: []firewall.PortMap{tcp(85, 1), tcp(84, 1)}, want: []firewall.PortMap{upTo(83, tcp(80, 180)), upTo(90, tcp(86, 186))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := firewall.Resolve(tt.ports, tt.standby, true)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, compareAddrs); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	for _, ports := range [][]firewall.PortMap{
		{tcp(1, 1), tcp(80, 8), tcp(80, 9)},
		{tcp(1, 1), tcp(80, 8), at("0.0.0.0", tcp(80, 9))},
		{tcp(1, 1), upTo(90, tcp(80, 8)), upTo(99, tcp(90, 8))},
		{tcp(1, 1), at("192.0.2.1", tcp(80, 8)), at("192.0.2.1", tcp(80, 9))},
	} {
		_, err := firewall.Resolve(ports, nil, true)
		var overlap *firewall.OverlapError
		if !errors.As(err, &overlap) || overlap.First != 1 || overlap.Second != 2 {
			t.Errorf("%v: got %v, want an overlap of 1 and 2", ports, err)
		}
	}
}

// Where a port leads is what the rule of Resolve says, for whatever mappings.
func TestResolveAgainstRule(t *testing.T) {
	hosts := []string{"", "0.0.0.0", "127.0.0.1", "192.0.2.1"}
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var ports []firewall.PortMap
		for range 1 + r.IntN(4) {
			lo := uint16(1 + r.IntN(5))
			m := tcp(lo, lo+uint16(r.IntN(2)))
			if r.IntN(2) == 0 {
				m = upTo(lo+uint16(r.IntN(4)), m)
			}
			if h := hosts[r.IntN(len(hosts))]; h != "" {
				m = at(h, m)
			}
			ports = append(ports, m)
		}
		got, err := firewall.Resolve(ports, nil, true)
		want, clash := leads(ports)
		if clash != (err != nil) {
			t.Fatalf("%v: got %v, want an error: %v", ports, err, clash)
		}
		if err != nil {
			continue
		}
		have, _ := leads(got)
		if diff := cmp.Diff(want, have); diff != "" {
			t.Fatalf("%v became %v: %s", ports, got, diff)
		}
	}
}

// leads says where each port leads by a naive look at all mappings.
func leads(ports []firewall.PortMap) (to map[string]uint16, clash bool) {
	to = map[string]uint16{}
	for _, host := range addrs("127.0.0.1", "192.0.2.1", "192.0.2.77") {
		for p := uint16(1); p < 12; p++ {
			best, rank, twice := uint16(0), 0, false
			for _, m := range ports {
				any := !m.HostIP.IsValid() || m.HostIP.IsUnspecified()
				if p < m.HostPort || p > m.Last() || !any && m.HostIP != host || slices.Contains(m.Except, host) {
					continue
				}
				r, target := 1, m.ContainerPort+p-m.HostPort
				if !any {
					r += 2
				}
				if m.Last() == m.HostPort {
					r++
				}
				switch {
				case r > rank:
					best, rank, twice = target, r, false
				case r == rank:
					twice = twice || best != target
				}
			}
			clash = clash || twice
			if rank > 0 {
				to[fmt.Sprint(netip.AddrPortFrom(host, p))] = best
			}
		}
	}
	return to, clash
}

package enforce

import (
	"net/netip"

	"github.com/libnet-cni/libnet/internal/firewall/admit"
	"github.com/libnet-cni/libnet/internal/netpolicy"
)

// elemsOf are the elements of compiled rules.
func elemsOf(s *admit.Sets, r *netpolicy.Rules) (all []admit.Elem) {
	allowed := map[netpolicy.Class][]netpolicy.Pair{}
	for pair := range r.Allowed {
		allowed[pair.Target] = append(allowed[pair.Target], pair)
	}
	for side, isolated := range map[admit.Side]map[netip.Addr]netpolicy.Class{admit.In: r.In, admit.Out: r.Out} {
		for a, target := range isolated {
			all = append(all, s.Isolate(a, side)...)
			for _, pair := range allowed[target] {
				ports, peer := r.Allowed[pair], uint32(pair.Peer)
				if ports.All {
					all = append(all, s.All(a, side, peer))
				}
				for _, span := range ports.Spans {
					all = append(all, s.Ports(a, side, peer, span.Protocol, span.From, span.To))
				}
			}
		}
	}
	for a, peer := range r.Peers {
		all = append(all, s.Peer(a, uint32(peer)))
	}
	for _, b := range r.Ranges {
		all = append(all, s.Block(b.From, b.To, uint32(b.Class)))
	}
	return all
}

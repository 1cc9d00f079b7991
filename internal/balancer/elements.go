package balancer

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/service"
)

// entry is a port by which connections come to a service: of an address of its own, or of the
// host. of is the place of the service's port in Ports.
type entry struct {
	balance.Port
	of   int
	host bool
}

// entries are those of a service: each port of each of its addresses, and the published ones.
func (r record) entries() (all []entry) {
	for _, vip := range r.VIPs {
		for i, p := range r.Ports {
			all = append(all, entry{balance.Port{Addr: vip, Protocol: p.Protocol, Port: p.Port}, i, false})
		}
		for _, p := range r.Published {
			at := p.HostIP
			if !at.IsValid() {
				if at = netip.IPv6Unspecified(); vip.Is4() {
					at = netip.IPv4Unspecified()
				}
			}
			of := slices.IndexFunc(r.Ports, func(q service.Port) bool { return q.Protocol == p.Protocol && q.Port == p.To })
			if at.Is4() == vip.Is4() && of >= 0 {
				all = append(all, entry{balance.Port{Addr: at, Protocol: p.Protocol, Port: p.Port}, of, true})
			}
		}
	}
	return all
}

// elements are those of a service with these backends on this host. Without a MAC address there is no
// bridge, and no frame.
func (s *Services) elements(r record, backends []service.Backend, mac net.HardwareAddr) (all []balance.Elem) {
	everywhere := slices.Concat(backends, r.Others)
	slices.SortFunc(everywhere, func(a, b service.Backend) int { return strings.Compare(a.Key(), b.Key()) })
	for _, vip := range r.VIPs {
		all = append(all, s.kernel().Address(vip, r.Device)...)
	}
	for _, e := range r.entries() {
		all = append(all, s.marks(e)...)
		to := everywhere
		if e.host && r.External == service.ExternalLocal {
			to = backends
		}
		all = append(all, s.buckets(r, e.Port, r.Ports[e.of].Target, to)...)
		for _, b := range to {
			all = append(all, s.ledTo(e, b)...)
		}
	}
	for _, b := range r.Others {
		all = append(all, s.far(r, b)...)
	}
	for _, b := range backends {
		for _, e := range s.elementsOf(r, b, mac) {
			if mac != nil || e.Set.Data == nil {
				all = append(all, e)
			}
		}
	}
	return ruleset.Dedupe(all) // two ports may lead to one
}

// ledTo counts what comes to a backend by an entry.
func (s *Services) ledTo(e entry, b service.Backend) (all []balance.Elem) {
	for _, a := range b.Addresses {
		if a.Is4() == e.Addr.Is4() {
			all = append(all, s.kernel().Lead(e.Port, a))
		}
	}
	return all
}

// ledToAll are those of backends that a service may have had.
func (s *Services) ledToAll(r record, backends []service.Backend) (all []balance.Elem) {
	for _, e := range r.entries() {
		for _, b := range backends {
			all = append(all, s.ledTo(e, b)...)
		}
	}
	return all
}

// far has a container of another host answer by this one, where it leads connections to it from
// outside. If the service preserves the addresses of clients, those are only such of its own host.
func (s *Services) far(r record, b service.Backend) (all []balance.Elem) {
	if r.External == service.ExternalPreserve && len(r.Published) > 0 {
		for _, a := range b.Addresses {
			for _, host := range b.NodeAddresses {
				if a.Is4() == host.Is4() {
					all = append(all, s.kernel().Home(host, a))
				}
			}
		}
		return all
	}
	if r.External != service.ExternalNAT {
		return nil
	}
	for _, e := range r.entries() {
		for _, a := range b.Addresses {
			if e.host && a.Is4() == e.Addr.Is4() {
				all = append(all, s.kernel().Far(balance.Port{Addr: a, Protocol: e.Protocol, Port: r.Ports[e.of].Target}))
			}
		}
	}
	return all
}

// marks are the elements of a port beside its buckets.
func (s *Services) marks(e entry) []balance.Elem {
	all := []balance.Elem{s.kernel().Count(e.Port)}
	if e.host {
		all = append(all, s.kernel().Take(e.Port))
	}
	return all
}

// elementsOf are those of one backend beside its buckets.
func (s *Services) elementsOf(r record, b service.Backend, mac net.HardwareAddr) (all []balance.Elem) {
	for _, a := range b.Addresses {
		if !slices.ContainsFunc(r.VIPs, func(vip netip.Addr) bool { return vip.Is4() == a.Is4() }) {
			continue
		}
		all = append(all, s.kernel().Self(a))
		for _, p := range r.Ports {
			all = append(all, s.kernel().Bridged(balance.Port{Addr: a, Protocol: p.Protocol, Port: p.Target}, mac))
		}
	}
	return all
}

// buckets are those of one port.
func (s *Services) buckets(r record, at balance.Port, target uint16, backends []service.Backend) (all []balance.Elem) {
	var shares []service.Share
	var to []netip.AddrPort
	for _, b := range backends {
		i := slices.IndexFunc(b.Addresses, func(a netip.Addr) bool { return a.Is4() == at.Addr.Is4() })
		if w := r.Weight(b.ContainerID); i >= 0 && w > 0 {
			shares, to = append(shares, service.Share{Key: b.Key(), Weight: w}), append(to, netip.AddrPortFrom(b.Addresses[i], target))
		}
	}
	put := func(kind balance.Kind, slots []int) {
		for number, i := range slots {
			if i >= 0 {
				all = append(all, s.kernel().Bucket(kind, at, number, to[i]))
			}
		}
	}
	if r.Affinity == service.AffinityClient {
		clients := service.AssignClients(shares)
		put(balance.Sticky, clients[:])
		return all
	}
	slots := service.Assign(shares)
	put(balance.Spread, slots.First[:])
	put(balance.Rest, slots.Rest[:])
	return all
}

// keys are all elements that a service may have but those of its backends.
func (s *Services) keys(r record) (all []balance.Elem) {
	for _, vip := range r.VIPs {
		all = append(all, s.kernel().Address(vip, r.Device)...)
	}
	for _, e := range r.entries() {
		all = append(all, s.marks(e)...)
		add := func(kind balance.Kind, n int) {
			for i := range n {
				all = append(all, s.kernel().Bucket(kind, e.Port, i, netip.AddrPort{}))
			}
		}
		if r.Affinity == service.AffinityClient {
			add(balance.Sticky, service.ClientBuckets)
		} else {
			add(balance.Spread, service.Buckets)
			add(balance.Rest, service.Buckets)
		}
	}
	return all
}

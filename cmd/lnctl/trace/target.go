package trace

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/state"
)

// target are the attachments of the container that the packet is for; none: it is for no
// container, or for one of several.
func (p probe) target() []state.Endpoint {
	of := func(id string) []state.Endpoint {
		return slices.DeleteFunc(slices.Clone(p.records), func(r state.Endpoint) bool { return r.ContainerID != id || r.Netns == "" })
	}
	for _, r := range p.records {
		if slices.ContainsFunc(r.Addresses, func(a state.Address) bool { return a.Prefix.Addr() == p.dest.Addr() }) {
			return of(r.ContainerID)
		}
	}
	if r, _, is := p.published(); is {
		return of(r.ContainerID)
	}
	return nil
}

// published finds the attachment whose port the packet is for: one that is published at that
// address first.
func (p probe) published() (of state.Endpoint, port state.Port, is bool) {
	for _, r := range p.records {
		for _, q := range r.Ports {
			last := cmp.Or(q.HostPortEnd, q.HostPort)
			n := int(p.dest.Port())
			if cmp.Or(q.Protocol, "tcp") != p.protocol || n < q.HostPort || n > last || n == 0 {
				continue
			}
			any := !q.HostIP.IsValid() || q.HostIP.IsUnspecified()
			if here := any || q.HostIP == p.dest.Addr(); here || !is {
				of, port, is = r, q, true
				if here {
					return of, port, is
				}
			}
		}
	}
	return of, port, is
}

// addrOf is an address of the container that is of the family of the packet.
func addrOf(attached []state.Endpoint, like netip.Addr) netip.Addr {
	for _, r := range attached {
		for _, a := range r.Addresses {
			if a.Prefix.Addr() == like {
				return like
			}
		}
	}
	for _, r := range attached {
		for _, a := range r.Addresses {
			if a.Prefix.Addr().Is4() == like.Is4() {
				return a.Prefix.Addr()
			}
		}
	}
	return netip.Addr{}
}

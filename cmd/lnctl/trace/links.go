package trace

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/nftrace"
	"github.com/libnet-cni/libnet/internal/routing"
	"github.com/libnet-cni/libnet/internal/state"
)

// onBridge says why a bridge passed a frame that it has to neither the host nor a port.
func (w *way) onBridge(last nftrace.Step, c *netlink.Conn) string {
	for _, r := range w.senderAttached(last.In) {
		if says := w.portFault(r, c); says != "" {
			return says
		}
	}
	for _, r := range w.fromSameBridge(w.dest.Addr()) {
		if says := w.apart(r, w.dest.Addr(), c); says != "" {
			return says
		}
	}
	return w.toTarget(w.dest.Addr(), c)
}

// fromSameBridge are the attachments of the sender by which frames go to the target's address without
// the host as a router.
func (w *way) fromSameBridge(to netip.Addr) (all []state.Endpoint) {
	if w.to == nil || w.from == nil || w.from == w.host {
		return nil
	}
	for _, r := range w.from.attached {
		one := func(other state.Endpoint) bool {
			return r.Bridge != "" && other.Bridge == r.Bridge && addrOf([]state.Endpoint{other}, to) == to
		}
		inSubnet := slices.ContainsFunc(r.Addresses, func(a state.Address) bool { return a.Prefix.Masked().Contains(to) })
		if inSubnet && slices.ContainsFunc(w.to.attached, one) {
			all = append(all, r)
		}
	}
	return all
}

// senderAttached are the attachments of the sender that have an interface, of the container or of
// the host.
func (w *way) senderAttached(name string) []state.Endpoint {
	if w.from == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(w.from.attached), func(r state.Endpoint) bool {
		return r.HostName != name && nameInside(r) != name
	})
}

// nameInside is the name of the interface in the container.
func nameInside(r state.Endpoint) string {
	if r.LinkName != "" {
		return r.LinkName
	}
	return r.IfName
}

// notDelivered says why a packet that left a place by an interface came to no other.
func (w *way) notDelivered(p *place, last nftrace.Step, c *netlink.Conn) string {
	out, err := c.Device(last.Out)
	if err != nil {
		return ""
	}
	where := p.inside()
	if !out.Up() {
		return fmt.Sprintf("interface %s%s is down: ip link set %s up", out.Name, where, out.Name)
	}
	hop := nextHop(c, out, last.To)
	says := ""
	if p != w.host {
		_ = netlink.In(w.host.ns, func(hc *netlink.Conn) error {
			for _, r := range w.senderAttached(out.Name) {
				if says = w.portFault(r, hc); says == "" {
					says = w.apart(r, hop, hc)
				}
			}
			return nil
		})
	}
	if says == "" {
		_ = netlink.In(w.host.ns, func(hc *netlink.Conn) error {
			says = w.toTarget(hop, hc)
			return nil
		})
	}
	if says == "" {
		says = w.byQueue(p, out)
	}
	if says == "" {
		says = w.noNeighbour(p, out, hop, routing.NeighbourOf(c, out.Index, hop))
	}
	return says
}

// portFault says what is wrong with the host's end of an attachment.
func (w *way) portFault(r state.Endpoint, c *netlink.Conn) string {
	of := fmt.Sprintf("%s of container %s", nameInside(r), r.ContainerID)
	if r.HostName == "" {
		return ""
	}
	port, err := c.Device(r.HostName)
	if err != nil {
		return fmt.Sprintf("the host's end of %s (%s) is gone: delete the container, and make it anew", of, r.HostName)
	}
	if !port.Up() {
		return fmt.Sprintf("the host's end of %s is down: ip link set %s up", of, port.Name)
	}
	if r.Bridge == "" {
		return ""
	}
	bridge, err := c.Device(r.Bridge)
	switch {
	case err != nil:
		return fmt.Sprintf("bridge %s of network %q is gone: lnctl repair", r.Bridge, r.Network)
	case !bridge.Up():
		return fmt.Sprintf("bridge %s of network %q is down: ip link set %s up", r.Bridge, r.Network, r.Bridge)
	case port.Master != bridge.Index:
		return fmt.Sprintf("the host's end of %s is no port of bridge %s: ip link set %s master %s", of, r.Bridge, port.Name, r.Bridge)
	case port.PortState != netlink.PortForwarding:
		return fmt.Sprintf("the host's end of %s is a port of bridge %s that forwards nothing: bridge link set dev %s state 3", of, r.Bridge, port.Name)
	}
	return ""
}

// apart says that two isolated ports keep an attachment from the container that has an address.
func (w *way) apart(r state.Endpoint, to netip.Addr, c *netlink.Conn) string {
	if w.to == nil {
		return ""
	}
	for _, other := range w.to.attached {
		if other.Bridge != r.Bridge || addrOf([]state.Endpoint{other}, to) != to {
			continue
		}
		one, err1 := c.Device(r.HostName)
		two, err2 := c.Device(other.HostName)
		if err1 == nil && err2 == nil && one.Isolated && two.Isolated {
			return fmt.Sprintf("dropped by bridge %s, as the ports of both containers are isolated: network %q keeps its containers from each other (icc false, or portIsolation)", r.Bridge, r.Network)
		}
	}
	return ""
}

// toTarget says what is wrong at the container that the packet is for, if it has the next hop.
func (w *way) toTarget(hop netip.Addr, c *netlink.Conn) string {
	if w.to == nil || w.to == w.from {
		return ""
	}
	for _, r := range w.to.attached {
		if addrOf([]state.Endpoint{r}, hop) != hop {
			continue
		}
		name := nameInside(r)
		inside, err := deviceIn(w.to, name)
		switch {
		case err != nil:
			return fmt.Sprintf("container %s has no interface %s any more: delete the container, and make it anew", w.to.container, name)
		case !inside.Up():
			return fmt.Sprintf("interface %s in container %s is down: ip link set %s up in there", name, w.to.container, name)
		}
		if says := w.portFault(r, c); says != "" {
			return says
		}
		has := false
		_ = w.to.ns.Do(func() error {
			has = host.IsLocal(hop)
			return nil
		})
		if !has {
			return fmt.Sprintf("container %s has lost its address %s: lnctl check; give it back with ip addr add %s dev %s in there", w.to.container, hop, withPrefix(r, hop), name)
		}
	}
	return ""
}

func withPrefix(r state.Endpoint, a netip.Addr) string {
	for _, b := range r.Addresses {
		if b.Prefix.Addr() == a {
			return b.Prefix.String()
		}
	}
	return a.String()
}

// byQueue says that a queue or filter of tc dropped packets meanwhile, on the way from a place.
func (w *way) byQueue(p *place, out *netlink.Device) (says string) {
	look := func(at *place, name string) {
		if at == nil || at.dropped == nil || says != "" {
			return
		}
		d, err := deviceIn(at, name)
		if err != nil {
			return
		}
		_ = at.ns.Do(func() error {
			if n := routing.DroppedByQueues()[d.Index] - at.dropped[d.Index]; n > 0 && n < 1<<31 {
				says = fmt.Sprintf("tc dropped packets at interface %s%s meanwhile (%d): tc filter show dev %s ingress (or egress), and tc -s qdisc show dev %s", name, at.inside(), n, name, name)
			}
			return nil
		})
	}
	look(p, out.Name)
	for _, r := range w.senderAttached(out.Name) {
		look(w.host, r.HostName)
	}
	if w.to != nil {
		for _, r := range w.to.attached {
			if r.Bridge == out.Name || p != w.host {
				look(w.host, r.HostName)
				look(w.to, nameInside(r))
			}
		}
	}
	return says
}

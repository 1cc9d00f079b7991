package trace

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/nftrace"
	"github.com/libnet-cni/libnet/internal/state"
)

// onBridge says why a bridge passed a frame that it has to neither the host nor a port.
func (w *way) onBridge(p *place, last nftrace.Step, c *netlink.Conn) string {
	for _, r := range w.senderAttached(last.In) {
		if says := w.portFault(r, c); says != "" {
			return says
		}
	}
	return w.toTarget(w.dest.Addr(), c)
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
		says = w.noNeighbour(p, out, hop, neighbourOf(c, out.Index, hop))
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
			if n := droppedByQueues()[d.Index] - at.dropped[d.Index]; n > 0 && n < 1<<31 {
				says = fmt.Sprintf("tc dropped %d packets at interface %s%s meanwhile: tc filter show dev %s ingress, egress, and tc -s qdisc show dev %s", n, name, at.inside(), name, name)
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

// noNeighbour says what is wrong with what is known of a next hop.
func (w *way) noNeighbour(p *place, out *netlink.Device, hop netip.Addr, n neighbour) (says string) {
	if p != w.host {
		_ = netlink.In(w.host.ns, func(c *netlink.Conn) error {
			says = w.hostAsNeighbour(p, out, hop, n, c)
			return nil
		})
	}
	switch {
	case says != "":
		return says
	case n.asked:
		asks := "ARP"
		if hop.Is6() {
			asks = "neighbour discovery"
		}
		return fmt.Sprintf("no host answers for %s on interface %s%s (%s): it is off, or on another network", hop, out.Name, p.inside(), asks)
	case !n.known || w.to == nil:
		return ""
	}
	for _, r := range w.to.attached {
		if addrOf([]state.Endpoint{r}, hop) == hop && r.MAC != "" && r.MAC != n.mac.String() {
			return fmt.Sprintf("what is for %s goes to %s by interface %s%s, and container %s has %s: "+twoHosts,
				hop, n.mac, out.Name, p.inside(), r.ContainerID, r.MAC, hop, out.Name)
		}
	}
	return ""
}

// wrongGateway says that a container sends to another than this host what is for its address.
func (w *way) wrongGateway() (says string) {
	if w.from == nil || w.from == w.host {
		return ""
	}
	last, came := w.from.last()
	if !came {
		return ""
	}
	_ = netlink.In(w.from.ns, func(c *netlink.Conn) error {
		out, err := c.Device(last.Out)
		if err != nil {
			return err
		}
		hop := nextHop(c, out, last.To)
		if n := neighbourOf(c, out.Index, hop); n.known {
			_ = netlink.In(w.host.ns, func(hc *netlink.Conn) error {
				says = w.hostAsNeighbour(w.from, out, hop, n, hc)
				return nil
			})
		}
		return nil
	})
	return says
}

// nextHop is where a packet goes by an interface.
func nextHop(c *netlink.Conn, out *netlink.Device, to netip.AddrPort) netip.Addr {
	if r, err := routed(c, question{to: to.Addr(), out: out.Index}); err == nil && r.gateway.IsValid() {
		return r.gateway
	}
	return to.Addr()
}

const twoHosts = "another host has that address, too, or an entry of the neighbour table is wrong: ip neigh del %s dev %s"

// hostAsNeighbour is noNeighbour for a container and this host as the next hop.
func (w *way) hostAsNeighbour(p *place, out *netlink.Device, hop netip.Addr, n neighbour, c *netlink.Conn) string {
	for _, r := range w.senderAttached(out.Name) {
		bridge, err := c.Device(r.Bridge)
		local := host.IsLocal(hop)
		switch {
		case err != nil:
		case n.asked && !local && w.isGateway(hop, out.Name):
			return fmt.Sprintf("the gateway %s of container %s is no address of this host any more: lnctl repair", hop, p.container)
		case n.asked && local:
			// The host answers by the same rules by which it takes a packet.
			_, err := routed(c, question{from: w.source, to: hop, in: bridge.Index})
			if refusalOf(err) == unix.EINVAL {
				at := nftrace.Step{In: r.Bridge, From: netip.AddrPortFrom(w.source, 0), To: netip.AddrPortFrom(hop, 0)}
				return fmt.Sprintf("this host does not answer when container %s asks for %s: %s", p.container, hop, w.invalid(c, at, bridge.Index))
			}
			if d, err := deviceIn(w.from, nameInside(r)); err == nil && r.MAC != "" && d.MAC.String() != r.MAC {
				return fmt.Sprintf("interface %s in container %s has the MAC address %s, and network %q gave it %s, and lets no other send (macspoofchk): ip link set %s address %s in there", d.Name, p.container, d.MAC, r.Network, r.MAC, d.Name, r.MAC)
			}
			return fmt.Sprintf("this host has %s, and its answers do not come to container %s: a rule for ARP or for frames drops them: nft list ruleset, arptables -S, ebtables -L", hop, p.container)
		case n.known && local && !bytes.Equal(n.mac, bridge.MAC):
			return fmt.Sprintf("container %s sends what is for %s to %s, and this host has %s: "+twoHosts+" in there", p.container, hop, n.mac, bridge.MAC, hop, out.Name)
		}
	}
	return ""
}

// isGateway says that an address is a gateway of the sender's interface.
func (w *way) isGateway(a netip.Addr, name string) bool {
	return slices.ContainsFunc(w.senderAttached(name), func(r state.Endpoint) bool {
		return slices.ContainsFunc(r.Addresses, func(x state.Address) bool { return x.Gateway == a }) ||
			slices.ContainsFunc(r.Routes, func(x state.Route) bool { return x.Gateway == a })
	})
}

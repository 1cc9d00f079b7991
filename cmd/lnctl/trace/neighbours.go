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
	"github.com/libnet-cni/libnet/internal/routing"
	"github.com/libnet-cni/libnet/internal/state"
)

// noNeighbour says what is wrong with what is known of a next hop.
func (w *way) noNeighbour(p *place, out *netlink.Device, hop netip.Addr, n routing.Neighbour) (says string) {
	if p != w.host {
		_ = netlink.In(w.host.ns, func(c *netlink.Conn) error {
			says = w.hostAsNeighbour(p, out, hop, n, c)
			return nil
		})
	}
	switch {
	case says != "":
		return says
	case n.Asked:
		asks := "ARP"
		if hop.Is6() {
			asks = "neighbour discovery"
		}
		return fmt.Sprintf("no host answers for %s on interface %s%s (%s): it is off, or on another network", hop, out.Name, p.inside(), asks)
	case !n.Known || w.to == nil:
		return ""
	}
	for _, r := range w.to.attached {
		if addrOf([]state.Endpoint{r}, hop) == hop && r.MAC != "" && r.MAC != n.MAC.String() {
			return fmt.Sprintf("what is for %s goes to %s by interface %s%s, and container %s has %s: "+twoHosts,
				hop, n.MAC, out.Name, p.inside(), r.ContainerID, r.MAC, hop, out.Name)
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
		if n := routing.NeighbourOf(c, out.Index, hop); n.Known {
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
	if r, err := routing.Ask(c, routing.Question{To: to.Addr(), Out: out.Index}); err == nil && r.Gateway.IsValid() {
		return r.Gateway
	}
	return to.Addr()
}

const twoHosts = "another host has that address, too, or an entry of the neighbour table is wrong: ip neigh del %s dev %s"

// hostAsNeighbour is noNeighbour for a container and this host as the next hop.
func (w *way) hostAsNeighbour(p *place, out *netlink.Device, hop netip.Addr, n routing.Neighbour, c *netlink.Conn) string {
	for _, r := range w.senderAttached(out.Name) {
		bridge, err := c.Device(r.Bridge)
		local := host.IsLocal(hop)
		switch {
		case err != nil:
		case n.Asked && !local && w.isGateway(hop, out.Name):
			return fmt.Sprintf("the gateway %s of container %s is no address of this host any more: lnctl repair", hop, p.container)
		case n.Asked && local:
			// The host answers by the same rules by which it takes a packet.
			_, err := routing.Ask(c, routing.Question{From: w.source, To: hop, In: bridge.Index})
			if refusalOf(err) == unix.EINVAL {
				at := nftrace.Step{In: r.Bridge, From: netip.AddrPortFrom(w.source, 0), To: netip.AddrPortFrom(hop, 0)}
				return fmt.Sprintf("this host does not answer when container %s asks for %s: %s", p.container, hop, w.invalid(c, at, bridge.Index))
			}
			if d, err := deviceIn(w.from, nameInside(r)); err == nil && r.MAC != "" && d.MAC.String() != r.MAC {
				return fmt.Sprintf("interface %s in container %s has the MAC address %s, and network %q gave it %s, and lets no other send (macspoofchk): ip link set %s address %s in there", d.Name, p.container, d.MAC, r.Network, r.MAC, d.Name, r.MAC)
			}
			return fmt.Sprintf("this host has %s, and its answers do not come to container %s: a rule for ARP or for frames drops them: nft list ruleset, arptables -S, ebtables -L", hop, p.container)
		case n.Known && local && !bytes.Equal(n.MAC, bridge.MAC):
			return fmt.Sprintf("container %s sends what is for %s to %s, and this host has %s: "+twoHosts+" in there", p.container, hop, n.MAC, bridge.MAC, hop, out.Name)
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

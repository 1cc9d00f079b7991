package plan

import (
	"cmp"
	"net"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/tunnel"
)

// TunnelPrefix starts the names of VXLAN devices.
const TunnelPrefix = "vx-"

// TunnelName is the name of the device that leads to the network's other hosts: "vx-" of
// VXLAN or "wg-" of WireGuard, and 12 hex digits, those of the default name of the bridge.
// Empty: it has none.
func (n *Network) TunnelName() string {
	switch {
	case n.Driver != DriverOverlay:
		return ""
	case n.Config.Tunnel.Encrypted():
		return n.tunnelNamed(tunnel.SecurePrefix)
	}
	return n.tunnelNamed(TunnelPrefix)
}

// SecureTunnel is the network's device if that encrypts; empty: it does not.
func (n *Network) SecureTunnel() string {
	if n.Driver != DriverOverlay || !n.Config.Tunnel.Encrypted() {
		return ""
	}
	return n.TunnelName()
}

// TunnelOf is the device by which the network led to other hosts when an attachment came:
// the rules of that are about this one.
func (n *Network) TunnelOf(rec state.Endpoint) string {
	if n.Driver != DriverOverlay || rec.Tunnel != "" {
		return rec.Tunnel
	}
	return n.tunnelNamed(TunnelPrefix)
}

// SecureName is the name that the device of an encrypted network has.
func SecureName(network string) string {
	return (&Network{Name: network}).tunnelNamed(tunnel.SecurePrefix)
}

func (n *Network) tunnelNamed(prefix string) string {
	return prefix + model.Digest(model.NetworkOwner(n.Name))[:12]
}

// TunnelNames are those of the devices of both kinds: the network may have had another
// configuration.
func (n *Network) TunnelNames() []string {
	if n.Driver != DriverOverlay {
		return nil
	}
	return []string{n.tunnelNamed(TunnelPrefix), n.tunnelNamed(tunnel.SecurePrefix)}
}

// otherTunnel is the device of the kind that the network is not of.
func (n *Network) otherTunnel() string {
	if n.Config.Tunnel.Encrypted() {
		return n.tunnelNamed(TunnelPrefix)
	}
	return n.tunnelNamed(tunnel.SecurePrefix)
}

// vteps returns the MACs of the tunnel's other ends. WireGuard knows the sender of a packet by
// its key.
func (n *Network) vteps() []net.HardwareAddr {
	var all []net.HardwareAddr
	if n.Config.Tunnel.Encrypted() {
		return nil
	}
	for _, node := range n.Config.Tunnel.Nodes {
		if node.Address != n.Config.Tunnel.Self {
			mac := overlay.MAC(n.Config.Tunnel.VNIOf(n.Name), node.Address)
			all = append(all, mac[:])
		}
	}
	return all
}

// underlay is what the tunnel looks like from the underlay.
func (n *Network) underlay() firewall.Underlay {
	t := n.Config.Tunnel
	if n.Driver != DriverOverlay || !t.Used() || t.Encrypted() {
		return firewall.Underlay{}
	}
	u := firewall.Underlay{VNI: t.VNIOf(n.Name), Port: cmp.Or(uint16(t.Port), overlay.DefaultPort)}
	for _, node := range t.Nodes {
		if node.Address != t.Self {
			u.Hosts = append(u.Hosts, node.Address)
		}
	}
	return u
}

// sealed are the prefixes of the network whose packets may go by its tunnel only; nil: it is
// not encrypted.
func (n *Network) sealed() []netip.Prefix {
	t := n.Config.Tunnel
	if n.Driver != DriverOverlay || !t.Used() || !t.Encrypted() {
		return nil
	}
	all := t.Reach()
	return slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool {
		return slices.ContainsFunc(all, func(o netip.Prefix) bool { return o.Bits() < p.Bits() && o.Overlaps(p) })
	})
}

// Tunnel is the network's device with all that leads by it to other hosts.
func (n *Network) Tunnel() tunnel.Tunnel {
	t := n.Config.Tunnel
	nodes := make([]overlay.Node, 0, len(t.Nodes))
	for _, node := range t.Nodes {
		nodes = append(nodes, overlay.Node{Address: node.Address, Blocks: node.Subnets, PublicKey: node.PublicKey})
	}
	return overlay.Plan(overlay.Network{
		Name: n.TunnelName(), Alias: model.NetworkOwner(n.Name),
		VNI: t.VNIOf(n.Name), Port: uint16(t.Port), Device: t.Device, MTU: n.Config.MTU,
		Instead: n.otherTunnel(), Nets: n.sealed(),
	}, nodes, t.Self)
}

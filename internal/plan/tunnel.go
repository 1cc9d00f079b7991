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

// SpareTunnel is the second device that a network has while its keys change: of epochs with an
// even number. Empty: it never has two, as only those have that are encrypted and kept by an
// agent.
func (n *Network) SpareTunnel() string {
	if n.SecureTunnel() == "" || !n.Config.Tunnel.Agent {
		return ""
	}
	return spareName(n.Name)
}

func spareName(network string) string {
	return tunnel.SecurePrefix + model.Digest(model.NetworkOwner(network) + " 2")[:12]
}

// EpochTunnel is the device of an epoch of such a network.
func EpochTunnel(network string, epoch int) string {
	if epoch%2 == 0 {
		return spareName(network)
	}
	return SecureName(network)
}

// EpochPort is the UDP port of an epoch's device on a host, where the network has port: it or
// the one behind it.
func EpochPort(port, epoch int) uint16 { return uint16(port + 1 - epoch%2) }

// TunnelOf is the device by which the network led to other hosts when an attachment came:
// the rules of that are about this one.
func (n *Network) TunnelOf(rec state.Endpoint) string {
	if n.Driver != DriverOverlay || rec.Tunnel != "" {
		return rec.Tunnel
	}
	return n.tunnelNamed(TunnelPrefix)
}

// VXLANName is the name that the device of a network has that is not encrypted.
func VXLANName(network string) string {
	return (&Network{Name: network}).tunnelNamed(TunnelPrefix)
}

// SecureName is the name that the device of an encrypted network has.
func SecureName(network string) string {
	return (&Network{Name: network}).tunnelNamed(tunnel.SecurePrefix)
}

func (n *Network) tunnelNamed(prefix string) string {
	return prefix + model.Digest(model.NetworkOwner(n.Name))[:12]
}

// TunnelNames are those of all devices that the network may have: it may have had another
// configuration.
func (n *Network) TunnelNames() []string {
	if n.Driver != DriverOverlay {
		return nil
	}
	return []string{n.tunnelNamed(TunnelPrefix), n.tunnelNamed(tunnel.SecurePrefix), spareName(n.Name)}
}

// otherTunnels are the devices that the network may have had by another configuration.
func (n *Network) otherTunnels() []string {
	return slices.DeleteFunc(n.TunnelNames(), func(name string) bool { return name == n.TunnelName() || name == n.SpareTunnel() })
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

// Tunnels are the network's devices, each with all that leads by it to other hosts: one, or
// while keys change two, the newer first.
func (n *Network) Tunnels() []tunnel.Tunnel {
	t := n.Config.Tunnel
	if !t.Encrypted() || !t.Agent {
		return []tunnel.Tunnel{n.Tunnel()}
	}
	all := make([]tunnel.Tunnel, 0, len(t.Epochs))
	for _, epoch := range t.Epochs {
		all = append(all, n.epochTunnel(epoch))
	}
	return all
}

// epochTunnel is the device of one of Config.Tunnel.Epochs.
func (n *Network) epochTunnel(epoch int) tunnel.Tunnel {
	t := n.Config.Tunnel
	nodes := make([]overlay.Node, 0, len(t.Nodes))
	for _, node := range t.Nodes {
		k := node.KeyOf(epoch)
		nodes = append(nodes, overlay.Node{
			Address: node.Address, Blocks: node.Subnets, PublicKey: k.PublicKey, Port: k.Port, Elsewhere: node.Epoch != epoch,
		})
	}
	own := overlay.Network{
		Name: EpochTunnel(n.Name, epoch), Alias: model.NetworkOwner(n.Name), Port: EpochPort(t.Port, epoch), MTU: n.Config.MTU,
		Instead: n.otherTunnels(), Nets: n.sealed(), Kept: true,
	}
	for _, other := range t.Epochs {
		if name := EpochTunnel(n.Name, other); name != own.Name {
			own.Sister = name
		}
	}
	return overlay.Plan(own, nodes, t.Self)
}

// Tunnel is the device of a network that has one, with all that leads by it to other hosts.
func (n *Network) Tunnel() tunnel.Tunnel {
	t := n.Config.Tunnel
	nodes := make([]overlay.Node, 0, len(t.Nodes))
	for _, node := range t.Nodes {
		nodes = append(nodes, overlay.Node{Address: node.Address, Blocks: node.Subnets, PublicKey: node.PublicKey})
	}
	return overlay.Plan(overlay.Network{
		Name: n.TunnelName(), Alias: model.NetworkOwner(n.Name),
		VNI: t.VNIOf(n.Name), Port: uint16(t.Port), Device: t.Device, MTU: n.Config.MTU,
		Instead: n.otherTunnels(), Nets: n.sealed(),
	}, nodes, t.Self)
}

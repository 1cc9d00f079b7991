package plan

import (
	"cmp"
	"net"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/tunnel"
)

// TunnelPrefix starts the names of VXLAN devices.
const TunnelPrefix = "vx-"

// TunnelName is the name of the network's VXLAN device: "vx-" and 12 hex
// digits, those of the default name of the bridge. Empty: it has none.
func (n *Network) TunnelName() string {
	if n.Driver != DriverOverlay {
		return ""
	}
	return TunnelPrefix + model.Digest(model.NetworkOwner(n.Name))[:12]
}

// vteps returns the MACs of the tunnel's other ends.
func (n *Network) vteps() []net.HardwareAddr {
	var all []net.HardwareAddr
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
	if n.Driver != DriverOverlay || !t.Used() {
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

// Tunnel is the network's VXLAN device with all that leads by it to other hosts.
func (n *Network) Tunnel() tunnel.Tunnel {
	t := n.Config.Tunnel
	nodes := make([]overlay.Node, 0, len(t.Nodes))
	for _, node := range t.Nodes {
		nodes = append(nodes, overlay.Node{Address: node.Address, Blocks: node.Subnets})
	}
	return overlay.Plan(overlay.Network{
		Name: n.TunnelName(), Alias: model.NetworkOwner(n.Name),
		VNI: t.VNIOf(n.Name), Port: uint16(t.Port), Device: t.Device, MTU: n.Config.MTU,
	}, nodes, t.Self)
}

package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"slices"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// Network is what a network's record says of it, but for its addresses.
type Network struct {
	Name   string
	Driver string
	Config model.NetworkConfig
}

// OfRecord returns the network of a record.
func OfRecord(rec state.Network) (*Network, error) {
	n := &Network{Name: rec.Name, Driver: cmp.Or(rec.Driver, DriverBridge)}
	if err := json.Unmarshal(rec.Config, &n.Config); err != nil {
		return nil, fmt.Errorf("record of network %q: %w", rec.Name, err)
	}
	return n, nil
}

// The network drivers: a Linux bridge on this host, and one that a VXLAN device
// joins to those of other hosts.
const (
	DriverBridge  = "bridge"
	DriverOverlay = "overlay"
)

// Bridge is the network's bridge as endpoints with these addresses need it.
func (n *Network) Bridge(a model.Addressing) link.Bridge {
	b := link.Bridge{
		Name:          n.Config.Bridge,
		MTU:           n.Config.MTU,
		ForceAddress:  n.Config.ForceAddress,
		Promisc:       n.Config.Promiscuous,
		VLANFiltering: n.Config.VLAN > 0 || len(n.Config.VLANTrunk) > 0,
		VLAN:          n.Config.VLAN,

		PreserveDefaultVLAN: n.Config.PreserveDefaultVLAN,

		IPv6:     ipv6Mode(a),
		Alias:    model.NetworkOwner(n.Name),
		Isolated: n.Config.IsIsolated(),
	}
	if !n.Config.HasGateway() {
		return b
	}
	b.ForwardIPv4, b.ForwardIPv6 = a.Families()
	for _, addr := range a.Addresses {
		if !addr.Gateway.IsValid() {
			continue
		}
		b.Gateways = append(b.Gateways, addr.OnBridge())
		if subnet := addr.Prefix.Masked(); !subnet.Contains(addr.Gateway) && !slices.Contains(b.Subnets, subnet) {
			b.Subnets = append(b.Subnets, subnet)
		}
	}
	return b
}

func (n *Network) link(id model.ID, a model.Addressing, mac net.HardwareAddr, ports []model.PortMapping) link.Link {
	l := link.Link{
		Owner: id.String(), HostName: id.HostName(), Bridge: n.Config.Bridge, IfName: id.IfName,
		MAC: mac, MTU: n.Config.MTU,
		// Where br_netfilter has DNAT done inside the bridge, a container
		// reaches itself by its published port through its own bridge port.
		Hairpin:  n.Config.Hairpin || len(ports) > 0 && !n.Config.Promiscuous,
		Isolated: n.Config.Isolated || n.Config.ForbidsICC(),
		VLAN:     n.Config.VLAN, PreserveDefaultVLAN: n.Config.PreserveDefaultVLAN,
		EnableDAD: n.Config.EnableDAD, Down: n.Config.InterfaceDown, IPv6: ipv6Mode(a),
	}
	for _, r := range n.Config.VLANTrunk {
		l.Trunk = append(l.Trunk, link.VLANRange(r))
	}
	for _, addr := range a.Addresses {
		l.Addrs = append(l.Addrs, addr.Prefix)
	}
	for _, r := range a.Routes {
		route := link.Route{Dst: r.Dst, Gateway: r.Gateway, MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Scope: r.Scope}
		if r.Table != nil {
			route.Table = *r.Table
		}
		l.Routes = append(l.Routes, route)
	}
	return l
}

// ipv6Mode switches IPv6 off where addresses are given and none is IPv6: a
// link-local address that the configuration does not name lets a neighbour reach, and
// re-route, the container (CVE-2024-32473).
func ipv6Mode(a model.Addressing) host.IPv6Mode {
	switch v4, v6 := a.Families(); {
	case v6:
		return host.IPv6On
	case v4:
		return host.IPv6Off
	}
	return host.IPv6Keep
}

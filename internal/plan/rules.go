package plan

import (
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/policy"
	"github.com/libnet-cni/libnet/internal/state"
)

// Rules are those of the network as a whole, and what it asks of its bridge.
func (n *Network) Rules() firewall.Network {
	fw := n.Asked()
	fw.VTEPs, fw.Underlay, fw.Sealed = n.vteps(), n.underlay(), n.sealed()
	fw.Direct = n.direct()
	return fw
}

// Asked are Rules without those of the network's other hosts, of which there may be many:
// what it asks of its bridge.
func (n *Network) Asked() firewall.Network {
	c := n.Config
	fw := firewall.Network{
		Name: model.NetworkOwner(n.Name), Guard: GuardOwner(c.Bridge), Bridge: c.Bridge, Tunnel: n.TunnelName(), Spare: n.SpareTunnel(),
		NoHost: c.NoHost || c.IsIsolated(), Internal: c.IsInternal(), NoICC: c.ForbidsICC(), Apart: c.IsApart(),
		IPv4: c.GatewayModeIPv4.Policy(), IPv6: c.GatewayModeIPv6.Policy(), Trusted: c.TrustedInterfaces,
	}
	if m := firewall.Mark(c.AcceptFwMark); m.Mask != 0 {
		fw.AcceptMark = &m
	}
	return fw
}

// GuardOwner owns the rules that concern a bridge alone.
func GuardOwner(bridge string) string { return "libnet-bridge:" + bridge }

// BridgeRules are the rules of a bridge for which nothing is asked yet.
func BridgeRules(bridge string) firewall.Network {
	return firewall.Network{Name: GuardOwner(bridge), Guard: GuardOwner(bridge), Bridge: bridge}
}

// GuardID tells what the network asks of its bridge from what others do.
func (n *Network) GuardID() string { return policy.ID(n.Asked()) }

// OwnRules are the choices of the configuration for endpoints made by it.
func OwnRules(c model.NetworkConfig) *state.OwnRules {
	m := c.MasqueradeFamilies()
	return &state.OwnRules{
		MasqueradeIPv4: m.IPv4, MasqueradeIPv6: m.IPv6, Source: c.SNATAddrs(),
		SpoofCheck: c.SpoofCheck, NoHairpin: c.NoHairpin, MasqueradeAll: c.MasqueradeAll,
	}
}

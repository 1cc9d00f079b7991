package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/life"
)

// plan is all that an attachment is in the kernel: what ADD applies, CHECK
// verifies.
type plan struct {
	bridge   link.Bridge
	link     link.Link
	network  firewall.Network
	endpoint firewall.Endpoint
	v4, v6   bool // families to forward
	rules    bool // network or endpoint have any
	localnet bool // ports are to be reached by 127.0.0.0/8
}

// plan derives what an endpoint is to be. It is pure: what can be refused is
// refused here. The link has no namespace yet.
func (n *Network) plan(id model.ID, a model.Addressing, mac net.HardwareAddr, ports []PortMapping) (plan, error) {
	v4, v6 := a.Families()
	if v6 && n.config.MTU != 0 && n.config.MTU < 1280 {
		return plan{}, model.BadConfig("mtu", n.config.MTU, "want at least 1280 bytes, as the network has IPv6 (RFC 8200, section 5)")
	}
	p := plan{
		bridge:   n.planBridge(a),
		link:     n.planLink(id, a, mac, ports),
		network:  n.planRules(),
		endpoint: firewall.Endpoint{Owner: id.String(), Bridge: n.config.Bridge, Port: id.HostName(), Tunnel: n.tunnelName()},
	}
	p.endpoint.Addrs, p.endpoint.Masquerade, p.endpoint.Source = a.Addrs(), n.config.MasqueradeFamilies(), n.config.SNATAddrs()
	if len(a.Addresses) == 0 {
		p.endpoint.Masquerade = firewall.Families{}
	}
	p.endpoint.Ports, p.endpoint.Hairpin, p.endpoint.MasqueradeAll = firewallPorts(ports), !n.config.NoHairpin, n.config.MasqueradeAll
	p.localnet = v4 && !n.config.NoHairpin && n.config.GatewayModeIPv4 != model.GatewayRouted && publishesLocalhost(ports)
	p.bridge.RouteLocalnet = p.localnet
	p.rules = n.config.NeedsRules() || len(ports) > 0
	if n.config.SpoofCheck {
		p.endpoint.MAC = p.link.MAC
	}
	if n.config.HasGateway() {
		p.v4, p.v6 = v4, v6
	}
	return p, nil
}

// ownRules are the choices of the configuration for endpoints made by it.
func ownRules(c model.NetworkConfig) *state.OwnRules {
	m := c.MasqueradeFamilies()
	return &state.OwnRules{
		MasqueradeIPv4: m.IPv4, MasqueradeIPv6: m.IPv6, Source: c.SNATAddrs(),
		SpoofCheck: c.SpoofCheck, NoHairpin: c.NoHairpin, MasqueradeAll: c.MasqueradeAll,
	}
}

// asRecorded has the endpoint's own rules as they were made: the network's
// configuration may have changed since.
func (p *plan) asRecorded(rec state.Endpoint) {
	p.rules = p.rules || rec.Rules
	p.link.IfName = rec.Inside()
	r := rec.OwnRules
	if r == nil {
		return
	}
	e := &p.endpoint
	e.Source, e.Hairpin, e.MasqueradeAll, e.MAC = r.Source, !r.NoHairpin, r.MasqueradeAll, nil
	if r.SpoofCheck {
		e.MAC = p.link.MAC
	}
	if len(e.Addrs) > 0 {
		e.Masquerade = firewall.Families{IPv4: r.MasqueradeIPv4, IPv6: r.MasqueradeIPv6}
	}
}

func (n *Network) planBridge(a model.Addressing) link.Bridge {
	b := link.Bridge{
		Name:          n.config.Bridge,
		MTU:           n.config.MTU,
		ForceAddress:  n.config.ForceAddress,
		Promisc:       n.config.Promiscuous,
		VLANFiltering: n.config.VLAN > 0 || len(n.config.VLANTrunk) > 0,
		VLAN:          n.config.VLAN,

		PreserveDefaultVLAN: n.config.PreserveDefaultVLAN,

		IPv6:     ipv6Mode(a),
		Alias:    model.NetworkOwner(n.name),
		Isolated: n.config.IsIsolated(),
	}
	if !n.config.HasGateway() {
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

func (n *Network) planLink(id model.ID, a model.Addressing, mac net.HardwareAddr, ports []PortMapping) link.Link {
	l := link.Link{
		Owner: id.String(), HostName: id.HostName(), Bridge: n.config.Bridge, IfName: id.IfName,
		MAC: mac, MTU: n.config.MTU,
		// Where br_netfilter has DNAT done inside the bridge, a container
		// reaches itself by its published port through its own bridge port.
		Hairpin:  n.config.Hairpin || len(ports) > 0 && !n.config.Promiscuous,
		Isolated: n.config.Isolated || n.config.ForbidsICC(),
		VLAN:     n.config.VLAN, PreserveDefaultVLAN: n.config.PreserveDefaultVLAN,
		EnableDAD: n.config.EnableDAD, Down: n.config.InterfaceDown, IPv6: ipv6Mode(a),
	}
	for _, r := range n.config.VLANTrunk {
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

func (n *Network) planRules() firewall.Network {
	c := n.config
	fw := firewall.Network{
		Name: model.NetworkOwner(n.name), Guard: guardOwner(c.Bridge), Bridge: c.Bridge, Tunnel: n.tunnelName(), VTEPs: n.vteps(), Underlay: n.underlay(),
		NoHost: c.NoHost || c.IsIsolated(), Internal: c.IsInternal(), NoICC: c.ForbidsICC(), Apart: c.IsApart(),
		IPv4: c.GatewayModeIPv4.Policy(), IPv6: c.GatewayModeIPv6.Policy(), Trusted: c.TrustedInterfaces,
	}
	if m := firewall.Mark(c.AcceptFwMark); m.Mask != 0 {
		fw.AcceptMark = &m
	}
	return fw
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

// resolveMTU turns AutoMTU into a number, by the host's default route.
func (n *Network) resolveMTU() error {
	if !n.config.AutoMTU || n.config.MTU != 0 {
		return nil
	}
	if n.config.Tunnel.Used() {
		return n.resolveTunnelMTU()
	}
	mtu, err := n.c.bridges.UplinkMTU()
	if errors.Is(err, netlink.ErrNotFound) {
		return nil // no route out: the kernel's default
	}
	if err == nil && (mtu < 68 || mtu > 65535) {
		err = model.BadConfig("mtu", "auto", "the host's default route has MTU "+strconv.Itoa(mtu)+"; give a number from 68 to 65535")
	}
	n.config.MTU = mtu
	return err
}

// ensureBridge makes the network's bridge as the endpoint but, zero for none,
// needs it, pushing how to undo what it made.
func (n *Network) ensureBridge(ctx context.Context, a model.Addressing, but model.ID, undo *undoStack) (link.BridgeState, error) {
	if err := n.resolveMTU(); err != nil {
		return link.BridgeState{}, err
	}
	want := n.planBridge(a)
	// All gateways of the pool, of whose subnets the next endpoint may get one:
	// one does not stand in another's place.
	pool := n.planBridge(n.ownGateways())
	want.Gateways, want.Subnets = union(want.Gateways, pool.Gateways), union(want.Subnets, pool.Subnets)
	want.Needed = func(have []netip.Prefix) ([]netip.Prefix, error) { return n.needed(have, but) }
	br, err := n.c.bridges.EnsureBridge(ctx, want)
	if errors.Is(err, netlink.ErrUnsupported) {
		err = n.unsupported(err)
	}
	if err != nil {
		return br, err
	}
	if br.Created {
		undo.push(func() error { return n.removeBridge(context.WithoutCancel(ctx)) })
	}
	return br, nil
}

func union(a, b []netip.Prefix) []netip.Prefix {
	for _, p := range b {
		if !slices.Contains(a, p) {
			a = append(a, p)
		}
	}
	return a
}

// needed returns which addresses of the bridge endpoints of whichever network
// have as gateway. While another one is being made, whose gateway is not known
// yet, all may be.
func (n *Network) needed(have []netip.Prefix, but model.ID) ([]netip.Prefix, error) {
	recs, err := n.c.networks.Networks()
	errs := []error{err}
	var all []netip.Prefix
	for _, rec := range recs {
		if rec.Bridge != n.config.Bridge {
			continue
		}
		o, err := n.c.networkOf(rec)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		endpoints, err := n.c.endpoints.Endpoints(o.name)
		errs = append(errs, err)
		for _, e := range endpoints {
			if e.Phase != state.PhaseReady && e.Netns != "" && life.IDOf(e) != but && !n.c.dead(e) {
				return have, nil
			}
			all = append(all, o.planBridge((&Endpoint{n: o, rec: e}).Addressing()).Gateways...)
		}
	}
	if err := errors.Join(errs...); err != nil && !errors.Is(err, state.ErrCorrupt) { // what is corrupt is set aside
		return nil, err
	}
	return all, nil
}

// unsupported names the key of the configuration that asks for more than the
// kernel's plainest bridge, if there is one.
func (n *Network) unsupported(err error) error {
	switch c := n.config; {
	case c.VLAN > 0:
		return &model.UnsupportedError{Key: "vlan", Value: strconv.Itoa(c.VLAN), Err: err}
	case len(c.VLANTrunk) > 0:
		return &model.UnsupportedError{Key: "vlanTrunk", Value: fmt.Sprintf("%d-%d", c.VLANTrunk[0].Min, c.VLANTrunk[0].Max), Err: err}
	}
	return err
}

// removeBridge removes the bridge if libnet made it, for whichever network, and no
// port is left on it; one that another network came to use meanwhile stays.
func (n *Network) removeBridge(ctx context.Context) error {
	err := n.c.bridges.RemoveBridge(ctx, n.config.Bridge, model.OwnerPrefix)
	if errors.Is(err, link.ErrInUse) || errors.Is(err, netlink.ErrExists) || errors.Is(err, link.ErrNotBridge) {
		return nil
	}
	return err
}

// dissolve removes what belongs to the network as a whole, but what an agent
// keeps. It is state.ErrInUse while another process is at work on an endpoint.
func (n *Network) dissolve(ctx context.Context) error {
	return n.c.endpoints.Alone(ctx, n.name, func() error { return n.dissolveAlone(ctx) })
}

func (n *Network) dissolveAlone(ctx context.Context) error {
	if kept, err := n.agentKeeps(); kept || err != nil {
		return errors.Join(err, n.removeBridge(ctx), n.c.networks.DeleteNetwork(n.name))
	}
	return errors.Join(
		n.removeTunnel(ctx),
		n.clearBridge(ctx),
		n.c.networks.DeleteNetwork(n.name),
		n.releaseSubnets(ctx),
	)
}

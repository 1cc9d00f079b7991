package plan

import (
	"net"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// Attachment is all that an attachment is in the kernel: what ADD applies, CHECK
// verifies.
type Attachment struct {
	Bridge   link.Bridge
	Link     link.Link
	Network  firewall.Network
	Endpoint firewall.Endpoint
	V4, V6   bool // families to forward
	Rules    bool // network or endpoint have any
	Localnet bool // ports are to be reached by 127.0.0.0/8
}

// Endpoint derives what an endpoint is to be. It is pure: what can be refused is
// refused here. The link has no namespace yet.
func (n *Network) Endpoint(id model.ID, a model.Addressing, mac net.HardwareAddr, ports []model.PortMapping) (Attachment, error) {
	v4, v6 := a.Families()
	if v6 && n.Config.MTU != 0 && n.Config.MTU < 1280 {
		return Attachment{}, model.BadConfig("mtu", n.Config.MTU, "want at least 1280 bytes, as the network has IPv6 (RFC 8200, section 5)")
	}
	p := Attachment{
		Bridge:   n.Bridge(a),
		Link:     n.link(id, a, mac, ports),
		Network:  n.Rules(),
		Endpoint: firewall.Endpoint{Owner: id.String(), Bridge: n.Config.Bridge, Port: id.HostName(), Tunnel: n.TunnelName(), Spare: n.SpareTunnel()},
	}
	p.Endpoint.Addrs, p.Endpoint.Masquerade, p.Endpoint.Source = a.Addrs(), n.Config.MasqueradeFamilies(), n.Config.SNATAddrs()
	if len(a.Addresses) == 0 {
		p.Endpoint.Masquerade = firewall.Families{}
	}
	p.Endpoint.Ports, p.Endpoint.Hairpin, p.Endpoint.MasqueradeAll = model.FirewallPorts(ports), !n.Config.NoHairpin, n.Config.MasqueradeAll
	p.Localnet = v4 && !n.Config.NoHairpin && n.Config.GatewayModeIPv4 != model.GatewayRouted && model.PublishesLocalhost(ports)
	p.Bridge.RouteLocalnet = p.Localnet
	p.Rules = n.Config.NeedsRules() || len(ports) > 0
	if n.Config.SpoofCheck {
		p.Endpoint.MAC = p.Link.MAC
	}
	if n.Config.HasGateway() {
		p.V4, p.V6 = v4, v6
	}
	return p, nil
}

// asRecorded has the endpoint's own rules as they were made: the network's
// configuration may have changed since.
func (p *Attachment) asRecorded(rec state.Endpoint) {
	p.Rules = p.Rules || rec.Rules
	p.Link.IfName = rec.Inside()
	r := rec.OwnRules
	if r == nil {
		return
	}
	e := &p.Endpoint
	e.Source, e.Hairpin, e.MasqueradeAll, e.MAC = r.Source, !r.NoHairpin, r.MasqueradeAll, nil
	if r.SpoofCheck {
		e.MAC = p.Link.MAC
	}
	if len(e.Addrs) > 0 {
		e.Masquerade = firewall.Families{IPv4: r.MasqueradeIPv4, IPv6: r.MasqueradeIPv6}
	}
}

// Recorded is what the attachment of a record is to be.
func (n *Network) Recorded(rec state.Endpoint) (Attachment, error) {
	mac, err := model.ParseMAC("mac", rec.MAC)
	if err != nil {
		return Attachment{}, err
	}
	p, err := n.Endpoint(life.IDOf(rec), AddressingOf(rec), mac, PortsOf(rec))
	p.asRecorded(rec)
	p.Endpoint.Tunnel, p.Endpoint.Spare = n.TunnelOf(rec), rec.Spare
	p.Link.Precedence = link.Precedence{Network: n.Name, Priority: int32(rec.GatewayPriority), Internal: n.Config.IsInternal()}
	return p, err
}

// AddressingOf returns the addresses, routes and DNS of a record.
func AddressingOf(rec state.Endpoint) model.Addressing {
	a := model.Addressing{DNS: model.DNS(rec.DNS)}
	for _, addr := range rec.Addresses {
		a.Addresses = append(a.Addresses, model.Address(addr))
	}
	for _, r := range rec.Routes {
		a.Routes = append(a.Routes, model.Route(r))
	}
	return a
}

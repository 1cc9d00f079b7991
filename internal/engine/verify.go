package engine

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// Expectation is what an attachment should be.
type Expectation struct {
	ID         model.ID
	Netns      string // path of the container's network namespace
	Addressing model.Addressing
	// MAC of the container's interface; empty: not compared.
	MAC string
	// MTU of the container's interface in bytes; 0: not compared. A plugin behind
	// this one may have changed it, and does not say so.
	MTU int
	// HostName is the host's end of the link; empty: the one of the ID. Another
	// one tells of an attachment that the reference bridge plugin made.
	HostName string
	// Ports are the published ones, for an attachment that has no record.
	Ports []model.PortMapping

	butForwarding bool // which Diagnose tells of once for all
	butTunnel     bool // which is the network's
}

// Verify changes nothing and says what differs from want, each difference by
// name, joined; the error is then ErrDifferent. Any other error says that it
// could not look. It needs no record.
func (n *Network) Verify(ctx context.Context, want Expectation) (err error) {
	n.c.steps.At("compare")
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	return n.verify(ctx, want, func(*plan.Attachment) {})
}

// verify is Verify of a plan that change has adjusted.
func (n *Network) verify(ctx context.Context, want Expectation, change func(*plan.Attachment)) error {
	var mac net.HardwareAddr
	if want.MAC != "" {
		var err error
		if mac, err = model.ParseMAC("mac", want.MAC); err != nil {
			return err
		}
	}
	rec, ports, err := n.recorded(want)
	if err != nil {
		return err
	}
	p, err := n.Plan().Endpoint(want.ID, want.Addressing, mac, ports)
	if err != nil {
		return err
	}
	p.Link.IfName = rec.Inside()
	change(&p)
	if want.HostName != "" && want.HostName != p.Link.HostName {
		adopt(&p, want)
	}
	ns, err := life.OpenNetns(want.Netns)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	p.Link.Netns, p.Link.MTU, p.Bridge.MTU = ns, want.MTU, 0
	reach(&p)
	if want.butForwarding {
		p.Bridge.ForwardIPv4, p.Bridge.ForwardIPv6 = false, false
	}
	errs := []error{n.c.bridges.VerifyBridge(ctx, p.Bridge), n.c.links.Verify(ctx, p.Link)}
	if !want.butTunnel {
		errs = append(errs, n.span().verify(ctx, n))
	}
	errs = append(errs, n.c.names.Verify(ctx, &rec), n.c.shortcuts.Verify(ctx, &rec, n.fastTunnel()))
	if p.Rules {
		network, err := n.c.book().Verifiable(ctx, n.Plan(), rec)
		if err == nil {
			err = n.c.Ports().Verify(ctx, rec, network, p.Endpoint)
		}
		errs = append(errs, err)
	}
	if n.ipam != nil {
		errs = append(errs, n.ipam.Verify(ctx, want.ID, want.Addressing.Addrs()))
	}
	return plan.Judged(fmt.Sprintf("%s %s in network %q", want.ID.ContainerID, want.ID.IfName, n.def.Name), errs...)
}

// recorded returns the record of an attachment, as far as there is one, and its
// ports: only the record knows those that were chosen.
func (n *Network) recorded(want Expectation) (state.Endpoint, []model.PortMapping, error) {
	rec, err := n.c.endpoints.LoadEndpoint(want.ID.Network, want.ID.ContainerID, want.ID.IfName)
	switch {
	case state.Missing(err):
		rec = state.Endpoint{Network: want.ID.Network, ContainerID: want.ID.ContainerID, IfName: want.ID.IfName, HostName: want.ID.HostName(), Backend: string(n.def.Config.Backend)}
		return rec, slices.DeleteFunc(slices.Clone(want.Ports), func(m model.PortMapping) bool { return m.HostPort == 0 }), nil
	case err != nil:
		return rec, nil, err
	}
	return rec, plan.PortsOf(rec), nil
}

// adopt turns the plan into one for a link of the reference bridge plugin: it
// carries no owner, has IPv6, there are no rules of ours for it, and in its
// result a route over the subnet's gateway names none.
func adopt(p *plan.Attachment, want Expectation) {
	p.Link.HostName, p.Link.Owner, p.Link.IPv6 = want.HostName, "", host.IPv6Keep
	p.Rules = false
	for i, r := range p.Link.Routes {
		if !r.Gateway.IsValid() {
			p.Link.Routes[i].Gateway = want.Addressing.Gateway(r.Dst.Addr().Is6())
		}
	}
}

// reach has the bridge compared with how the host gets to the link's addresses.
func reach(p *plan.Attachment) {
	if len(p.Bridge.Gateways) == 0 {
		return
	}
	for _, a := range p.Link.Addrs {
		p.Bridge.Reach = append(p.Bridge.Reach, a.Addr())
	}
}

// VerifyButForwarding is Verify of an endpoint, but for the host's forwarding.
func (e *Endpoint) VerifyButForwarding(ctx context.Context) (err error) {
	leave, err := e.n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	want := e.expectation()
	want.butForwarding = true
	return e.verifyAs(ctx, want)
}

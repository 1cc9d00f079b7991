package libnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/state"
)

// Expectation is what an attachment should be.
type Expectation struct {
	ID         ID
	Netns      string // path of the container's network namespace
	Addressing Addressing
	// MAC of the container's interface; empty: not compared.
	MAC string
	// MTU of the container's interface in bytes; 0: not compared.
	MTU int
	// HostName is the host's end of the link; empty: the one of the ID. Another
	// one tells of an attachment that the reference bridge plugin made.
	HostName string
	// Ports are the published ones, for an attachment that has no record.
	Ports []PortMapping

	butForwarding bool // which Diagnose tells of once for all
}

// adopt turns the plan into one for a link of the reference bridge plugin: it
// carries no owner, has IPv6, there are no rules of ours for it, and in its
// result a route over the subnet's gateway names none.
func (p *plan) adopt(want Expectation) {
	p.link.HostName, p.link.Owner, p.link.IPv6 = want.HostName, "", kernel.IPv6Keep
	p.rules = false
	for i, r := range p.link.Routes {
		if !r.Gateway.IsValid() {
			p.link.Routes[i].Gateway = want.Addressing.gateway(r.Dst.Addr().Is6())
		}
	}
}

// Verify changes nothing and says what differs from want, each difference by
// name, joined; the error is then ErrDifferent. It needs no record.
func (n *Network) Verify(ctx context.Context, want Expectation) (err error) {
	leave, err := n.c.enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	var mac net.HardwareAddr
	if want.MAC != "" {
		var err error
		if mac, err = ParseMAC("mac", want.MAC); err != nil {
			return err
		}
	}
	rec, ports := n.recorded(want)
	p, err := n.plan(want.ID, want.Addressing, mac, ports)
	if err != nil {
		return err
	}
	if want.HostName != "" && want.HostName != p.link.HostName {
		p.adopt(want)
	}
	ns, err := openNetns(want.Netns)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	p.link.Netns, p.link.MTU, p.bridge.MTU = ns, want.MTU, 0
	if want.butForwarding {
		p.bridge.ForwardIPv4, p.bridge.ForwardIPv6 = false, false
	}
	errs := []error{n.c.bridges.VerifyBridge(ctx, p.bridge), n.c.links.Verify(ctx, p.link)}
	errs = append(errs, n.verifyTunnel(ctx))
	if p.rules {
		network, err := n.verifiable(ctx, rec)
		if err == nil {
			err = n.c.verifyRules(ctx, rec, network, p.endpoint)
		}
		errs = append(errs, err)
	}
	if n.ipam != nil {
		errs = append(errs, n.ipam.Verify(ctx, want.ID, want.Addressing.addrs()))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %s %s in network %q: %w", ErrDifferent, want.ID.ContainerID, want.ID.IfName, n.name, err)
	}
	return nil
}

// recorded returns the record of an attachment, as far as there is one, and its
// ports: only the record knows those that were chosen.
func (n *Network) recorded(want Expectation) (state.Endpoint, []PortMapping) {
	rec, err := n.c.endpoints.LoadEndpoint(want.ID.Network, want.ID.ContainerID, want.ID.IfName)
	if err != nil {
		rec = state.Endpoint{Network: want.ID.Network, ContainerID: want.ID.ContainerID, IfName: want.ID.IfName, HostName: want.ID.HostName(), Backend: string(n.config.Backend)}
		return rec, slices.DeleteFunc(slices.Clone(want.Ports), func(m PortMapping) bool { return m.HostPort == 0 })
	}
	return rec, portsOf(rec)
}

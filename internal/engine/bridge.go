package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/unwind"
)

// resolveMTU turns AutoMTU into a number.
func (n *Network) resolveMTU() error {
	if !n.def.Config.AutoMTU || n.def.Config.MTU != 0 {
		return nil
	}
	return n.span().resolveMTU(n)
}

// resolveUplinkMTU is resolveMTU by the host's default route.
func (n *Network) resolveUplinkMTU() error {
	mtu, err := n.c.bridges.UplinkMTU()
	if errors.Is(err, netlink.ErrNotFound) {
		return nil // no route out: the kernel's default
	}
	if err == nil && (mtu < 68 || mtu > 65535) {
		err = model.BadConfig("mtu", "auto", "the host's default route has MTU "+strconv.Itoa(mtu)+"; give a number from 68 to 65535")
	}
	n.def.Config.MTU = mtu
	return err
}

// bridgeUse is what a bridge is made for.
type bridgeUse struct {
	addressing model.Addressing
	by         model.ID // the endpoint; zero: the network as a whole
	named      bool
}

func (e *Endpoint) bridgeUse() bridgeUse {
	return bridgeUse{addressing: e.Addressing(), by: e.ID(), named: e.rec.Names != nil}
}

// ensureBridge makes the network's bridge as its use needs it, pushing how to undo what
// it made.
func (n *Network) ensureBridge(ctx context.Context, use bridgeUse, undo *unwind.Stack) (link.BridgeState, error) {
	if err := n.resolveMTU(); err != nil {
		return link.BridgeState{}, err
	}
	want := n.Plan().Bridge(use.addressing)
	want.Named = use.named
	// All gateways of the pool, of whose subnets the next endpoint may get one:
	// one does not stand in another's place.
	pool := n.Plan().Bridge(n.ownGateways())
	want.Gateways, want.Subnets = union(want.Gateways, pool.Gateways), union(want.Subnets, pool.Subnets)
	want.Needed = func(have []netip.Prefix) ([]netip.Prefix, error) { return n.needed(have, use.by) }
	br, err := n.c.bridges.EnsureBridge(ctx, want)
	if errors.Is(err, netlink.ErrUnsupported) {
		err = n.unsupported(err)
	}
	if err != nil {
		return br, err
	}
	if br.Created {
		undo.Push(func() error { return n.c.book().RemoveBridge(context.WithoutCancel(ctx), n.Plan()) })
		err = n.c.standby.NoteBridge(want.Name, br.MAC)
	}
	return br, err
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
		if rec.Bridge != n.def.Config.Bridge {
			continue
		}
		o, err := n.c.networkOf(rec)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		endpoints, err := n.c.endpoints.Endpoints(o.def.Name)
		errs = append(errs, err)
		for _, e := range endpoints {
			if e.Phase != state.PhaseReady && e.Netns != "" && life.IDOf(e) != but && !n.c.dead(e) {
				return have, nil
			}
			all = append(all, o.Plan().Bridge((&Endpoint{n: o, rec: e}).Addressing()).Gateways...)
		}
	}
	if err := errors.Join(errs...); err != nil && !errors.Is(err, state.ErrCorrupt) { // what is corrupt is set aside
		return nil, err
	}
	return all, nil
}

// retireGateways takes away gateways of subnets that the network had before: those that no
// attachment on its bridge uses and no configuration names. Those of a network that an agent
// keeps are Connect's. gone is the attachment that was removed; nil: any may be. After one of an
// overlay network they stay until GC or a repair: to read the record of a thousand hosts takes as
// long as half a DEL.
func (n *Network) retireGateways(ctx context.Context, gone *state.Endpoint) error {
	if gone != nil && (len(gone.Addresses) == 0 || n.def.Driver == plan.DriverOverlay) {
		return nil
	}
	now, err := n.c.Network(n.def.Name) // an ADD may have come with another configuration
	if errors.Is(err, model.ErrNotFound) {
		return nil
	}
	if err != nil || now.def.Config.Tunnel.Agent {
		return err
	}
	b := now.Plan().Bridge(now.ownGateways())
	if len(b.Gateways) == 0 { // of another IPAM nothing is known
		return nil
	}
	if gone != nil && (gone.Bridge != b.Name || namedBy(b, *gone)) {
		return nil
	}
	b.Needed = func(have []netip.Prefix) ([]netip.Prefix, error) { return n.c.gatewaysOn(ctx, b.Name, have) }
	return n.c.bridges.RetireGateways(ctx, b)
}

// namedBy says that a bridge is to have the gateways of an attachment.
func namedBy(b link.Bridge, rec state.Endpoint) bool {
	return !slices.ContainsFunc(plan.AddressingOf(rec).Addresses, func(a model.Address) bool {
		return a.Gateway.IsValid() && !slices.Contains(b.Gateways, a.OnBridge())
	})
}

// gatewaysOn are those that attachments on a bridge, or networks, have; all of have where that
// cannot be told: one is being made, or has no record.
func (c *Controller) gatewaysOn(ctx context.Context, bridge string, have []netip.Prefix) ([]netip.Prefix, error) {
	links, err := c.links.List(ctx, model.OwnerPrefix)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if id, ok := model.ParseOwner(l.Owner); ok && l.Master == bridge {
			if _, err := c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName); err != nil {
				return have, nil
			}
		}
	}
	names, err := c.endpoints.EndpointNetworks()
	if err != nil {
		return nil, err
	}
	var all []netip.Prefix
	for _, name := range names {
		recs, err := c.endpoints.Endpoints(name)
		if err != nil {
			return have, nil
		}
		for _, rec := range recs {
			switch {
			case rec.Bridge != bridge || rec.Phase != state.PhaseReady && c.dead(rec):
				continue
			case rec.Phase != state.PhaseReady:
				return have, nil
			}
			for _, a := range plan.AddressingOf(rec).Addresses {
				if a.Gateway.IsValid() {
					all = append(all, a.OnBridge())
				}
			}
		}
	}
	networks, err := c.Networks(ctx)
	if err != nil {
		return have, nil
	}
	for _, o := range networks {
		if o.def.Config.Bridge == bridge {
			all = append(all, o.Plan().Bridge(o.ownGateways()).Gateways...)
		}
	}
	return all, nil
}

// unsupported names the key of the configuration that asks for more than the
// kernel's plainest bridge, if there is one.
func (n *Network) unsupported(err error) error {
	switch c := n.def.Config; {
	case c.VLAN > 0:
		return &model.UnsupportedError{Key: "vlan", Value: strconv.Itoa(c.VLAN), Err: err}
	case len(c.VLANTrunk) > 0:
		return &model.UnsupportedError{Key: "vlanTrunk", Value: fmt.Sprintf("%d-%d", c.VLANTrunk[0].Min, c.VLANTrunk[0].Max), Err: err}
	}
	return err
}

// dissolve removes what belongs to the network as a whole, but what an agent
// keeps. It is state.ErrInUse while another process is at work on an endpoint.
func (n *Network) dissolve(ctx context.Context) error {
	return n.c.endpoints.Alone(ctx, n.def.Name, func() error { return n.dissolveAlone(ctx) })
}

func (n *Network) dissolveAlone(ctx context.Context) error {
	if kept, err := n.agentKeeps(); kept || err != nil {
		return errors.Join(err, n.c.book().RemoveBridge(ctx, n.Plan()), n.c.networks.DeleteNetwork(n.def.Name))
	}
	return errors.Join(
		n.span().remove(ctx, n),
		n.c.book().Clear(ctx, n.Plan()),
		n.c.networks.DeleteNetwork(n.def.Name),
		n.releaseSubnets(ctx),
		n.c.tidyNames(ctx),
	)
}

// Dissolve removes what belongs to the network as a whole, but what an agent
// keeps. It is state.ErrInUse while another process is at work on an endpoint.
func (n *Network) Dissolve(ctx context.Context) (err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	return n.dissolve(ctx)
}

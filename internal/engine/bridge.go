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
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/unwind"
)

// resolveMTU turns AutoMTU into a number, by the host's default route.
func (n *Network) resolveMTU() error {
	if !n.def.Config.AutoMTU || n.def.Config.MTU != 0 {
		return nil
	}
	if n.def.Config.Tunnel.Used() {
		return n.resolveTunnelMTU()
	}
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
		n.removeTunnel(ctx),
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

package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/naming"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/sentinel"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/unwind"
)

// links makes the bridge and the tunnel of a network with attachments again if
// they are gone, and switches forwarding on. Their rules are in place.
func (m *mender) links(ctx context.Context, n *Network) {
	has, err := m.c.endpoints.HasReady(n.def.Name)
	if err != nil || !has && !n.def.Config.Tunnel.Agent {
		m.fail(n, err)
		return
	}
	if has {
		m.fail(n, m.bridge(ctx, n))
		m.fail(n, n.retireGateways(ctx, nil))
	}
	m.fail(n, m.tunnel(ctx, n))
	if has {
		v4, v6 := n.forwards()
		m.fail(n, m.c.bridges.Forward(ctx, v4, v6))
	}
}

// tunnel mends the tunnel of a network by its record, while no ADD is at work: one with
// other hosts makes the tunnel before it writes them into the record.
func (m *mender) tunnel(ctx context.Context, n *Network) error {
	if n.span().verify(ctx, n) == nil {
		return nil
	}
	return m.c.endpoints.Quiet(ctx, n.def.Name, func() error {
		n, err := m.c.Network(n.def.Name)
		if errors.Is(err, model.ErrNotFound) { // removed meanwhile
			return nil
		}
		if err != nil || n.span().verify(ctx, n) == nil {
			return err
		}
		var undo unwind.Stack // what could be made stays
		err = n.span().ensure(ctx, n, &undo)
		if err == nil && len(undo) > 0 {
			m.done.Tunnels = append(m.done.Tunnels, n.Plan().TunnelName())
		}
		return err
	})
}

// allNames has the kernel answer for all attachments that it is to answer for.
func (m *mender) allNames(ctx context.Context, networks []*Network) error {
	m.busy = false
	var errs []error
	for _, n := range networks {
		if err := m.names(ctx, n); err != nil {
			errs = append(errs, fmt.Errorf("network %q: %w", n.def.Name, err))
		}
	}
	if len(errs) > 0 || m.busy || ctx.Err() != nil {
		return errors.Join(append(errs, ctx.Err())...)
	}
	return m.c.names.MarkWhole(ctx)
}

// nameOthers is allNames after an ADD found that names were lost. What cannot be put back of
// others does not concern that one, and where another call is at it already, that is enough.
func (c *Controller) nameOthers(ctx context.Context) {
	release, ok, err := c.sandboxes.TryRepair()
	if err != nil || !ok {
		return
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, healBudget)
	defer cancel()
	networks, err := c.Networks(ctx)
	if err != nil {
		return
	}
	m := mender{c: c}
	_ = m.allNames(ctx, networks)
}

// unnamed says that names of the network were lost with all that the kernel had of names.
func (n *Network) unnamed() error {
	whole, err := n.c.names.Whole()
	if whole || err != nil {
		return err
	}
	has, err := n.c.endpoints.AnyEndpoint(n.def.Name, func(rec state.Endpoint) bool {
		return rec.Phase == state.PhaseReady && naming.ByKernel(&rec) && !n.c.dead(rec)
	})
	if has && err == nil {
		err = errNamesLost
	}
	return err
}

// errNamesLost says that the map of names in the kernel was lost, and is not whole again.
var errNamesLost error = &sentinel.Error{Text: "names in the kernel were lost"}

// names has the kernel answer for the attachments of a network that it is to answer for, and
// puts back their fast path.
func (m *mender) names(ctx context.Context, n *Network) error {
	recs, err := m.c.endpoints.Endpoints(n.def.Name)
	errs := []error{err}
	for _, rec := range recs {
		if rec.Phase != state.PhaseReady || !naming.ByKernel(&rec) && rec.Fast == 0 || ctx.Err() != nil {
			continue
		}
		errs = append(errs, m.own(m.c.endpoints, rec, func(rec state.Endpoint) error {
			_, fastErr := m.c.shortcuts.Mend(ctx, &rec, n.fastTunnel())
			mended, err := m.c.names.Mend(ctx, &rec)
			err = errors.Join(fastErr, err)
			if mended {
				m.done.Named = append(m.done.Named, life.IDOf(rec))
			}
			return err
		}))
	}
	return errors.Join(errs...)
}

// forwards says for which families packets of the network have to be forwarded.
// Which ones its endpoints have, the pool tells; of another IPAM nothing is known.
func (n *Network) forwards() (v4, v6 bool) {
	if !n.def.Config.HasGateway() || n.def.Config.IsInternal() {
		return false, false
	}
	return n.ownGateways().Families()
}

func (m *mender) bridge(ctx context.Context, n *Network) error {
	err := m.c.bridges.VerifyBridge(ctx, link.Bridge{Name: n.def.Config.Bridge})
	if err == nil {
		stray, err := n.strays(ctx)
		if err != nil {
			return err
		}
		if len(stray) == 0 && n.bridgeInPlace(ctx) == nil {
			return m.localhost(n)
		}
	}
	if errors.Is(err, link.ErrNotBridge) {
		return err
	}
	fresh := errors.Is(err, netlink.ErrNotFound)
	plugged, _, err := m.c.reconnect(ctx, n, fresh, model.ID{})
	if fresh && m.c.bridges.VerifyBridge(ctx, link.Bridge{Name: n.def.Config.Bridge}) == nil { // not if all its attachments are dead
		m.done.Bridges = append(m.done.Bridges, n.def.Config.Bridge)
	}
	m.done.Plugged = append(m.done.Plugged, plugged...)
	return err
}

// bridgeInPlace says what of the network's bridge is missing that an attachment needs:
// the first one that is alive, as that takes as long with many.
func (n *Network) bridgeInPlace(ctx context.Context) error {
	want := link.Bridge{Name: n.def.Config.Bridge, AllRoutes: true}
	var planErr error
	_, err := n.c.endpoints.AnyEndpoint(n.def.Name, func(rec state.Endpoint) bool {
		if rec.Phase != state.PhaseReady || rec.Bridge != n.def.Config.Bridge || n.c.dead(rec) {
			return false
		}
		var p plan.Attachment
		p, planErr = (&Endpoint{n: n, rec: rec}).plan()
		want.Gateways, want.RouteLocalnet = p.Bridge.Gateways, p.Localnet
		want.ForwardIPv4, want.ForwardIPv6 = p.Bridge.ForwardIPv4, p.Bridge.ForwardIPv6
		return true
	})
	if err := errors.Join(err, planErr); err != nil {
		return err
	}
	return n.c.bridges.VerifyBridge(ctx, want)
}

// localhost switches route_localnet of a bridge that is there on again, if one of the
// network's attachments has a port that 127.0.0.0/8 leads to by it.
func (m *mender) localhost(n *Network) error {
	on, err := m.c.published.RouteLocalnet(n.def.Config.Bridge)
	if on || err != nil {
		return err
	}
	recs, err := m.c.endpoints.Endpoints(n.def.Name)
	errs := []error{err}
	for _, rec := range recs {
		if rec.Bridge != n.def.Config.Bridge || len(rec.Ports) == 0 {
			continue
		}
		errs = append(errs, m.own(m.c.endpoints, rec, func(rec state.Endpoint) error {
			e := &Endpoint{n: n, rec: rec}
			p, err := e.plan()
			if err != nil {
				return err
			}
			return e.openLocalhost(p)
		}))
	}
	return errors.Join(errs...)
}

// strays are the host's ends of the network's links that are ports of no bridge.
func (n *Network) strays(ctx context.Context) ([]link.Owned, error) {
	return n.c.links.Strays(ctx, model.NetworkOwner(n.def.Name))
}

// reconnect makes the bridge of a network hold the gateways of all attachments
// that are recorded for it, whatever their network, and their links its ports
// again: those of a bridge that is deleted stay, without a master. A bridge that
// was made anew, fresh, gets the MAC that containers know their gateway by.
// The attachment but is left alone; it may be zero. A failure is in the error, joined, and
// keeps nothing else from being mended.
func (c *Controller) reconnect(ctx context.Context, n *Network, fresh bool, but model.ID) (plugged []model.ID, mac net.HardwareAddr, err error) {
	networks, err := c.Networks(ctx)
	errs := []error{err}
	m := mender{c: c}
	for _, other := range networks {
		if other.def.Config.Bridge != n.def.Config.Bridge {
			continue
		}
		recs, err := c.endpoints.Endpoints(other.def.Name)
		errs = append(errs, err)
		recs = slices.DeleteFunc(recs, func(rec state.Endpoint) bool {
			return rec.Phase != state.PhaseReady || life.IDOf(rec) == but || rec.Bridge != n.def.Config.Bridge || c.dead(rec)
		})
		if len(recs) == 0 {
			continue
		}
		if fresh && mac == nil {
			mac = bridgeMAC(recs)
		}
		br, err := other.rebridge(ctx, recs, mac)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, rec := range recs {
			err := m.own(c.endpoints, rec, func(rec state.Endpoint) error {
				done, err := other.replug(ctx, rec, br)
				if done {
					plugged = append(plugged, life.IDOf(rec))
				}
				return err
			})
			errs = append(errs, err)
		}
	}
	errs = append(errs, m.reopen(n.def.Config.Bridge, plugged))
	return plugged, mac, errors.Join(errs...)
}

// reopen has 127.0.0.0/8 lead again to what others than bridge-ln have published on
// a bridge, and lets those of the attachments that were plugged anew reach
// themselves by it.
func (m *mender) reopen(bridge string, plugged []model.ID) error {
	recs, err := m.c.Ports().PublicationRecords()
	errs := []error{err}
	for _, rec := range recs {
		if rec.Bridge != bridge {
			continue
		}
		errs = append(errs, m.own(m.c.publications(), rec, func(rec state.Endpoint) error {
			p, err := m.c.Ports().PublisherOf(rec)
			if err != nil {
				return err
			}
			ours := func(id model.ID) bool { return id.ContainerID == rec.ContainerID && id.IfName == rec.IfName }
			if slices.ContainsFunc(plugged, ours) {
				err = p.LetHairpin(rec)
			}
			return errors.Join(err, p.OpenLocalhost(rec))
		}))
	}
	return errors.Join(errs...)
}

// bridgeMAC is the MAC that the bridge had for these attachments; nil: unknown.
func bridgeMAC(recs []state.Endpoint) net.HardwareAddr {
	for _, rec := range recs {
		for _, l := range rec.Links {
			if mac, err := net.ParseMAC(l.MAC); l.Name == rec.Bridge && err == nil {
				return mac
			}
		}
	}
	return nil
}

// rebridge makes the bridge as all these attachments want it.
func (n *Network) rebridge(ctx context.Context, recs []state.Endpoint, mac net.HardwareAddr) (link.BridgeState, error) {
	if err := n.resolveMTU(); err != nil {
		return link.BridgeState{}, err
	}
	var all model.Addressing
	for _, rec := range recs {
		all.Addresses = append(all.Addresses, (&Endpoint{n: n, rec: rec}).Addressing().Addresses...)
	}
	if n.def.Config.Tunnel.Agent {
		all.Addresses = append(all.Addresses, n.ownGateways().Addresses...)
	}
	want := n.Plan().Bridge(all)
	gateways := want.Gateways
	want.Gateways, want.MAC = nil, mac
	want.Named = slices.ContainsFunc(recs, func(rec state.Endpoint) bool { return rec.Names != nil })
	for _, g := range gateways { // each once, in order: the first IPv4 address is the primary one
		if !slices.Contains(want.Gateways, g) {
			want.Gateways = append(want.Gateways, g)
		}
	}
	want.Needed = func(have []netip.Prefix) ([]netip.Prefix, error) { return n.needed(have, model.ID{}) }
	return n.c.bridges.EnsureBridge(ctx, want)
}

func (n *Network) replug(ctx context.Context, rec state.Endpoint, br link.BridgeState) (bool, error) {
	e := &Endpoint{n: n, rec: rec}
	p, err := e.plan()
	if err != nil {
		return false, err
	}
	if err := e.openLocalhost(p); err != nil { // first: a stray link is looked for again, this is not
		return false, fmt.Errorf("network %q: %w", n.def.Name, err)
	}
	p.Link.State = br
	done, err := n.c.links.Plug(ctx, p.Link)
	if errors.Is(err, netlink.ErrNotFound) {
		return false, nil // the container is gone, or its link: that is for DEL, and CHECK tells
	}
	if err != nil {
		err = fmt.Errorf("network %q: %w", n.def.Name, err)
	}
	return done, err
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// healBudget bounds how long Status puts back what is missing. The next one
// goes on.
const healBudget = 5 * time.Second

// Status says why no endpoint could be made now; nil if one could. It puts back all that
// any endpoint would put back: the rules of all networks, a bridge that is gone, with its
// address and ports, a tunnel, forwarding. If that does not succeed for endpoints there
// are already, the error is ErrLimited: these may be cut off, a new one is not. A full
// pool is no error: to have a runtime take its host out of service would stop all that
// runs there.
func (n *Network) Status(ctx context.Context) (err error) {
	n.c.steps.At("status")
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	errs := []error{n.bridgeStatus(ctx), n.span().status(n), n.subnetStatus()}
	if err := n.c.sandboxes.Writable(); err != nil {
		errs = append(errs, fmt.Errorf("state directory: %w", err))
	}
	if n.def.Config.NeedsRules() {
		errs = append(errs, n.c.rules.Available(n.def.Config.Backend))
	}
	switch {
	case n.auto != nil:
		errs = append(errs, n.auto.Status(ctx))
	case n.ipam != nil:
		errs = append(errs, address.IgnoreFull(n.ipam.Status(ctx)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	healErr := errors.Join(n.closeUntold(ctx), n.heal(ctx))
	own, others := n.c.book().Unrecorded(ctx, n.def.Name)
	if err := errors.Join(healErr, own); err != nil {
		errs = append(errs, fmt.Errorf("%w: %w", model.ErrLimited, err))
	}
	if others != nil {
		errs = append(errs, fmt.Errorf("%w: %w", model.ErrMaybeOpen, others))
	}
	return errors.Join(errs...)
}

// closeUntold is that of the network's guard. Where an attachment is recorded, heal does it.
func (n *Network) closeUntold(ctx context.Context) error {
	if !n.def.Config.NeedsRules() {
		return nil
	}
	has, err := n.c.endpoints.HasReady(n.def.Name)
	if has || err != nil {
		return err
	}
	at := n.own()
	at.def.Config.Backend = n.backend()
	return n.c.book().CloseUntold(ctx, at.Plan())
}

// bridgeStatus says whether the bridge's name is held by something else, and whether a
// setting under /proc/sys that every endpoint needs is wrong and cannot be written. A
// bridge that is not there yet is no obstacle.
func (n *Network) bridgeStatus(ctx context.Context) error {
	err := n.c.bridges.VerifyBridge(ctx, link.Bridge{Name: n.def.Config.Bridge})
	if errors.Is(err, link.ErrNotBridge) {
		return err
	}
	b := n.Plan().Bridge(n.ownGateways())
	b.ForwardIPv4, b.ForwardIPv6 = n.forwards()
	return n.c.bridges.CanSetUp(b)
}

// CanAnswer says why the kernel cannot answer for names of containers; nil: it can.
func (c *Controller) CanAnswer(ctx context.Context) (err error) {
	leave, err := c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	return c.names.Available(ctx)
}

// heal puts back what is missing, and says what is missing still. Where another
// call is at it already, that one is enough.
func (n *Network) heal(ctx context.Context) error {
	return n.healWhat(ctx, n.lacks)
}

// Heal puts back what is missing that the network's attachments need, as Status does, and says
// what is missing still. The tunnel is left to Connect.
func (n *Network) Heal(ctx context.Context) (err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	has, err := n.c.endpoints.HasReady(n.def.Name)
	if err != nil || !has {
		return err
	}
	own := n.own()
	return own.healWhat(ctx, own.attachmentsLack)
}

// healWhat is heal of what lacks tells.
func (n *Network) healWhat(ctx context.Context, missing func(context.Context) error) error {
	if missing(ctx) == nil {
		return nil
	}
	release, ok, err := n.c.sandboxes.TryRepair()
	if err != nil || !ok {
		return err
	}
	defer release()
	bounded, cancel := context.WithTimeout(ctx, healBudget)
	defer cancel()
	_, mendErr := n.c.Mend(bounded, PutBack)
	lacks := missing(ctx)
	switch {
	case lacks == nil:
		return nil // what others lack is for their Status
	case bounded.Err() != nil:
		return fmt.Errorf("not all could be put back in %v; lnctl repair takes the time it needs: %w", healBudget, lacks)
	}
	return errors.Join(lacks, mendErr)
}

// putLostRulesBack puts rules back that are missing, as Publish would. A failure to do so keeps no
// port from being published.
func (p *Publisher) putLostRulesBack(ctx context.Context) {
	if p.c.tablesLost(ctx) == nil && p.c.sample(ctx, p.c.publications(), p.network, p.c.Ports().VerifyPublication) == nil {
		return
	}
	release, ok, err := p.c.sandboxes.TryRepair()
	if err != nil || !ok {
		return
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, healBudget)
	defer cancel()
	p.c.mendRules(ctx)
}

// lacks says what of the network is gone that its endpoints need.
func (n *Network) lacks(ctx context.Context) error {
	if err := n.c.services.Lost(ctx); err != nil {
		return err
	}
	has, err := n.c.endpoints.HasReady(n.def.Name)
	if err != nil {
		return err
	}
	if !has {
		errs := []error{n.c.tablesLost(ctx)}
		if n.def.Config.Tunnel.Agent { // it is there before the first endpoint
			errs = append(errs, n.span().verify(ctx, n))
		}
		return errors.Join(errs...)
	}
	return errors.Join(n.span().verify(ctx, n), n.attachmentsLack(ctx))
}

// attachmentsLack says what is gone, but for the tunnel, that the network's endpoints need.
func (n *Network) attachmentsLack(ctx context.Context) error {
	errs := []error{n.bridgeInPlace(ctx), n.unplugged(ctx), n.unnamed()}
	if n.def.Config.NeedsRules() && n.c.rules.Of(string(n.def.Config.Backend)) == n.c.rules.NFTables {
		errs = append(errs, n.c.rules.Intact(ctx, n.def.Config.Backend, n.c.book().InPlace(ctx, n.Plan()))) // of the tables, too
	} else {
		errs = append(errs, n.c.tablesLost(ctx))
	}
	errs = append(errs, n.c.sample(ctx, n.c.endpoints, n.def.Name, n.sampled))
	return errors.Join(append(errs, n.forwarding())...)
}

// tablesLost says that our tables of nf_tables are gone, though an attachment or a
// publication has rules there: of whatever network, as a flush takes those of all.
// The records are read only where the tables are gone.
func (c *Controller) tablesLost(ctx context.Context) error {
	missing := c.rules.Intact(ctx, model.BackendNFTables, firewall.Network{})
	if missing == nil {
		return nil
	}
	for _, dir := range []endpointRecords{c.endpoints, c.publications()} {
		names, err := dir.EndpointNetworks()
		if err != nil {
			return err
		}
		for _, name := range names {
			ruled, err := dir.AnyEndpoint(name, func(rec state.Endpoint) bool {
				return rec.Rules && rec.Phase == state.PhaseReady && c.rules.Of(rec.Backend) == c.rules.NFTables
			})
			if err != nil {
				return err
			}
			if ruled {
				return missing
			}
		}
	}
	if guarded, err := c.book().Any(ctx); err != nil || !guarded {
		return err
	}
	return missing
}

// sample looks at the rules of two attachments in iptables, or of two publications,
// by verify: to look at those of all takes too many processes, and a flush takes
// all. They are those that Mend comes to last, so that it is called again where its
// time was not enough: the last one, and the last one with ports, which has rules in
// more tables. One that another call is at work on says nothing.
func (c *Controller) sample(ctx context.Context, dir endpointRecords, network string, verify func(context.Context, state.Endpoint) error) error {
	if !c.rules.IPTables.Used() {
		return nil
	}
	recs, err := dir.Endpoints(network)
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // the others say enough
	}
	errs := []error{err}
	m := mender{c: c}
	last, lastWithPorts := false, false
	for _, rec := range slices.Backward(recs) {
		ports := len(rec.Ports) > 0
		if lastWithPorts || last && !ports {
			continue
		}
		if rec.Phase != state.PhaseReady || !rec.Rules || c.rules.Of(rec.Backend) != c.rules.IPTables || c.dead(rec) {
			continue
		}
		last, lastWithPorts = true, ports
		errs = append(errs, m.own(dir, rec, func(rec state.Endpoint) error { return verify(ctx, rec) }))
	}
	return errors.Join(errs...)
}

// sampled is verifyRules by a record. An attachment on another bridge than the
// network has now says nothing.
func (n *Network) sampled(ctx context.Context, rec state.Endpoint) error {
	if rec.Bridge != n.def.Config.Bridge {
		return nil
	}
	return (&Endpoint{n: n, rec: rec}).verifyRules(ctx)
}

// unplugged names links of the network that are ports of no bridge.
func (n *Network) unplugged(ctx context.Context) error {
	stray, err := n.strays(ctx)
	switch {
	case err != nil || len(stray) == 0:
		return err
	case len(stray) == 1:
		return fmt.Errorf("link %s is no port of bridge %s", stray[0].Name, n.def.Config.Bridge)
	}
	return fmt.Errorf("%d links are no ports of bridge %s, one is %s", len(stray), n.def.Config.Bridge, stray[0].Name)
}

// forwarding says whether the host forwards what the network's endpoints send.
func (n *Network) forwarding() error {
	want4, want6 := n.forwards()
	if !want4 && !want6 {
		return nil
	}
	v4, v6, err := n.c.bridges.Forwarding()
	if err != nil {
		return err
	}
	var errs []error
	if want4 && !v4 {
		errs = append(errs, errors.New("net.ipv4.ip_forward is 0: set it to 1"))
	}
	if want6 && !v6 {
		errs = append(errs, errors.New("net.ipv6.conf.all.forwarding is 0: set it to 1"))
	}
	return errors.Join(errs...)
}

// Unplugged names links of the network that are ports of no bridge.
func (n *Network) Unplugged(ctx context.Context) (err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	return n.unplugged(ctx)
}

package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/policy"
	"github.com/libnet-cni/libnet/internal/state"
)

// leaveGuard weakens the guard of an endpoint's bridge, after its link is gone, to
// what the others on it ask for. Without others it stays, as the bridge does.
func (n *Network) leaveGuard(ctx context.Context, rec state.Endpoint) error {
	if rec.Bridge == "" {
		return nil
	}
	if rec.Phase == state.PhaseIntent || rec.Phase == state.PhaseLeased {
		return n.dropGuard(ctx, rec) // the bridge may never have been made
	}
	return n.leaveShared(ctx, rec)
}

// leaveShared is leaveGuard for a bridge that is there.
func (n *Network) leaveShared(ctx context.Context, rec state.Endpoint) error {
	b, err := n.c.guards.LockBridge(ctx, rec.Bridge, unix.LOCK_SH, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	mine := state.Guard{Network: n.name, ID: rec.Guard, Backend: cmp.Or(rec.Backend, string(n.config.Backend))}
	// An ADD that was killed may have left a guard of which the index knows nothing.
	unsaid := rec.Phase != state.PhaseReady && b.Len() > 0 && !b.Has(mine)
	alone := b.Len() <= 1
	b.Unlock()
	if alone && !unsaid {
		return nil
	}
	b, err = n.c.guards.LockBridge(ctx, rec.Bridge, unix.LOCK_EX, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Unlock()
	left, stale, err := n.c.weedGuards(b, rec.Bridge, idOf(rec))
	if unsaid && !b.Has(mine) {
		stale = append(stale, mine)
	}
	if err != nil || len(stale) == 0 || len(left) == 0 {
		return err
	}
	if covered, err := n.c.covers(ctx, left, rec.Bridge, idOf(rec)); err != nil || !covered {
		return err
	}
	return n.c.weaken(ctx, b, rec.Bridge, left, stale)
}

// covers says that the guard of a bridge may become what left asks for: every other
// attachment than gone that lives on the bridge came with a guard of left. Of one
// without a record that can be read, or whose guard is lost, it is unknown what it
// asked for. It lists all links, and reads the records of those on the bridge, so it
// is asked only before a guard is weakened.
func (c *Controller) covers(ctx context.Context, left []state.Guard, bridge string, gone model.ID) (bool, error) {
	links, err := c.links.List(ctx, model.OwnerPrefix)
	if err != nil {
		return false, err
	}
	ids := map[string]bool{policy.ID(firewall.Network{}): true} // asks for nothing
	for _, g := range left {
		ids[g.ID] = true
	}
	for _, o := range links {
		id, _ := model.ParseOwner(o.Owner)
		if o.Bridge || id == gone || o.Master != bridge && o.Master != "" {
			continue
		}
		rec, err := c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
		switch {
		case missing(err):
			return false, nil
		case err != nil:
			return false, err
		case rec.Bridge != bridge || ids[rec.Guard]:
		case rec.Guard != "" || !slices.ContainsFunc(left, func(g state.Guard) bool { return g.Network == rec.Network }):
			return false, nil
		}
	}
	return true, nil
}

// lostGuards are those of networks with a link on the bridge, by their records, as
// far as known lacks them: what an attachment without a record came with, unless its
// network was edited since.
func (c *Controller) lostGuards(ctx context.Context, bridge string, known []state.Guard) (lost []state.Guard, err error) {
	links, err := c.links.List(ctx, model.OwnerPrefix)
	if err != nil {
		return nil, err
	}
	for _, o := range links {
		id, ok := model.ParseOwner(o.Owner)
		if !ok || o.Bridge || o.Master != bridge {
			continue
		}
		rec, err := c.networks.LoadNetwork(id.Network)
		if missing(err) || err == nil && rec.Bridge != bridge {
			continue
		}
		if err != nil {
			return nil, err
		}
		g, err := c.guardOf(rec)
		if err != nil {
			return nil, err
		}
		same := func(o state.Guard) bool { return o.Network == g.Network && o.ID == g.ID }
		if !slices.ContainsFunc(known, same) && !slices.ContainsFunc(lost, same) {
			lost = append(lost, g)
		}
	}
	return lost, nil
}

// weaken makes the guard of a bridge what left asks for, and takes stale out of
// its index.
func (c *Controller) weaken(ctx context.Context, b bridgeGuards, bridge string, left, stale []state.Guard) error {
	joined, err := joinGuards(bridgeRules(bridge), left)
	if err != nil {
		return err
	}
	has := func(all []state.Guard, by rules) bool {
		return slices.ContainsFunc(all, func(g state.Guard) bool { return c.rulesOf(g.Backend) == by })
	}
	for _, by := range []rules{c.nftables, c.iptables} {
		switch {
		case has(left, by):
			err = by.ApplyNetwork(ctx, joined)
		case has(stale, by):
			err = by.RemoveNetwork(ctx, joined)
		}
		if err != nil {
			return err
		}
	}
	var errs []error
	for _, g := range stale {
		errs = append(errs, b.Delete(g))
	}
	return errors.Join(errs...)
}

// clearBridge takes what the network asks of its bridge out of the guard. Unless
// another network needs them, the bridge goes, and then the guard.
func (n *Network) clearBridge(ctx context.Context) error {
	b, err := n.c.guards.LockBridge(ctx, n.config.Bridge, unix.LOCK_EX, state.Create)
	if err != nil {
		return err
	}
	defer b.Unlock()
	return n.dropGuards(ctx, b, state.Endpoint{}, n.removeBridge)
}

// dropGuard is leaveGuard for an attachment that was not completed: without a
// bridge, and another endpoint that needs it, the guard that it brought goes.
func (n *Network) dropGuard(ctx context.Context, rec state.Endpoint) error {
	if n.hasBridge(ctx) {
		return n.leaveShared(ctx, rec)
	}
	b, err := n.c.guards.LockBridge(ctx, n.config.Bridge, unix.LOCK_EX, state.Create)
	if err != nil {
		return err
	}
	defer b.Unlock()
	return n.dropGuards(ctx, b, rec, func(context.Context) error { return nil })
}

// dropGuards makes the guard of the network's bridge, whose index is b, what other
// endpoints than gone ask for; without any it is removed, after removeBridge. Without
// an index a bridge that is there keeps its guard: other networks may need it.
func (n *Network) dropGuards(ctx context.Context, b bridgeGuards, gone state.Endpoint, removeBridge func(context.Context) error) error {
	left, stale, err := n.c.weedGuards(b, n.config.Bridge, idOf(gone))
	if err != nil || len(left) > 0 && len(stale) == 0 {
		return err
	}
	if b.Len() > 0 {
		if covered, err := n.c.covers(ctx, left, n.config.Bridge, idOf(gone)); err != nil || !covered {
			return err
		}
	}
	if len(left) > 0 {
		return n.c.weaken(ctx, b, n.config.Bridge, left, stale)
	}
	if err := removeBridge(ctx); err != nil {
		return err
	}
	words := n.planRules()
	if b.Len() == 0 && n.hasBridge(ctx) {
		kept, err := n.seedIndex(ctx, b)
		if err != nil {
			return err
		}
		if !kept {
			if covered, err := n.c.covers(ctx, nil, n.config.Bridge, idOf(gone)); err != nil || !covered {
				return err
			}
		}
		words = firewall.Network{Name: words.Name}
		if kept {
			return n.c.removeNetworkBy(ctx, gone.Backend, n.config.Backend, words)
		}
	}
	errs := []error{n.c.removeNetworkBy(ctx, gone.Backend, n.config.Backend, words)}
	for _, g := range stale {
		errs = append(errs, b.Delete(g))
	}
	return errors.Join(append(errs, b.Remove())...)
}

// seedIndex makes the index of the network's bridge, which has none, by the records
// of the networks that have endpoints on it, and puts their guard in place: what
// closes the bridge may have the name of the network that goes, as of a release
// before v0.2. It returns whether there is such an endpoint.
func (n *Network) seedIndex(ctx context.Context, b bridgeGuards) (living bool, err error) {
	all, living, err := n.c.seedGuards(n.config.Bridge, state.Guard{})
	if err != nil {
		return living, err
	}
	lost, err := n.c.lostGuards(ctx, n.config.Bridge, all)
	if err != nil || !living && len(lost) == 0 {
		return living, err
	}
	all, living = append(all, lost...), true
	how, err := n.c.exactWithoutIndex(ctx, living)
	if err != nil {
		return true, err
	}
	if _, err := n.c.applyGuard(ctx, n.config.Bridge, all, min(how, firewall.AdoptBridge)); err != nil {
		return true, err
	}
	var errs []error
	for _, g := range all {
		errs = append(errs, b.Put(g))
	}
	return true, errors.Join(errs...)
}

// exactWithoutIndex says what of a bridge's rules gives way to a guard by records
// alone. Rules that no record tells of may close bridges of living containers.
// Where records tell of all, what networks closed of a bridge under their own names,
// as releases before v0.2 did, is in the guard: beside it, it could let in more.
func (c *Controller) exactWithoutIndex(ctx context.Context, living bool) (firewall.Exactness, error) {
	links, err := c.links.List(ctx, model.OwnerPrefix)
	if err != nil {
		return firewall.AddOnly, err
	}
	links = slices.DeleteFunc(links, func(o link.Owned) bool { return o.Bridge })
	switch {
	case len(links) == 0:
		return firewall.ExactBridge, nil
	case !living:
		return firewall.AddOnly, nil
	}
	networks := map[string]bool{}
	for _, o := range links {
		id, ok := model.ParseOwner(o.Owner)
		if !ok {
			return firewall.AddOnly, nil
		}
		_, err := c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
		if err == nil && !networks[id.Network] {
			networks[id.Network] = true
			_, err = c.networks.LoadNetwork(id.Network)
		}
		if missing(err) {
			return firewall.AddOnly, nil
		}
		if err != nil {
			return firewall.AddOnly, err
		}
	}
	return firewall.AdoptBridge, nil
}

func (n *Network) hasBridge(ctx context.Context) bool {
	err := n.c.bridges.VerifyBridge(ctx, link.Bridge{Name: n.config.Bridge})
	return !errors.Is(err, netlink.ErrNotFound) && !errors.Is(err, link.ErrNotBridge)
}

// others is what a bridge's index and the records tell of the networks on the bridge
// but one.
type others struct {
	fresh, living       bool          // the index is new; an endpoint lives there
	left, stale, seeded []state.Guard // needed; not needed; needed, and not in the index
	how                 firewall.Exactness
}

// othersOn is what others than mine ask of the network's bridge, whose index is b.
// Where that is not known of all that live there, how lets nothing be weakened, and
// what the networks' records tell is asked for again.
func (n *Network) othersOn(ctx context.Context, b bridgeGuards, mine state.Guard) (o others, err error) {
	o.fresh = b.Len() == 0
	untold := false
	if o.fresh {
		if o.seeded, o.living, err = n.c.seedGuards(n.config.Bridge, mine); err == nil {
			o.how, err = n.c.exactWithoutIndex(ctx, o.living)
		}
		untold = err == nil && o.how == firewall.AddOnly && n.hasBridge(ctx)
	} else if o.left, o.stale, err = n.c.weedGuards(b, n.config.Bridge, model.ID{}); err == nil {
		var covered bool
		covered, err = n.c.covers(ctx, append(slices.Clone(o.left), mine), n.config.Bridge, model.ID{})
		o.how, untold = firewall.ExactBridge, err == nil && !covered
	}
	if err != nil || !untold {
		return o, err
	}
	o.how, o.left, o.stale = firewall.AddOnly, append(o.left, o.stale...), nil
	lost, err := n.c.lostGuards(ctx, n.config.Bridge, slices.Concat(o.left, o.seeded, []state.Guard{mine}))
	o.seeded, o.living = append(o.seeded, lost...), o.living || len(lost) > 0
	return o, err
}

// readableGuards are the guards of an index but for those that cannot be read, which
// are set aside. What such a one asked for stays in place: see covers.
func readableGuards(b bridgeGuards) ([]state.Guard, error) {
	all, err := b.Guards()
	if errors.Is(err, state.ErrCorrupt) {
		err = nil
	}
	return all, err
}

// guardOf is what a network asks of its bridge by its record.
func (c *Controller) guardOf(rec state.Network) (state.Guard, error) {
	n, err := c.networkOf(rec)
	if err != nil {
		return state.Guard{}, err
	}
	return n.guardRecord()
}

package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/plan"
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
	left, stale, err := n.c.weedGuards(b, rec.Bridge, life.IDOf(rec))
	if unsaid && !b.Has(mine) {
		stale = append(stale, mine)
	}
	if err != nil || len(stale) == 0 || len(left) == 0 {
		return err
	}
	return n.c.weaken(ctx, b, rec.Bridge, left, stale)
}

// weaken makes the guard of a bridge what left asks for, and takes stale out of
// its index.
func (c *Controller) weaken(ctx context.Context, b bridgeGuards, bridge string, left, stale []state.Guard) error {
	joined, err := joinGuards(plan.BridgeRules(bridge), left)
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
	left, stale, err := n.c.weedGuards(b, n.config.Bridge, life.IDOf(gone))
	if err != nil {
		return err
	}
	if len(left) > 0 {
		if len(stale) == 0 {
			return nil
		}
		return n.c.weaken(ctx, b, n.config.Bridge, left, stale)
	}
	if err := removeBridge(ctx); err != nil {
		return err
	}
	words := n.def().Rules()
	if b.Len() == 0 && n.hasBridge(ctx) {
		kept, err := n.seedIndex(ctx, b)
		if err != nil {
			return err
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
	if err != nil || !living {
		return living, err
	}
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
		if state.Missing(err) {
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

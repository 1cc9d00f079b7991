package guard

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/either"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// Leave weakens the guard of an endpoint's bridge, after its link is gone, to
// what the others on it ask for. Without others it stays, as the bridge does.
func (k *Book) Leave(ctx context.Context, n *plan.Network, rec state.Endpoint) error {
	if rec.Bridge == "" {
		return nil
	}
	if rec.Phase == state.PhaseIntent || rec.Phase == state.PhaseLeased {
		return k.Drop(ctx, n, rec) // the bridge may never have been made
	}
	return k.leaveShared(ctx, n, rec)
}

// leaveShared is leaveGuard for a bridge that is there.
func (k *Book) leaveShared(ctx context.Context, n *plan.Network, rec state.Endpoint) error {
	b, err := k.Index.LockBridge(ctx, rec.Bridge, unix.LOCK_SH, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	mine := state.Guard{Network: n.Name, ID: rec.Guard, Backend: cmp.Or(rec.Backend, string(n.Config.Backend))}
	// An ADD that was killed may have left a guard of which the index knows nothing.
	unsaid := rec.Phase != state.PhaseReady && b.Len() > 0 && !b.Has(mine)
	alone := b.Len() <= 1
	b.Unlock()
	if alone && !unsaid {
		return nil
	}
	b, err = k.Index.LockBridge(ctx, rec.Bridge, unix.LOCK_EX, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Unlock()
	left, stale, err := k.weedGuards(b, rec.Bridge, life.IDOf(rec))
	if unsaid && !b.Has(mine) {
		stale = append(stale, mine)
	}
	if err != nil || len(stale) == 0 || len(left) == 0 {
		return err
	}
	if covered, err := k.covers(ctx, left, rec.Bridge, life.IDOf(rec)); err != nil || !covered {
		return err
	}
	return k.weaken(ctx, b, rec.Bridge, left, stale)
}

// weaken makes the guard of a bridge what left asks for, and takes stale out of
// its index.
func (k *Book) weaken(ctx context.Context, b Bridge, bridge string, left, stale []state.Guard) error {
	joined, err := joinGuards(plan.BridgeRules(bridge), left)
	if err != nil {
		return err
	}
	has := func(all []state.Guard, by either.Rules) bool {
		return slices.ContainsFunc(all, func(g state.Guard) bool { return k.Rules.Of(g.Backend) == by })
	}
	for _, by := range k.Rules.All() {
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

// Clear takes what the network asks of its bridge out of the guard. Unless
// another network needs them, the bridge goes, and then the guard.
func (k *Book) Clear(ctx context.Context, n *plan.Network) error {
	b, err := k.Index.LockBridge(ctx, n.Config.Bridge, unix.LOCK_EX, state.Create)
	if err != nil {
		return err
	}
	defer b.Unlock()
	return k.dropGuards(ctx, n, b, state.Endpoint{}, bridgeGoes)
}

// Drop is leaveGuard for an attachment that was not completed: without a
// bridge, and another endpoint that needs it, the guard that it brought goes.
func (k *Book) Drop(ctx context.Context, n *plan.Network, rec state.Endpoint) error {
	if k.hasBridge(ctx, n) {
		return k.leaveShared(ctx, n, rec)
	}
	b, err := k.Index.LockBridge(ctx, n.Config.Bridge, unix.LOCK_EX, state.Create)
	if err != nil {
		return err
	}
	defer b.Unlock()
	return k.dropGuards(ctx, n, b, rec, bridgeStays)
}

// fate says what becomes of a bridge without a guard.
type fate bool

const (
	bridgeStays fate = false
	bridgeGoes  fate = true
)

// dropGuards makes the guard of the network's bridge, whose index is b, what other
// endpoints than gone ask for; without any it is removed, after the bridge. Without
// an index a bridge that is there keeps its guard: other networks may need it.
func (k *Book) dropGuards(ctx context.Context, n *plan.Network, b Bridge, gone state.Endpoint, bridge fate) error {
	left, stale, err := k.weedGuards(b, n.Config.Bridge, life.IDOf(gone))
	if err != nil || len(left) > 0 && len(stale) == 0 {
		return err
	}
	if b.Len() > 0 {
		if covered, err := k.covers(ctx, left, n.Config.Bridge, life.IDOf(gone)); err != nil || !covered {
			return err
		}
	}
	if len(left) > 0 {
		return k.weaken(ctx, b, n.Config.Bridge, left, stale)
	}
	if bridge == bridgeGoes {
		if err := k.RemoveBridge(ctx, n); err != nil {
			return err
		}
	}
	words := n.Rules()
	if b.Len() == 0 && k.hasBridge(ctx, n) {
		kept, err := k.seedIndex(ctx, n, b)
		if err != nil {
			return err
		}
		if !kept {
			if covered, err := k.covers(ctx, nil, n.Config.Bridge, life.IDOf(gone)); err != nil || !covered {
				return err
			}
		}
		words = firewall.Network{Name: words.Name}
		if kept {
			return k.Rules.RemoveNetwork(ctx, gone.Backend, n.Config.Backend, words)
		}
	}
	errs := []error{k.Rules.RemoveNetwork(ctx, gone.Backend, n.Config.Backend, words)}
	for _, g := range stale {
		errs = append(errs, b.Delete(g))
	}
	return errors.Join(append(errs, b.Remove())...)
}

// seedIndex makes the index of the network's bridge, which has none, by the records
// of the networks that have endpoints on it, and puts their guard in place: what
// closes the bridge may have the name of the network that goes, as of a release
// before v0.2. It returns whether there is such an endpoint.
func (k *Book) seedIndex(ctx context.Context, n *plan.Network, b Bridge) (living bool, err error) {
	all, living, err := k.seedGuards(n.Config.Bridge, state.Guard{})
	if err != nil {
		return living, err
	}
	lost, err := k.lostGuards(ctx, n.Config.Bridge, all)
	if err != nil || !living && len(lost) == 0 {
		return living, err
	}
	all, living = append(all, lost...), true
	how, err := k.ExactWithoutIndex(ctx, living)
	if err != nil {
		return true, err
	}
	if _, err := k.applyGuard(ctx, n.Config.Bridge, all, min(how, firewall.AdoptBridge)); err != nil {
		return true, err
	}
	var errs []error
	for _, g := range all {
		errs = append(errs, b.Put(g))
	}
	return true, errors.Join(errs...)
}

// ExactWithoutIndex says what of a bridge's rules gives way to a guard by records
// alone. Rules that no record tells of may close bridges of living containers.
// Where records tell of all, what networks closed of a bridge under their own names,
// as releases before v0.2 did, is in the guard: beside it, it could let in more.
func (k *Book) ExactWithoutIndex(ctx context.Context, living bool) (firewall.Exactness, error) {
	links, err := k.Links.List(ctx, model.OwnerPrefix)
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
		_, err := k.Endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
		if err == nil && !networks[id.Network] {
			networks[id.Network] = true
			_, err = k.Networks.LoadNetwork(id.Network)
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

func (k *Book) hasBridge(ctx context.Context, n *plan.Network) bool {
	err := k.Bridges.VerifyBridge(ctx, link.Bridge{Name: n.Config.Bridge})
	return !errors.Is(err, netlink.ErrNotFound) && !errors.Is(err, link.ErrNotBridge)
}

// RemoveBridge removes the bridge if libnet made it, for whichever network, and no
// port is left on it; one that another network came to use meanwhile stays.
func (k *Book) RemoveBridge(ctx context.Context, n *plan.Network) error {
	err := k.Bridges.RemoveBridge(ctx, n.Config.Bridge, model.OwnerPrefix)
	if errors.Is(err, link.ErrInUse) || errors.Is(err, netlink.ErrExists) || errors.Is(err, link.ErrNotBridge) {
		return nil
	}
	return err
}

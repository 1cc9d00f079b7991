package guard

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/policy"
	"github.com/libnet-cni/libnet/internal/state"
)

// guardRecord is what the network asks of its bridge.
func guardRecord(n *plan.Network) (state.Guard, error) {
	rules := policy.Of(n.Asked())
	data, err := json.Marshal(rules)
	return state.Guard{Network: n.Name, ID: policy.ID(rules), Backend: string(n.Config.Backend), Tunnel: n.TunnelName(), Spare: n.SpareTunnel(), Rules: data}, err
}

// Guarded is the rules of a network with the guard of its bridge, whose lock is
// held until Free is called.
type Guarded struct {
	Rules firewall.Network
	// Fresh: until now the bridge had no guard: neither an index nor, as of an earlier
	// release, an endpoint.
	Fresh bool
	// Shared: the bridge has an index, so that others may have a guard on it.
	Shared bool
	// Free gives the lock back. The index changes if the rules were applied.
	Free func(applied bool, used model.Backend) error
}

// Hold returns the rules that hold for the network's bridge with an endpoint
// of the network on it. The index changes when they are said to be applied. A
// network that asks for nothing takes part where other networks have a guard.
func (k *Book) Hold(ctx context.Context, n *plan.Network, always bool) (Guarded, error) {
	mine := state.Guard{Network: n.Name, ID: n.GuardID()}
	bridge := n.Config.Bridge
	b, err := k.Index.LockBridge(ctx, bridge, unix.LOCK_SH, state.Creation(always))
	if errors.Is(err, state.ErrNotFound) {
		return Guarded{Rules: n.Rules(), Free: func(bool, model.Backend) error { return nil }}, nil
	}
	if err != nil {
		return Guarded{}, err
	}
	if b.Has(mine) {
		rules, err := joined(n, b)
		if err != nil {
			b.Unlock()
			return Guarded{}, err
		}
		return Guarded{Rules: rules, Shared: true, Free: func(bool, model.Backend) error { b.Unlock(); return nil }}, nil
	}
	b.Unlock()
	if b, err = k.Index.LockBridge(ctx, bridge, unix.LOCK_EX, state.Create); err != nil {
		return Guarded{}, err
	}
	g, err := k.enterGuard(ctx, n, b)
	if err != nil {
		b.Unlock()
	}
	return g, err
}

// enterGuard is holdGuard for a network that is not in the index b yet.
func (k *Book) enterGuard(ctx context.Context, n *plan.Network, b Bridge) (Guarded, error) {
	mine, err := guardRecord(n)
	if err != nil {
		return Guarded{}, err
	}
	o, err := k.othersOn(ctx, n, b, mine)
	if err != nil {
		return Guarded{}, err
	}
	rules, err := joinGuards(n.Rules(), append(o.left, o.seeded...))
	if err != nil {
		return Guarded{}, err
	}
	rules.Exact = o.how
	free := func(applied bool, used model.Backend) error {
		defer b.Unlock()
		if !applied {
			if o.fresh {
				return b.Remove()
			}
			return nil
		}
		mine.Backend = string(used)
		var errs []error
		for _, g := range append(o.seeded, mine) { // mine last: it says that the others are there
			errs = append(errs, b.Put(g))
		}
		for _, g := range o.stale {
			errs = append(errs, b.Delete(g))
		}
		return errors.Join(errs...)
	}
	return Guarded{Rules: rules, Fresh: o.fresh && !o.living, Shared: true, Free: free}, nil
}

// joined is the network's rules with all guards of an index that has its own.
func joined(n *plan.Network, b Bridge) (firewall.Network, error) {
	if b.Len() == 1 {
		return alone(n), nil
	}
	all, err := readableGuards(b)
	if err != nil {
		return firewall.Network{}, err
	}
	return joinGuards(n.Rules(), all)
}

// alone is the network's rules on a bridge that no other network has, as joinGuards has them.
func alone(n *plan.Network) firewall.Network { return policy.Join(n.Rules()) }

// joinGuards returns the strictest of n and all guards.
func joinGuards(n firewall.Network, all []state.Guard) (firewall.Network, error) {
	others := make([]firewall.Network, 0, len(all))
	for _, g := range all {
		var o firewall.Network
		if err := json.Unmarshal(g.Rules, &o); err != nil {
			return n, err
		}
		others = append(others, o)
	}
	joined := policy.Join(n, others...)
	joined.Own = &firewall.Policies{IPv4: n.IPv4, IPv6: n.IPv6}
	return joined, nil
}

// HoldFor returns the rules that hold for an endpoint of the network: one that is
// being made brings what its network asks for; of one that is there the guard may be
// stricter than its own configuration, or from an earlier one.
func (k *Book) HoldFor(ctx context.Context, n *plan.Network, rec state.Endpoint) (Guarded, error) {
	if rec.Phase != state.PhaseReady {
		return k.Hold(ctx, n, true)
	}
	b, err := k.Index.LockBridge(ctx, rec.Bridge, unix.LOCK_SH, state.OnlyExisting)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return Guarded{}, err
	}
	if err == nil {
		if b.Has(state.Guard{Network: n.Name, ID: rec.Guard}) {
			rules, err := fromIndex(n, b, rec.Guard)
			if err != nil {
				b.Unlock()
			}
			return Guarded{Rules: rules, Free: func(bool, model.Backend) error { b.Unlock(); return nil }}, err
		}
		b.Unlock()
	}
	return k.Hold(ctx, n, true)
}

// fromIndex is what the guards of the index b ask for, and the network's tunnel. The
// ports of an endpoint are published as the guard with ID id has it, with which the
// endpoint came, or as the network's configuration has it now.
func fromIndex(n *plan.Network, b Bridge, id string) (firewall.Network, error) {
	own := n.Rules()
	all, err := readableGuards(b)
	if err != nil {
		return own, err
	}
	blank := firewall.Network{Name: own.Name, Guard: own.Guard, Bridge: own.Bridge, Tunnel: own.Tunnel, Spare: own.Spare, VTEPs: own.VTEPs, Underlay: own.Underlay, Sealed: own.Sealed, Direct: own.Direct}
	joined, err := joinGuards(blank, all)
	if err != nil {
		return own, err
	}
	if i := slices.IndexFunc(all, func(g state.Guard) bool { return g.Network == n.Name && g.ID == id }); i >= 0 {
		err = json.Unmarshal(all[i].Rules, &own)
	}
	joined.Own = &firewall.Policies{IPv4: own.IPv4, IPv6: own.IPv6}
	return joined, err
}

// InPlace is what the bridge's index asks for now, and the network's tunnel.
func (k *Book) InPlace(ctx context.Context, n *plan.Network) firewall.Network {
	b, err := k.Index.LockBridge(ctx, n.Config.Bridge, unix.LOCK_SH, state.OnlyExisting)
	if err != nil {
		return n.Rules()
	}
	defer b.Unlock()
	rules, err := fromIndex(n, b, "")
	if err != nil {
		return n.Rules()
	}
	return rules
}

// Verifiable is the rules of holdFor for a look at them.
func (k *Book) Verifiable(ctx context.Context, n *plan.Network, rec state.Endpoint) (firewall.Network, error) {
	if rec.Bridge == "" { // without a record
		return n.Rules(), nil
	}
	b, err := k.Index.LockBridge(ctx, rec.Bridge, unix.LOCK_SH, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return n.Rules(), nil
	}
	if err != nil {
		return firewall.Network{}, err
	}
	defer b.Unlock()
	if !b.Has(state.Guard{Network: n.Name, ID: rec.Guard}) {
		return joined(n, b)
	}
	if b.Len() == 1 && rec.Guard == n.GuardID() {
		return alone(n), nil // its guard in the index is that of its configuration
	}
	return fromIndex(n, b, rec.Guard)
}

// ApplyNetwork puts the rules of the network in place without an endpoint, as
// an agent needs it for a tunnel.
func (k *Book) ApplyNetwork(ctx context.Context, n *plan.Network) error {
	g, err := k.Hold(ctx, n, true)
	if err != nil {
		return err
	}
	err = k.Rules.Of(string(n.Config.Backend)).ApplyNetwork(ctx, g.Rules)
	return errors.Join(err, g.Free(err == nil, n.Config.Backend))
}

// RepairAll puts the guard of every bridge in place again, also what its index lost.
func (k *Book) RepairAll(ctx context.Context, how firewall.Exactness) error {
	bridges, err := k.Index.Bridges()
	errs := []error{err}
	for _, bridge := range bridges {
		_, err := k.Repair(ctx, bridge, how)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, k.refill(ctx))...)
}

// Repair also says whether all rules had been flushed.
func (k *Book) Repair(ctx context.Context, bridge string, how firewall.Exactness) (restored bool, err error) {
	b, err := k.Index.LockBridge(ctx, bridge, unix.LOCK_SH, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer b.Unlock()
	all, err := readableGuards(b)
	if err != nil {
		return false, err
	}
	return k.applyGuard(ctx, bridge, all, how)
}

// applyGuard puts the guard of a bridge in place that asks for all.
func (k *Book) applyGuard(ctx context.Context, bridge string, all []state.Guard, how firewall.Exactness) (restored bool, err error) {
	joined, err := joinGuards(plan.BridgeRules(bridge), all)
	if err != nil {
		return false, err
	}
	joined.Exact = how
	var errs []error
	for _, by := range k.Rules.All() {
		if slices.ContainsFunc(all, func(g state.Guard) bool { return k.Rules.Of(g.Backend) == by }) {
			flushed, err := by.Apply(ctx, joined, firewall.Endpoint{})
			restored, errs = restored || flushed, append(errs, err)
		}
	}
	return restored, errors.Join(errs...)
}

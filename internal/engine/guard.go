package engine

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/policy"
	"github.com/libnet-cni/libnet/internal/state"
)

// What closes a bridge is its guard: the strictest of what all networks ask for
// that have an endpoint on it, each in the configuration that the endpoint came
// with. It is in place before the bridge has an address, and stays as long as the
// bridge: a packet or a connection from a time without rules would be let in later.
//
// The index of a bridge (state.Bridge) has a record for each of these
// configurations. It is read under the bridge's lock, shared by those who add what
// it says, exclusive for those who change it. A record without an endpoint makes
// the guard stricter than it has to be, never weaker.
type (
	// guards is the index of all bridges.
	guards interface {
		LockBridge(ctx context.Context, bridge string, how int, create state.Creation) (bridgeGuards, error)
		Bridges() ([]string, error)
	}
	// bridgeGuards is the index of one bridge while its lock is held.
	bridgeGuards interface {
		Len() int
		Has(state.Guard) bool
		Guards() ([]state.Guard, error)
		Put(state.Guard) error
		Delete(state.Guard) error
		Remove() error
		Unlock()
	}
)

// stateGuards are those of a state directory.
type stateGuards struct{ *state.Dir }

var (
	_ guards       = stateGuards{}
	_ bridgeGuards = (*state.Bridge)(nil)
)

// LockBridge is that of state.Dir.
func (s stateGuards) LockBridge(ctx context.Context, bridge string, how int, create state.Creation) (bridgeGuards, error) {
	b, err := s.Dir.LockBridge(ctx, bridge, how, create)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// guardOwner owns the rules that concern a bridge alone.
func guardOwner(bridge string) string { return "libnet-bridge:" + bridge }

// bridgeRules are the rules of a bridge for which nothing is asked yet.
func bridgeRules(bridge string) firewall.Network {
	return firewall.Network{Name: guardOwner(bridge), Guard: guardOwner(bridge), Bridge: bridge}
}

// guardRecord is what the network asks of its bridge.
func (n *Network) guardRecord() (state.Guard, error) {
	rules := policy.Of(n.planRules())
	data, err := json.Marshal(rules)
	return state.Guard{Network: n.name, ID: policy.ID(rules), Backend: string(n.config.Backend), Tunnel: n.tunnelName(), Rules: data}, err
}

// guarded is the rules of a network with the guard of its bridge, whose lock is
// held until free is called.
type guarded struct {
	rules firewall.Network
	// fresh: until now the bridge had no guard: neither an index nor, as of an earlier
	// release, an endpoint.
	fresh bool
	// shared: the bridge has an index, so that others may have a guard on it.
	shared bool
	free   func(applied bool, used model.Backend) error
}

// holdGuard returns the rules that hold for the network's bridge with an endpoint
// of the network on it. The index changes when they are said to be applied. A
// network that asks for nothing takes part where other networks have a guard.
func (n *Network) holdGuard(ctx context.Context, always bool) (guarded, error) {
	mine := state.Guard{Network: n.name, ID: n.guardID()}
	bridge := n.config.Bridge
	b, err := n.c.guards.LockBridge(ctx, bridge, unix.LOCK_SH, state.Creation(always))
	if errors.Is(err, state.ErrNotFound) {
		return guarded{rules: n.planRules(), free: func(bool, model.Backend) error { return nil }}, nil
	}
	if err != nil {
		return guarded{}, err
	}
	if b.Has(mine) {
		rules, err := n.joined(b)
		if err != nil {
			b.Unlock()
			return guarded{}, err
		}
		return guarded{rules: rules, shared: true, free: func(bool, model.Backend) error { b.Unlock(); return nil }}, nil
	}
	b.Unlock()
	if b, err = n.c.guards.LockBridge(ctx, bridge, unix.LOCK_EX, state.Create); err != nil {
		return guarded{}, err
	}
	g, err := n.enterGuard(ctx, b)
	if err != nil {
		b.Unlock()
	}
	return g, err
}

// enterGuard is holdGuard for a network that is not in the index b yet.
func (n *Network) enterGuard(ctx context.Context, b bridgeGuards) (guarded, error) {
	mine, err := n.guardRecord()
	if err != nil {
		return guarded{}, err
	}
	o, err := n.othersOn(ctx, b, mine)
	if err != nil {
		return guarded{}, err
	}
	rules, err := joinGuards(n.planRules(), append(o.left, o.seeded...))
	if err != nil {
		return guarded{}, err
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
	return guarded{rules: rules, fresh: o.fresh && !o.living, shared: true, free: free}, nil
}

func (n *Network) guardID() string { return policy.ID(n.planRules()) }

// joined is the network's rules with all guards of an index that has its own.
func (n *Network) joined(b bridgeGuards) (firewall.Network, error) {
	if b.Len() == 1 {
		return n.planRules(), nil
	}
	all, err := readableGuards(b)
	if err != nil {
		return firewall.Network{}, err
	}
	return joinGuards(n.planRules(), all)
}

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

// seedGuards returns what networks ask of a bridge on which their endpoints live,
// but for mine, by their records: for an index that is new or was lost. Living says
// that there is such an endpoint.
func (c *Controller) seedGuards(bridge string, mine state.Guard) (all []state.Guard, living bool, err error) {
	recs, err := c.networks.Networks()
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside
	}
	errs := []error{err}
	for _, rec := range recs {
		if rec.Bridge != bridge {
			continue
		}
		has, err := c.endpoints.AnyEndpoint(rec.Name, func(e state.Endpoint) bool {
			return e.Bridge == bridge && (rec.Name != mine.Network || e.Guard != mine.ID)
		})
		living = living || has
		if err == nil && has {
			var g state.Guard
			if g, err = c.guardOf(rec); err == nil && (g.Network != mine.Network || g.ID != mine.ID) {
				all = append(all, g)
			}
		}
		errs = append(errs, err)
	}
	return all, living, errors.Join(errs...)
}

// weedGuards divides the guards of an index into those that an endpoint other than
// gone needs, or a tunnel, and the others.
func (c *Controller) weedGuards(b bridgeGuards, bridge string, gone model.ID) (left, stale []state.Guard, err error) {
	all, err := readableGuards(b)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, g := range all {
		needed, err := c.endpoints.AnyEndpoint(g.Network, func(e state.Endpoint) bool {
			known := b.Has(state.Guard{Network: g.Network, ID: e.Guard})
			return e.Bridge == bridge && idOf(e) != gone && (e.Guard == g.ID || !known)
		})
		if err == nil && !needed && g.Tunnel != "" {
			needed, err = c.tunnels.HasTunnel(g.Tunnel, model.NetworkOwner(g.Network))
			if errors.Is(err, netlink.ErrExists) {
				err = nil
			}
		}
		errs = append(errs, err)
		if needed {
			left = append(left, g)
		} else {
			stale = append(stale, g)
		}
	}
	return left, stale, errors.Join(errs...)
}

// holdFor returns the rules that hold for an endpoint of the network: one that is
// being made brings what its network asks for; of one that is there the guard may be
// stricter than its own configuration, or from an earlier one.
func (n *Network) holdFor(ctx context.Context, rec state.Endpoint) (guarded, error) {
	if rec.Phase != state.PhaseReady {
		return n.holdGuard(ctx, true)
	}
	b, err := n.c.guards.LockBridge(ctx, rec.Bridge, unix.LOCK_SH, state.OnlyExisting)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return guarded{}, err
	}
	if err == nil {
		if b.Has(state.Guard{Network: n.name, ID: rec.Guard}) {
			rules, err := n.fromIndex(b, rec.Guard)
			if err != nil {
				b.Unlock()
			}
			return guarded{rules: rules, free: func(bool, model.Backend) error { b.Unlock(); return nil }}, err
		}
		b.Unlock()
	}
	return n.holdGuard(ctx, true)
}

// fromIndex is what the guards of the index b ask for, and the network's tunnel. The
// ports of an endpoint are published as the guard with ID id has it, with which the
// endpoint came, or as the network's configuration has it now.
func (n *Network) fromIndex(b bridgeGuards, id string) (firewall.Network, error) {
	own := n.planRules()
	all, err := readableGuards(b)
	if err != nil {
		return own, err
	}
	blank := firewall.Network{Name: own.Name, Guard: own.Guard, Bridge: own.Bridge, Tunnel: own.Tunnel, VTEPs: own.VTEPs, Underlay: own.Underlay}
	joined, err := joinGuards(blank, all)
	if err != nil {
		return own, err
	}
	if i := slices.IndexFunc(all, func(g state.Guard) bool { return g.Network == n.name && g.ID == id }); i >= 0 {
		err = json.Unmarshal(all[i].Rules, &own)
	}
	joined.Own = &firewall.Policies{IPv4: own.IPv4, IPv6: own.IPv6}
	return joined, err
}

// inPlace is what the bridge's index asks for now, and the network's tunnel.
func (n *Network) inPlace(ctx context.Context) firewall.Network {
	b, err := n.c.guards.LockBridge(ctx, n.config.Bridge, unix.LOCK_SH, state.OnlyExisting)
	if err != nil {
		return n.planRules()
	}
	defer b.Unlock()
	rules, err := n.fromIndex(b, "")
	if err != nil {
		return n.planRules()
	}
	return rules
}

// verifiable is the rules of holdFor for a look at them.
func (n *Network) verifiable(ctx context.Context, rec state.Endpoint) (firewall.Network, error) {
	if rec.Bridge == "" { // without a record
		return n.planRules(), nil
	}
	b, err := n.c.guards.LockBridge(ctx, rec.Bridge, unix.LOCK_SH, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return n.planRules(), nil
	}
	if err != nil {
		return firewall.Network{}, err
	}
	defer b.Unlock()
	if !b.Has(state.Guard{Network: n.name, ID: rec.Guard}) {
		return n.joined(b)
	}
	return n.fromIndex(b, rec.Guard)
}

// applyNetworkRules puts the rules of the network in place without an endpoint, as
// an agent needs it for a tunnel.
func (n *Network) applyNetworkRules(ctx context.Context) error {
	g, err := n.holdGuard(ctx, true)
	if err != nil {
		return err
	}
	err = n.c.rulesOf(string(n.config.Backend)).ApplyNetwork(ctx, g.rules)
	return errors.Join(err, g.free(err == nil, n.config.Backend))
}

// repairGuards puts the guard of every bridge in place again.
func (c *Controller) repairGuards(ctx context.Context, how firewall.Exactness) error {
	bridges, err := c.guards.Bridges()
	errs := []error{err}
	for _, bridge := range bridges {
		_, err := c.repairGuard(ctx, bridge, how)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// repairGuard also says whether all rules had been flushed.
func (c *Controller) repairGuard(ctx context.Context, bridge string, how firewall.Exactness) (restored bool, err error) {
	b, err := c.guards.LockBridge(ctx, bridge, unix.LOCK_SH, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer b.Unlock()
	all, err := b.Guards()
	if err != nil {
		return false, err
	}
	return c.applyGuard(ctx, bridge, all, how)
}

// applyGuard puts the guard of a bridge in place that asks for all.
func (c *Controller) applyGuard(ctx context.Context, bridge string, all []state.Guard, how firewall.Exactness) (restored bool, err error) {
	joined, err := joinGuards(bridgeRules(bridge), all)
	if err != nil {
		return false, err
	}
	joined.Exact = how
	var errs []error
	for _, by := range []rules{c.nftables, c.iptables} {
		if slices.ContainsFunc(all, func(g state.Guard) bool { return c.rulesOf(g.Backend) == by }) {
			flushed, err := by.Apply(ctx, joined, firewall.Endpoint{})
			restored, errs = restored || flushed, append(errs, err)
		}
	}
	return restored, errors.Join(errs...)
}

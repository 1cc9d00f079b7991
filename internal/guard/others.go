package guard

import (
	"context"
	"errors"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

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
func (k *Book) othersOn(ctx context.Context, n *plan.Network, b Bridge, mine state.Guard) (o others, err error) {
	o.fresh = b.Len() == 0
	untold := false
	if o.fresh {
		if o.seeded, o.living, err = k.seedGuards(n.Config.Bridge, mine); err == nil {
			o.how, err = k.ExactWithoutIndex(ctx, o.living)
		}
		untold = err == nil && o.how == firewall.AddOnly && k.hasBridge(ctx, n)
	} else if o.left, o.stale, err = k.weedGuards(b, n.Config.Bridge, model.ID{}); err == nil {
		var covered bool
		covered, err = k.covers(ctx, append(slices.Clone(o.left), mine), n.Config.Bridge, model.ID{})
		o.how, untold = firewall.ExactBridge, err == nil && !covered
	}
	if err != nil || !untold {
		return o, err
	}
	o.how, o.left, o.stale = firewall.AddOnly, append(o.left, o.stale...), nil
	lost, err := k.lostGuards(ctx, n.Config.Bridge, slices.Concat(o.left, o.seeded, []state.Guard{mine}))
	o.seeded, o.living = append(o.seeded, lost...), o.living || len(lost) > 0
	return o, err
}

// covers says that the guard of a bridge may become what left asks for: every other
// attachment than gone that lives on the bridge came with a guard of left. Of one
// without a record that can be read, or whose guard is lost, it is unknown what it
// asked for. It lists all links, and reads the records of those on the bridge, so it
// is asked only before a guard is weakened.
func (k *Book) covers(ctx context.Context, left []state.Guard, bridge string, gone model.ID) (bool, error) {
	links, err := k.Links.List(ctx, model.OwnerPrefix)
	if err != nil {
		return false, err
	}
	ids := map[string]bool{nothing(): true} // asks for nothing
	for _, g := range left {
		ids[g.ID] = true
	}
	for _, o := range links {
		id, _ := model.ParseOwner(o.Owner)
		if o.Bridge || id == gone || o.Master != bridge && o.Master != "" {
			continue
		}
		rec, err := k.Endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
		switch {
		case state.Missing(err):
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
func (k *Book) lostGuards(ctx context.Context, bridge string, known []state.Guard) (lost []state.Guard, err error) {
	links, err := k.Links.List(ctx, model.OwnerPrefix)
	if err != nil {
		return nil, err
	}
	for _, o := range links {
		id, ok := model.ParseOwner(o.Owner)
		if !ok || o.Bridge || o.Master != bridge {
			continue
		}
		rec, err := k.Networks.LoadNetwork(id.Network)
		if state.Missing(err) || err == nil && rec.Bridge != bridge {
			continue
		}
		if err != nil {
			return nil, err
		}
		g, err := guardOf(rec)
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

// readableGuards are the guards of an index but for those that cannot be read, which
// are set aside. The rules of such a guard stay in place: see covers.
func readableGuards(b Bridge) ([]state.Guard, error) {
	all, err := b.Guards()
	if errors.Is(err, state.ErrCorrupt) {
		err = nil
	}
	return all, err
}

// guardOf is what a network asks of its bridge by its record.
func guardOf(rec state.Network) (state.Guard, error) {
	n, err := plan.OfRecord(rec)
	if err != nil {
		return state.Guard{}, err
	}
	return guardRecord(n)
}

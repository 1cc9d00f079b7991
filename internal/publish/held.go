package publish

import (
	"context"
	"errors"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// Published is what became of the ports that were asked for.
type Published struct {
	Ports    []model.PortMapping
	Backend  model.Backend
	Restored bool // the backend had lost all before
	Standby  []firewall.PortMap
	Fresh    bool // the bridge had no guard before
}

// Publish puts rules in place with the ports that are wanted, choosing those that were
// left open.
func (k *Ports) Publish(ctx context.Context, rules Ruleset, wanted []model.PortMapping) (p Published, err error) {
	for range maxChoices {
		if p.Ports, err = choosePorts(k.Host, wanted); err != nil {
			return Published{}, err
		}
		r := rules
		r.Endpoint.Ports, r.Rec.Ports = model.FirewallPorts(p.Ports), plan.SavedPorts(p.Ports)
		r.chosen = chosenOf(wanted, p.Ports)
		p.Backend, p.Restored, err = k.applyRules(ctx, &r)
		p.Standby, p.Fresh = r.Endpoint.Standby, p.Fresh || r.Fresh
		var held *PortHeldError
		if !errors.As(err, &held) || !isChosen(held, wanted) {
			return p, err
		}
	}
	return Published{}, err
}

func chosenOf(wanted, got []model.PortMapping) []firewall.PortMap {
	var all []firewall.PortMap
	for i, m := range got {
		if wanted[i].HostPort == 0 {
			all = append(all, m.Firewall())
		}
	}
	return all
}

// isChosen says that another choice can help: a port that is held is none of
// those asked for by number.
func isChosen(held *PortHeldError, asked []model.PortMapping) bool {
	free := false
	for _, m := range asked {
		free = free || m.HostPort == 0
		if m.HostPort != 0 && slices.ContainsFunc(held.all, m.Firewall().Meets) {
			return false
		}
	}
	return free
}

// settleHeld finds a way out where another owner has ports of r, if there is one.
func (k *Ports) settleHeld(ctx context.Context, r *Ruleset, held *firewall.PortHeldError) (bool, error) {
	if h := r.Endpoint.Handover; h != nil && firewall.Key(h.From) == held.Owner {
		return true, k.removeHeld(ctx, held.Owner) // it holds them by the other backend
	}
	same, err := k.sameContainer(ctx, r.Rec, held.Owner)
	if err != nil {
		return false, err
	}
	if same && meetsAny(held.All, r.chosen) {
		return false, nil // another number will do
	}
	if !same {
		dead, err := k.TakeFromDead(ctx, r.Rec, held.Owner)
		if dead || err != nil {
			return dead, err
		}
	}
	if same || r.waits == waitForAny {
		r.Endpoint.Standby = append(r.Endpoint.Standby, held.All...)
		return len(held.All) > 0, nil
	}
	return false, nil
}

func meetsAny(a, b []firewall.PortMap) bool {
	return slices.ContainsFunc(a, func(p firewall.PortMap) bool { return slices.ContainsFunc(b, p.Meets) })
}

// TakeFromDead removes the rules of an owner that is provably gone, for r. It
// keeps others from the owner meanwhile, and asks again: its container may have
// come back. An attachment of the container that r is of is kept by its lock.
func (k *Ports) TakeFromDead(ctx context.Context, r state.Endpoint, owner string) (dead bool, err error) {
	if dead, err = k.deadOwner(ctx, owner); err != nil || !dead {
		return false, err
	}
	if rec, err := k.recordOf(owner); err == nil && rec.ContainerID != r.ContainerID {
		dir := k.Endpoints
		if rec.IsPublication() {
			dir = k.Publications
		}
		release, err := dir.Own(ctx, rec.Network, rec.ContainerID, rec.IfName, state.OnlyExisting)
		if err != nil {
			return false, err
		}
		defer release()
		if dead, err = k.deadOwner(ctx, owner); err != nil || !dead {
			return false, err
		}
	}
	return true, k.removeHeld(ctx, owner)
}

// removeHeld removes the rules of an owner from both backends.
func (k *Ports) removeHeld(ctx context.Context, owner string) error {
	for _, either := range k.Guard.Rules.All() {
		if !either.Used() {
			continue
		}
		if err := either.Remove(ctx, firewall.Endpoint{Owner: owner}); err != nil {
			return err
		}
	}
	return nil
}

// deadOwner says whether the owner of a rule is provably gone: its record says
// so, or it has neither record nor link.
func (k *Ports) deadOwner(ctx context.Context, owner string) (bool, error) {
	for _, dir := range []Records{k.Endpoints, k.Publications} {
		rec, err := findOwner(dir, owner)
		if err == nil {
			return life.OfRecord(rec).Dead(k.Boot), nil
		}
		if !errors.Is(err, state.ErrNotFound) {
			return false, err
		}
	}
	id, ok := model.ParseOwner(owner)
	if !ok {
		return false, nil // of a publication, or cut: unknown
	}
	links, err := k.Guard.Links.List(ctx, id.String())
	return len(links) == 0, err
}

// findOwner looks through the records for the one of an owner in the form of
// firewall.Key.
func findOwner(dir Records, owner string) (state.Endpoint, error) {
	networks, err := dir.EndpointNetworks()
	if err != nil {
		return state.Endpoint{}, err
	}
	for _, network := range networks {
		recs, _ := dir.Endpoints(network) // what cannot be read proves nothing
		for _, rec := range recs {
			id := life.IDOf(rec)
			if firewall.Key(id.String()) == owner || firewall.Key(model.PublicationOwner(id)) == owner {
				return rec, nil
			}
		}
	}
	return state.Endpoint{}, state.ErrNotFound
}

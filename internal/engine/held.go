package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// publishing is what became of the ports that were asked for.
type publishing struct {
	ports    []model.PortMapping
	backend  model.Backend
	restored bool // the backend had lost all before
	standby  []firewall.PortMap
	fresh    bool // the bridge had no guard before
}

// publish puts rules in place with ports chosen for those that were left open.
func (c *Controller) publish(ctx context.Context, wanted []model.PortMapping, rules func([]model.PortMapping) ruleset) (p publishing, err error) {
	for range maxChoices {
		if p.ports, err = choosePorts(c.published, wanted); err != nil {
			return publishing{}, err
		}
		r := rules(p.ports)
		r.chosen = chosenOf(wanted, p.ports)
		p.backend, p.restored, err = c.applyRules(ctx, &r)
		p.standby, p.fresh = r.endpoint.Standby, p.fresh || r.fresh
		var held *PortHeldError
		if !errors.As(err, &held) || !isChosen(held, wanted) {
			return p, err
		}
	}
	return publishing{}, err
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
func (c *Controller) settleHeld(ctx context.Context, r *ruleset, held *firewall.PortHeldError) (bool, error) {
	if h := r.endpoint.Handover; h != nil && firewall.Key(h.From) == held.Owner {
		return true, c.removeHeld(ctx, held.Owner) // it holds them by the other backend
	}
	same, err := c.sameContainer(ctx, r.rec, held.Owner)
	if err != nil {
		return false, err
	}
	if same && meetsAny(held.All, r.chosen) {
		return false, nil // another number will do
	}
	if !same {
		dead, err := c.takeFromDead(ctx, r.rec, held.Owner)
		if dead || err != nil {
			return dead, err
		}
	}
	if same || r.waits == waitForAny {
		r.endpoint.Standby = append(r.endpoint.Standby, held.All...)
		return len(held.All) > 0, nil
	}
	return false, nil
}

func meetsAny(a, b []firewall.PortMap) bool {
	return slices.ContainsFunc(a, func(p firewall.PortMap) bool { return slices.ContainsFunc(b, p.Meets) })
}

// takeFromDead removes the rules of an owner that is provably gone, for r. It
// keeps others from the owner meanwhile, and asks again: its container may have
// come back. An attachment of the container that r is of is kept by its lock.
func (c *Controller) takeFromDead(ctx context.Context, r state.Endpoint, owner string) (dead bool, err error) {
	if dead, err = c.deadOwner(ctx, owner); err != nil || !dead {
		return false, err
	}
	if rec, err := c.recordOf(owner); err == nil && rec.ContainerID != r.ContainerID {
		dir := c.endpoints
		if rec.IsPublication() {
			dir = c.publications()
		}
		release, err := dir.Own(ctx, rec.Network, rec.ContainerID, rec.IfName, state.OnlyExisting)
		if err != nil {
			return false, err
		}
		defer release()
		if dead, err = c.deadOwner(ctx, owner); err != nil || !dead {
			return false, err
		}
	}
	return true, c.removeHeld(ctx, owner)
}

// removeHeld removes the rules of an owner from both backends.
func (c *Controller) removeHeld(ctx context.Context, owner string) error {
	for _, either := range c.rules.All() {
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
func (c *Controller) deadOwner(ctx context.Context, owner string) (bool, error) {
	for _, dir := range []endpointRecords{c.endpoints, c.publications()} {
		rec, err := findOwner(dir, owner)
		if err == nil {
			return c.dead(rec), nil
		}
		if !errors.Is(err, state.ErrNotFound) {
			return false, err
		}
	}
	id, ok := model.ParseOwner(owner)
	if !ok {
		return false, nil // of a publication, or cut: unknown
	}
	links, err := c.links.List(ctx, id.String())
	return len(links) == 0, err
}

// findOwner looks through the records for the one of an owner in the form of
// firewall.Key.
func findOwner(dir endpointRecords, owner string) (state.Endpoint, error) {
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

package engine

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// Dead says whether a holder's container is provably gone.
func (c *Controller) Dead(h life.Holder) bool { return h.Dead(c.boot) }

// Holders returns every owner of something of the network, whether a record, a
// link, a rule or only an address tells of it. Unreadable records are left out and
// reported in the error, beside the rest. It changes nothing.
func (n *Network) Holders(ctx context.Context) (all []life.Holder, err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	known, err := n.holders(ctx)
	all = slices.Collect(maps.Values(known))
	var leaseErr error
	if pool, ok := n.ipam.(*address.Pool); ok {
		var leases []life.Holder
		leases, leaseErr = pool.Holders(ctx)
		for _, h := range leases {
			if _, has := known[h.ID]; !has {
				all = append(all, h)
			}
		}
	}
	return all, errors.Join(err, leaseErr)
}

// Collect removes every attachment of the network that keep says no to,
// whether a record, a link or only an address tells of it. With none left and
// dissolve set it removes the network's bridge, rules and record, too. It goes
// on after errors and reports them joined. keep is asked again of each one once
// no ADD and no DEL of it is under way.
func (n *Network) Collect(ctx context.Context, keep func(life.Holder) bool, dissolve Dissolve) (err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	keep = n.c.keepGuests(keep)
	holders, err := n.holders(ctx)
	errs := []error{err}
	kept := 0
	for id, h := range holders {
		if keep(h) {
			kept++
			continue
		}
		gone, err := n.collectOne(ctx, id, keep)
		if errs = append(errs, err); gone {
			errs = append(errs, n.c.removed(ctx, id))
		}
	}
	_, err = n.tidyServices(ctx)
	errs = append(errs, n.collectLeases(ctx, holders, keep), n.c.tidyNames(ctx), err)
	if dissolve && kept == 0 && errors.Join(errs...) == nil {
		if err := n.dissolve(ctx); !errors.Is(err, state.ErrInUse) { // a new one came meanwhile
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// StrayNames returns names in the kernel that no record explains, in words.
func (c *Controller) StrayNames(ctx context.Context) (all []string, err error) {
	leave, err := c.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	return c.names.Strays(ctx, false)
}

// tidyNames has the kernel forget names that no record explains, and the fast path links that
// are gone.
func (c *Controller) tidyNames(ctx context.Context) error {
	_, err := c.names.Strays(ctx, true)
	return errors.Join(err, c.shortcuts.Sweep(ctx))
}

// collectOne removes an attachment unless it has been made anew, by an ADD for
// the same container, since the holders were listed.
func (n *Network) collectOne(ctx context.Context, id model.ID, keep func(life.Holder) bool) (gone bool, err error) {
	if err := id.Validate(); err != nil {
		return false, nil // nothing can have been made for it
	}
	release, err := n.c.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return false, err
	}
	defer release()
	rec, err := n.c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	switch {
	case state.Missing(err):
		rec = state.Endpoint{Network: id.Network, ContainerID: id.ContainerID, IfName: id.IfName, Boot: n.c.boot}
	case err != nil:
		return false, err
	}
	if keep(life.OfRecord(rec)) {
		return false, nil
	}
	err = n.remove(ctx, id, "")
	return err == nil, err
}

// collectLeases takes back the addresses of owners that are not among the known
// ones, of which something else tells.
func (n *Network) collectLeases(ctx context.Context, known map[model.ID]life.Holder, keep func(life.Holder) bool) error {
	pool, ok := n.ipam.(*address.Pool)
	if !ok && n.ipam != nil {
		return n.ipam.Collect(ctx, keep)
	}
	if !ok {
		return nil
	}
	leases, err := pool.Tidy(ctx)
	errs := []error{err}
	for _, h := range leases {
		_, has := known[h.ID]
		if _, is := service.OfLease(h.ID.ContainerID, h.ID.IfName); !has && !is && !keep(h) { // see tidyServices
			errs = append(errs, n.collectLease(ctx, pool, h, keep))
		}
	}
	return errors.Join(errs...)
}

// collectLease takes back what a lease alone tells of. An ADD owns its
// attachment from before its record and its lease are made until it ends, so
// that one without a record, while it is ours, is of no ADD under way.
func (n *Network) collectLease(ctx context.Context, pool *address.Pool, h life.Holder, keep func(life.Holder) bool) error {
	if err := h.ID.Validate(); err != nil {
		return pool.Remove(ctx, h.ID) // nothing else can have been made for it
	}
	release, err := n.c.endpoints.Own(ctx, h.ID.Network, h.ID.ContainerID, h.ID.IfName, state.Create)
	if err != nil {
		return err
	}
	defer release()
	switch rec, err := n.c.endpoints.LoadEndpoint(h.ID.Network, h.ID.ContainerID, h.ID.IfName); {
	case state.Missing(err):
		return pool.Remove(ctx, h.ID)
	case err != nil:
		return err
	case keep(life.OfRecord(rec)):
		return nil // made since the holders were listed
	}
	return n.remove(ctx, h.ID, "")
}

// Dissolve says whether Collect removes a network that it left empty.
type Dissolve bool

// Collect's ways with a network that it left empty.
const (
	KeepNetwork     Dissolve = false
	DissolveNetwork Dissolve = true
)

// holders finds every attachment of the network by its record, its link or its
// rules.
func (n *Network) holders(ctx context.Context) (map[model.ID]life.Holder, error) {
	all := map[model.ID]life.Holder{}
	owned, err := n.c.links.List(ctx, model.NetworkOwner(n.def.Name))
	for _, o := range owned {
		if id, ok := model.ParseOwner(o.Owner); ok {
			all[id] = life.Holder{ID: id, Boot: n.c.boot}
		}
	}
	owners, rulesErr := n.c.rules.Owners(ctx, n.def.Config.Backend)
	for _, owner := range owners {
		if id, ok := model.ParseOwner(owner); ok && id.Network == n.def.Name {
			all[id] = life.Holder{ID: id, Boot: n.c.boot}
		}
	}
	recs, recErr := n.c.endpoints.Endpoints(n.def.Name)
	if errors.Is(recErr, state.ErrCorrupt) {
		recErr = nil // set aside; the link tells
	}
	for _, rec := range recs {
		h := life.OfRecord(rec)
		all[h.ID] = h
	}
	return all, errors.Join(err, rulesErr, recErr)
}

// WhyDead says in words why a holder's container is provably gone; empty if it
// is not (see Dead).
func (c *Controller) WhyDead(h life.Holder) string { return h.WhyDead(c.boot) }

// CollectInterrupted removes every attachment of the network whose Join or Attach
// ended in the middle, as that of a process that was killed. It waits for those that
// are under way, and goes on after errors.
func (n *Network) CollectInterrupted(ctx context.Context) (err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	recs, err := n.c.endpoints.Endpoints(n.def.Name)
	errs := []error{err}
	for _, rec := range recs {
		if interrupted(rec) {
			errs = append(errs, n.collectInterrupted(ctx, rec))
		}
	}
	return errors.Join(errs...)
}

func interrupted(rec state.Endpoint) bool {
	return rec.Phase == state.PhaseIntent || rec.Phase != state.PhaseReady && rec.Netns != ""
}

func (n *Network) collectInterrupted(ctx context.Context, rec state.Endpoint) error {
	release, err := n.c.endpoints.Own(ctx, rec.Network, rec.ContainerID, rec.IfName, state.OnlyExisting)
	if err != nil {
		return err
	}
	defer release()
	now, err := n.c.endpoints.LoadEndpoint(rec.Network, rec.ContainerID, rec.IfName)
	if state.Missing(err) {
		return nil
	}
	if err != nil || !interrupted(now) {
		return err // it came to its end meanwhile
	}
	return n.remove(ctx, life.IDOf(now), "")
}

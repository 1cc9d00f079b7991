package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/sorting"
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
	n.c.steps.At("collect")
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	keep = n.c.keepGuests(keep)
	holders, err := n.holders(ctx)
	errs := []error{err}
	kept := 0
	var going []model.ID
	for id, h := range holders {
		if keep(h) {
			kept++
			continue
		}
		going = append(going, id)
	}
	sorting.Stable(going, func(a, b model.ID) int { return strings.Compare(a.String(), b.String()) }) // see collectSome
	for some := range slices.Chunk(going, n.together()) {
		gone, err := n.collectSome(ctx, some, keep)
		errs = append(errs, err)
		for _, id := range gone {
			errs = append(errs, n.c.removed(ctx, id))
		}
	}
	_, err = n.tidyServices(ctx)
	errs = append(errs, n.collectLeases(ctx, holders, keep), n.c.tidyNames(ctx), n.retireGateways(ctx, nil), err)
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

// together is how many attachments are removed at a time. With iptables, which takes tens of
// milliseconds for each if their rules cannot go at once, a DEL of one of them has to wait for
// less than its patience.
func (n *Network) together() int {
	if n.backend() == model.BackendIPTables {
		return 32
	}
	return 256
}

// collectSome removes attachments unless they have been made anew, by an ADD for the same
// container, since the holders were listed. All are owned at once: their links go by one request,
// for which the kernel waits once, their connections by one walk through its table, their rules by
// one transaction, and their addresses under one lock of the pool. Another call like this one owns
// them in the same order, and all others own one, so that none waits for another one in a circle.
// It returns those that are gone.
func (n *Network) collectSome(ctx context.Context, ids []model.ID, keep func(life.Holder) bool) (gone []model.ID, err error) {
	var errs []error
	var going []state.Endpoint
	for _, id := range ids {
		if err := id.Validate(); err != nil {
			continue // nothing can have been made for it
		}
		release, err := n.c.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		defer release()
		rec, err := n.c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
		recorded := err == nil
		if state.Missing(err) {
			rec, err = state.Endpoint{Network: id.Network, ContainerID: id.ContainerID, IfName: id.IfName, Boot: n.c.boot}, nil
		}
		switch {
		case err != nil || keep(life.OfRecord(rec)):
			errs = append(errs, err)
		case recorded && len(ids) > 1 && rec.Phase == state.PhaseReady && len(rec.Ports) == 0:
			going = append(going, rec)
		default: // its ports are locked until its connections have ended
			err := n.remove(ctx, id)
			if errs = append(errs, err); err == nil {
				gone = append(gone, id)
			}
		}
	}
	taken, err := n.takeAwayAll(ctx, going)
	return append(gone, taken...), errors.Join(append(errs, err)...)
}

// takeAwayAll is takeAway for attachments that have records and no ports, and that the caller
// owns. It returns those that are gone.
func (n *Network) takeAwayAll(ctx context.Context, recs []state.Endpoint) (gone []model.ID, err error) {
	var errs []error
	took := func(rec state.Endpoint, err error) {
		if errs = append(errs, err); err == nil {
			gone = append(gone, life.IDOf(rec))
		}
	}
	var going []state.Endpoint
	var refs []link.Ref
	for _, rec := range recs {
		ref := (&Endpoint{n: n, rec: rec}).ref()
		err := n.c.services.Left(ctx, rec)
		if err == nil { // their rules go after them: without a link no packet meets the host
			err = errors.Join(n.c.names.Remove(ctx, &rec), n.c.shortcuts.Remove(ctx, &rec), n.c.Ports().HandOver(ctx, rec), n.c.links.SetGoing(ctx, ref))
		}
		if err != nil { // by itself it may fare better, and the record stays
			took(rec, n.takeAway(ctx, rec, ""))
			continue
		}
		going, refs = append(going, rec), append(refs, ref)
	}
	if len(going) == 0 {
		return gone, errors.Join(errs...)
	}
	if errors.Join(n.c.links.DetachAll(ctx, refs), n.c.Ports().EndAllFlows(ctx, going...)) != nil {
		for _, rec := range going { // one that fails keeps no other
			took(rec, n.takeAway(ctx, rec, ""))
		}
		return gone, errors.Join(errs...)
	}
	last := len(going) - 1
	ruleless := n.removeRules(ctx, going...) == nil // else each by itself
	given := ruleless && n.giveBackAll(ctx, going)
	for i, rec := range going {
		var err error
		if !ruleless || i == last { // tables of ours go with the last one, if nothing is in them
			err = n.retireRules(ctx, rec)
		}
		if err == nil {
			err = n.c.book().Leave(ctx, n.Plan(), rec)
		}
		if err == nil && !given {
			err = n.giveBack(ctx, rec)
		}
		if err == nil {
			err = n.forget(rec)
		}
		if err == nil {
			err = n.c.names.Forget(ctx, &rec)
		}
		took(rec, err)
	}
	return gone, errors.Join(append(errs, n.dropTables(ctx, going[last]))...)
}

// giveBackAll gives the addresses of several attachments back while the pool is locked once. It
// says whether it did: another IPAM, and an earlier pool, are asked for each.
func (n *Network) giveBackAll(ctx context.Context, recs []state.Endpoint) bool {
	pool, ok := n.ipam.(*address.Pool)
	kind, dir := n.LeaseDir()
	elsewhere := func(rec state.Endpoint) bool { return rec.IPAM != kind || rec.DataDir != dir }
	if !ok || slices.ContainsFunc(recs, elsewhere) {
		return false
	}
	ids := make([]model.ID, len(recs))
	for i, rec := range recs {
		ids[i] = life.IDOf(rec)
	}
	return pool.RemoveAll(ctx, ids) == nil
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
	return n.remove(ctx, h.ID)
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
	return n.remove(ctx, life.IDOf(now))
}

package libnet

import (
	"context"
	"errors"

	"github.com/libnet-cni/libnet/internal/state"
)

// Dead says whether a holder's container is provably gone.
func (c *Controller) Dead(h Holder) bool { return h.Dead(c.boot) }

// Collect removes every attachment of the network that keep says no to,
// whether a record, a link or only an address tells of it. With none left and
// dissolve set it removes the network's bridge, rules and record, too. It goes
// on after errors and reports them joined.
func (n *Network) Collect(ctx context.Context, keep func(Holder) bool, dissolve Dissolve) (err error) {
	leave, err := n.c.enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	holders, err := n.holders(ctx)
	errs := []error{err}
	kept := 0
	for id, h := range holders {
		if keep(h) {
			kept++
			continue
		}
		errs = append(errs, n.collectOne(ctx, id, keep))
	}
	if n.ipam != nil {
		errs = append(errs, n.ipam.Collect(ctx, func(h Holder) bool {
			if known, ok := holders[h.ID]; ok {
				h = known.since(h)
			}
			return keep(h)
		}))
	}
	if dissolve && kept == 0 && errors.Join(errs...) == nil {
		if err := n.dissolve(ctx); !errors.Is(err, state.ErrInUse) { // a new one came meanwhile
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// collectOne removes an attachment unless it has been made anew, by an ADD for
// the same container, since the holders were listed.
func (n *Network) collectOne(ctx context.Context, id ID, keep func(Holder) bool) error {
	if err := id.Validate(); err != nil {
		return nil // nothing can have been made for it
	}
	release, err := n.c.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return err
	}
	defer release()
	if keep(n.c.holderNow(n.c.endpoints, id)) {
		return nil
	}
	return n.remove(ctx, id, "")
}

// holderNow is the holder that a record tells of; without one, that nothing is
// known.
func (c *Controller) holderNow(records endpointRecords, id ID) Holder {
	rec, err := records.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if err != nil {
		return Holder{ID: id, Boot: c.boot}
	}
	return holderOfRecord(rec)
}

// since is h, or whom its lease was given to, if that is for another namespace:
// it is of a later ADD.
func (h Holder) since(lease Holder) Holder {
	if lease.NetnsID != (NetnsID{}) && lease.NetnsID != h.NetnsID {
		h.Boot, h.Netns, h.NetnsID = lease.Boot, lease.Netns, lease.NetnsID
	}
	return h
}

// Dissolve says whether Collect removes a network that it left empty.
type Dissolve bool

// What Collect does with a network that it left empty.
const (
	KeepNetwork     Dissolve = false
	DissolveNetwork Dissolve = true
)

// holders finds every attachment of the network by its record, its link or its
// rules.
func (n *Network) holders(ctx context.Context) (map[ID]Holder, error) {
	all := map[ID]Holder{}
	owned, err := n.c.links.List(ctx, networkOwner(n.name))
	for _, o := range owned {
		if id, ok := parseOwner(o.Owner); ok {
			all[id] = Holder{ID: id, Boot: n.c.boot}
		}
	}
	owners, rulesErr := n.c.owners(ctx, n.config.Backend)
	for _, owner := range owners {
		if id, ok := parseOwner(owner); ok && id.Network == n.name {
			all[id] = Holder{ID: id, Boot: n.c.boot}
		}
	}
	recs, recErr := n.c.endpoints.Endpoints(n.name)
	if errors.Is(recErr, state.ErrCorrupt) {
		recErr = nil // set aside; the link tells
	}
	for _, rec := range recs {
		h := holderOfRecord(rec)
		all[h.ID] = h
	}
	return all, errors.Join(err, rulesErr, recErr)
}

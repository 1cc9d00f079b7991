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
func (n *Network) Collect(ctx context.Context, keep func(Holder) bool, dissolve Dissolve) error {
	holders, err := n.holders(ctx)
	errs := []error{err}
	kept := 0
	for id, h := range holders {
		if keep(h) {
			kept++
			continue
		}
		errs = append(errs, n.Remove(ctx, id))
	}
	if n.ipam != nil {
		errs = append(errs, n.ipam.Collect(ctx, func(h Holder) bool {
			if known, ok := holders[h.ID]; ok {
				h = known
			}
			return keep(h)
		}))
	}
	if dissolve && kept == 0 && errors.Join(errs...) == nil {
		errs = append(errs, n.dissolve(ctx))
	}
	return errors.Join(errs...)
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

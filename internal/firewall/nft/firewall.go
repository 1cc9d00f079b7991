package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// Firewall applies rules. Every call works in the network namespace of the
// calling thread. It holds no state but open sockets (see Close), and may be
// used by many goroutines.
type Firewall struct{ sockets nfnl.Pool }

// New opens nothing and costs nothing.
func New() *Firewall { return &Firewall{} }

// Apply puts the rules of n and e in place, in one transaction. Twice is once.
// An element that another endpoint holds for the same address is a *firewall.HeldError, a
// published port a *firewall.PortHeldError: the caller knows whether that owner lives. A Network or Endpoint that has no rules is passed over, even
// if it is the zero value. If our tables, sets, chains or rules are not there,
// they are written in the same transaction, and so are those of another release.
// Restored then says that what others had in them may be gone, until Complete.
// It is firewall.ErrInvalid for a name, address or port no rule can hold, before anything
// changes, and firewall.ErrUnsupported if the kernel lacks something; it needs Linux 5.6.
// Conditions are put in place after all else: a *firewall.ConditionError, about their
// words, leaves that for Remove; one about a missing nft comes before anything
// changes.
func (f *Firewall) Apply(ctx context.Context, n firewall.Network, e firewall.Endpoint) (restored bool, err error) {
	p, err := ruleset.Plan(n, e)
	if err == nil {
		err = refuseUnknown(p.Gates)
	}
	if err == nil && (len(p.Elems) > 0 || p.Exact != nil) {
		restored, err = f.apply(ctx, p)
	}
	if err == nil {
		err = f.fill(ctx, p.Gates)
	}
	if err != nil {
		return false, fmt.Errorf("apply rules of %s: %w", cmp.Or(e.Owner, n.Name), err)
	}
	return restored, nil
}

// apply looks before it sends. Elements in place are not sent again, and a free key needs
// no deletion: a transaction without one is 50 times cheaper (see commit), and so is
// looking than a transaction that fails.
func (f *Firewall) apply(ctx context.Context, p ruleset.Planned) (restored bool, err error) {
	tables := outlinesOf(p.Elems)
	send := func(c *conn) error {
		var generation uint32
		if len(p.Claims) > 0 || p.Mark != nil || p.Exact != nil || p.First != nil { // what we look at must not change until we are done
			var err error
			if generation, err = transaction.Generation(c.nl); err != nil {
				return err
			}
		}
		b := newBatch(generation)
		for _, t := range tables {
			state, err := c.stateOf(t)
			if err != nil {
				return err
			}
			switch state {
			case tableBroken:
				return errBroken
			case tableWritten:
				restored = true
			case tableMissing:
				complete := t.Rare() || p.First != nil && p.First()
				restored = restored || !complete
				b.make(ruleset.TableOf(t.Family), complete)
			}
		}
		if err := c.placeChains(b, p.Gates); err != nil {
			return err
		}
		if p.Exact != nil {
			if err := c.delOthers(b, *p.Exact, p.Elems); err != nil {
				return err
			}
		}
		if err := c.place(b, p); err != nil {
			return err
		}
		return b.Commit(c.nl)
	}
	err = f.do(ctx, send)
	for try := 0; try < maxRenewals && (errors.Is(err, unix.ENOENT) || errors.Is(err, errBroken)); try++ {
		// ENOENT: a set is missing, or the tables went since we looked.
		if err = f.renew(ctx, tablesOf(p.Elems), errors.Is(err, unix.ENOENT)); err == nil {
			err = f.do(ctx, send)
		}
	}
	return restored, firewall.AsUnsupported(err)
}

// place adds to b what of p is not there yet.
func (c *conn) place(b *batch, p ruleset.Planned) error {
	there, err := c.look(p.Elems)
	if err != nil {
		return err
	}
	handed, err := c.refuseHeld(p, there)
	if err != nil {
		return err
	}
	if p.Handover != nil {
		if err := c.delHanded(b, p, handed); err != nil {
			return err
		}
	}
	var present []ruleset.Elem
	for _, f := range there {
		switch {
		case f.missing():
			b.Put(f.asked)
		case f.Owner != "" && f.Owner != f.asked.Owner && !f.asked.Shared() && f.Owner != p.From():
			return &firewall.HeldError{Owner: f.Owner, Element: f.asked.String()}
		case f.Owner != f.asked.Owner || !f.Gives(f.asked):
			b.takeOver(f.asked)
		case f.asked.Set == &ruleset.Strict:
			present = append(present, f.asked)
		}
	}
	if b.Any() { // the process that removes the last strict network meanwhile deletes them
		for _, e := range present {
			b.Put(e)
		}
	}
	if p.Mark == nil {
		return nil
	}
	return c.placeMark(b, *p.Mark)
}

// delHanded adds the deletion of what another owner hands over, and of what of
// ours goes with that. An element at a key of ours is taken over, see place.
func (c *conn) delHanded(b *batch, p ruleset.Planned, handed []ruleset.Elem) error {
	ours := make(map[ruleset.Slot]bool, len(p.Elems))
	for _, e := range p.Elems {
		ours[e.Slot()] = true
	}
	was, err := c.look(p.Handover.Was)
	if err != nil {
		return err
	}
	for _, f := range was {
		if !f.missing() && f.Owner == f.asked.Owner {
			b.Del(f.Elem)
		}
	}
	for _, e := range handed {
		if !ours[e.Slot()] {
			b.Del(e)
		}
	}
	return nil
}

type tableState int

const (
	tableMissing tableState = iota
	// tableBroken: a rule is missing, or another release wrote it.
	tableBroken
	// tableWritten: the rules are there, but maybe not the elements of all (see Complete).
	tableWritten
	tableIntact
)

// stateOf returns whether t has its chains, and these their number of rules, and
// by which release; and whether anything keeps the rules from working. A flushed
// chain is a firewall that is off without a word.
func (c *conn) stateOf(t ruleset.Table) (tableState, error) {
	now, err := c.standing(t, t.Chains)
	if err != nil {
		return tableMissing, err
	}
	state := now.state()
	if (state == tableIntact || state == tableWritten) && now.use > now.wanted(t) {
		foreign, err := c.foreignChains(t)
		if err != nil || len(foreign) > 0 {
			return tableBroken, err
		}
	}
	return state, nil
}

// intact says whether a chain that is used so often, by its rules and by jumps
// to it, can be whole.
func intact(ch ruleset.Chain, uses int) bool {
	whole := len(ch.Rules) + ch.Jumps
	return uses == whole || (ch.Name == ruleset.MarksChain || ch.Name == ruleset.MetChain) && uses > whole
}

// List returns the owners of all endpoint elements, sorted, each once, in the
// form of Key. Without our tables there are none. Its cost grows with the number
// of owners.
func (f *Firewall) List(ctx context.Context) ([]string, error) {
	var all []string
	err := f.do(ctx, func(c *conn) error {
		all = nil
		if _, err := transaction.Generation(c.nl); err != nil {
			return err
		}
		for _, s := range []*ruleset.Set{&ruleset.Owners, &ruleset.Guarded} {
			elems, err := c.elems(s)
			if err != nil {
				return err
			}
			for _, e := range elems {
				all = append(all, e.Owner)
			}
		}
		return nil
	})
	if err := absent(err); err != nil {
		return nil, fmt.Errorf("list owners of rules: %w", err)
	}
	sorting.Ordered(all)
	return slices.Compact(all), nil
}

// Used is true: to ask costs no more than to know.
func (f *Firewall) Used() bool { return true }

// Available returns firewall.ErrUnsupported, naming nf_tables, when the kernel has none.
// It changes nothing.
func (f *Firewall) Available() error {
	return f.do(context.Background(), func(c *conn) error {
		_, err := transaction.Generation(c.nl)
		return firewall.AsUnsupported(err)
	})
}

// tablesOf returns the tables that hold elems.
func tablesOf(elems []ruleset.Elem) []ruleset.Table { return eachTable(elems, ruleset.TableOf) }

// outlinesOf is tablesOf for a caller that asks whether they stand.
func outlinesOf(elems []ruleset.Elem) []ruleset.Table { return eachTable(elems, ruleset.Outline) }

func eachTable(elems []ruleset.Elem, table func(family uint8) ruleset.Table) (all []ruleset.Table) {
	for _, family := range ruleset.TableFamilies {
		if slices.ContainsFunc(elems, func(e ruleset.Elem) bool { return e.Set.Family == family }) {
			all = append(all, table(family))
		}
	}
	return all
}

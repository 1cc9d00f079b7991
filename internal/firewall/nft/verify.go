package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Verify changes nothing and returns what differs from the state after Apply,
// joined: firewall.ErrMissing with the table, chain, rule, set or element by name,
// firewall.ErrChanged with a rule that does something else, or firewall.ErrConflict with the
// element and its holder, or with the chain that has more rules than ours. Nil means nothing differs.
func (f *Firewall) Verify(ctx context.Context, n firewall.Network, e firewall.Endpoint) error {
	p, err := ruleset.Plan(n, e)
	if err != nil || len(p.Elems) == 0 {
		return err
	}
	var found differences
	err = f.settled(ctx, &found, func() error {
		for _, t := range tablesOf(p.Elems) {
			if err := found.table(t, p); err != nil {
				return err
			}
		}
		if err := found.opened(n, e, p.Elems); err != nil {
			return err
		}
		return found.gates(p.Gates)
	})
	if err != nil {
		return fmt.Errorf("verify rules of %s: %w", e.Owner, firewall.AsUnsupported(err))
	}
	return errors.Join(found.all...)
}

// Intact is firewall.ErrMissing if our table of packet rules is not there, if that or the one
// of frames lacks a rule or was written by another release, or if it may lack elements
// (see Complete); firewall.ErrChanged if a rule is not what we write, or a table is dormant;
// firewall.ErrConflict if a rule or chain there is not ours. Of elements it looks only at those
// of n, whether they are there: the zero Network has none. It is much cheaper than
// Verify.
func (f *Firewall) Intact(ctx context.Context, n firewall.Network) error {
	var found differences
	elems, _, err := ruleset.PlanNetwork(n)
	if err != nil {
		return err
	}
	err = f.settled(ctx, &found, func() error {
		if err := found.stands(ruleset.BridgeTable()); err != nil {
			return err
		}
		t := ruleset.InetTable()
		now, err := found.c.standing(t, t.Chains)
		if err != nil {
			return err
		}
		if !now.there {
			found.add("table "+t.String(), firewall.ErrMissing)
			return nil
		}
		if now.state() == tableWritten {
			found.add("elements of table "+t.String()+", since its rules were written anew", firewall.ErrMissing)
		}
		if err := found.whole(t, now); err != nil || len(found.all) > 0 {
			return err
		}
		return errors.Join(found.rules(t, nil), found.missing(elems))
	})
	if err != nil {
		return firewall.AsUnsupported(err)
	}
	return errors.Join(found.all...)
}

// stands is whole of a table that need not be there.
func (d *differences) stands(t ruleset.Table) error {
	now, err := d.c.standing(t, t.Chains)
	if err != nil || !now.there {
		return err
	}
	return d.whole(t, now)
}

// whole says whether a table has its rules, by their number, and these hold.
func (d *differences) whole(t ruleset.Table, now standing) error {
	if now.state() == tableBroken && !now.stopped() {
		d.add("rules of table "+t.String()+", as this release writes them", firewall.ErrMissing)
	}
	return d.standing(t, now)
}

// settled has look gather differences, again if the rules changed meanwhile: a
// list of rules may have some of before and some of after.
func (f *Firewall) settled(ctx context.Context, found *differences, look func() error) error {
	return f.do(ctx, func(c *conn) error {
		*found = differences{c: c}
		before, err := transaction.Generation(c.nl)
		if err == nil {
			err = look()
		}
		if err != nil || len(found.all) == 0 {
			return err
		}
		after, err := transaction.Generation(c.nl)
		if err == nil && after != before {
			err = unix.ERESTART
		}
		return err
	})
}

// differences gathers what Verify reports. Its methods return an error only
// if they could not look.
type differences struct {
	c   *conn
	all []error
}

func (d *differences) add(what string, err error) {
	d.all = append(d.all, fmt.Errorf("%s: %w", what, err))
}

func (d *differences) table(t ruleset.Table, p ruleset.Planned) error {
	now, err := d.c.standing(t, fixedChains(t))
	if err != nil {
		return err
	}
	if !now.there {
		d.add("table "+t.String(), firewall.ErrMissing)
		return nil
	}
	if err := d.standing(t, now); err != nil {
		return err
	}
	if err := d.rules(t, p.Mark); err != nil {
		return err
	}
	missing := map[*ruleset.Set]bool{}
	if len(d.all) > 0 || now.use != now.wanted(t) { // else the rules keep the sets in place
		if missing, err = d.sets(t); err != nil {
			return err
		}
	}
	return d.elems(slices.DeleteFunc(slices.Clone(p.Elems), func(e ruleset.Elem) bool { return e.Set.Family != t.Family || missing[e.Set] }))
}

// standing says what of a table that is there keeps its rules from working, though
// they may all be there.
func (d *differences) standing(t ruleset.Table, now standing) error {
	if now.dormant {
		d.add("table "+t.String()+", which is dormant", firewall.ErrChanged)
	}
	for i, ch := range now.asked {
		if now.uses[i] >= 0 && now.moved[i] {
			d.add("base chain "+t.String()+" "+ch.Name, firewall.ErrChanged)
		}
	}
	if now.use <= now.wanted(t) {
		return nil
	}
	foreign, err := d.c.foreignChains(t)
	for _, ch := range foreign {
		d.add("chain "+t.String()+" "+ch.name+", which is not ours", firewall.ErrConflict)
	}
	return err
}

// sets returns those that are missing.
func (d *differences) sets(t ruleset.Table) (map[*ruleset.Set]bool, error) {
	var requests []nfnl.Message
	for _, s := range t.Sets {
		requests = append(requests, askSet(s))
	}
	there, err := d.c.holds(requests...)
	missing := map[*ruleset.Set]bool{}
	for i, s := range t.Sets {
		if err == nil && !there[i] {
			missing[s] = true
			d.add("set "+s.String(), firewall.ErrMissing)
		}
	}
	return missing, err
}

// rules compares the rules of a table that is there with those that we write, and
// looks for the rule of a network in chain marks; nil: it has none.
func (d *differences) rules(t ruleset.Table, mark *ruleset.MarkRule) error {
	sum, marks, err := d.c.contents(t)
	if err != nil {
		return err
	}
	name := t.String() + " " + ruleset.MarksChain
	for _, r := range marks {
		if !r.isMark() {
			d.add(fmt.Sprintf("rule %s %q, which is not ours", name, r.why), firewall.ErrConflict)
		}
	}
	if mark != nil && t.Family == unix.NFPROTO_INET && !slices.ContainsFunc(marks, func(r heldRule) bool { return r.why == mark.Comment() }) {
		d.add(fmt.Sprintf("rule %s %q", name, mark.Comment()), firewall.ErrMissing)
	}
	if sum == ruleset.Contents[t.Family] {
		return nil
	}
	return d.eachRule(t)
}

// eachRule names the rules that differ.
func (d *differences) eachRule(t ruleset.Table) error {
	there, err := d.c.holds(chainsAsked(t)...)
	if err != nil {
		return err
	}
	held, err := d.c.written(t.Family)
	if err != nil {
		return err
	}
	for i, ch := range t.Chains {
		name := t.String() + " " + ch.Name
		switch {
		case !there[i]:
			d.add("chain "+name, firewall.ErrMissing)
		case ch.Name != ruleset.MarksChain:
			d.chain(name, ch, held[ch.Name])
		}
	}
	return nil
}

func chainsAsked(t ruleset.Table) []nfnl.Message {
	var all []nfnl.Message
	for _, ch := range t.Chains {
		all = append(all, askChain(t.Family, ch.Name))
	}
	return all
}

func (d *differences) chain(name string, ch ruleset.Chain, held []heldRule) {
	missing := 0
	for _, r := range ch.Rules {
		if !slices.ContainsFunc(held, func(h heldRule) bool { return h.why == r.Why }) {
			d.add(fmt.Sprintf("rule %s %q", name, r.Why), firewall.ErrMissing)
			missing++
		}
	}
	if len(held) > len(ch.Rules)-missing {
		d.add("rules of chain "+name, firewall.ErrConflict)
	}
	if missing > 0 || len(held) != len(ch.Rules) {
		return
	}
	for i, r := range ch.Rules {
		if held[i].why != r.Why || !ruleset.SameExprs(r.Encoded(), held[i].exprs) {
			d.add(fmt.Sprintf("rule %s %q", name, r.Why), firewall.ErrChanged)
		}
	}
}

// missing looks for elements that are not there, whichever owner has them.
func (d *differences) missing(want []ruleset.Elem) error {
	there, err := d.c.look(want)
	for _, f := range there {
		if f.missing() && err == nil {
			d.add("element "+f.asked.String(), firewall.ErrMissing)
		}
	}
	return err
}

func (d *differences) elems(want []ruleset.Elem) error {
	there, err := d.c.look(want)
	if err != nil {
		return err
	}
	for _, f := range there {
		switch {
		case f.missing():
			d.add("element "+f.asked.String(), firewall.ErrMissing)
		case f.Owner != f.asked.Owner:
			d.add(fmt.Sprintf("element %s of %q", f.asked, f.Owner), firewall.ErrConflict)
		case !f.Gives(f.asked):
			d.add(fmt.Sprintf("element %s in place of %s", f.Elem, f.asked), firewall.ErrConflict)
		}
	}
	return nil
}

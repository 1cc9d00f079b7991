package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Verify changes nothing and returns what differs from the state after Apply,
// joined: ErrMissing with the table, chain, rule, set or element by name,
// ErrChanged with a rule that does something else, or ErrConflict with the
// element and its holder, or with the chain that has more rules than ours. Nil means nothing differs.
func (f *Firewall) Verify(ctx context.Context, n Network, e Endpoint) error {
	p, err := plan(n, e)
	if err != nil || len(p.elems) == 0 {
		return err
	}
	var found differences
	err = f.settled(ctx, &found, func() error {
		for _, t := range tablesOf(p.elems) {
			if err := found.table(t, p); err != nil {
				return err
			}
		}
		return found.gates(p.gates)
	})
	if err != nil {
		return fmt.Errorf("verify rules of %s: %w", e.Owner, AsUnsupported(err))
	}
	return errors.Join(found.all...)
}

// Intact is ErrMissing if our table of packet rules is not there, if that or the one
// of frames lacks a rule or was written by another release, or if it may lack elements
// (see Complete); ErrChanged if a rule is not what we write, or a table is dormant;
// ErrConflict if a rule or chain there is not ours. Of elements it looks only at those
// of n, whether they are there: the zero Network has none. It is much cheaper than
// Verify.
func (f *Firewall) Intact(ctx context.Context, n Network) error {
	var found differences
	elems, _, err := planNetwork(n)
	if err != nil {
		return err
	}
	err = f.settled(ctx, &found, func() error {
		if err := found.stands(bridgeTable()); err != nil {
			return err
		}
		t := inetTable()
		now, err := found.c.standing(t, t.chains)
		if err != nil {
			return err
		}
		if !now.there {
			found.add("table "+t.String(), ErrMissing)
			return nil
		}
		if now.state() == tableWritten {
			found.add("elements of table "+t.String()+", since its rules were written anew", ErrMissing)
		}
		if err := found.whole(t, now); err != nil || len(found.all) > 0 {
			return err
		}
		return errors.Join(found.rules(t, nil), found.missing(elems))
	})
	if err != nil {
		return AsUnsupported(err)
	}
	return errors.Join(found.all...)
}

// stands is whole of a table that need not be there.
func (d *differences) stands(t table) error {
	now, err := d.c.standing(t, t.chains)
	if err != nil || !now.there {
		return err
	}
	return d.whole(t, now)
}

// whole says whether a table has its rules, by their number, and these hold.
func (d *differences) whole(t table, now standing) error {
	if now.state() == tableBroken && !now.stopped() {
		d.add("rules of table "+t.String()+", as this release writes them", ErrMissing)
	}
	return d.standing(t, now)
}

// settled has look gather differences, again if the rules changed meanwhile: a
// list of rules may have some of before and some of after.
func (f *Firewall) settled(ctx context.Context, found *differences, look func() error) error {
	return f.do(ctx, func(c *conn) error {
		*found = differences{c: c}
		before, err := c.generation()
		if err == nil {
			err = look()
		}
		if err != nil || len(found.all) == 0 {
			return err
		}
		after, err := c.generation()
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

func (d *differences) table(t table, p planned) error {
	now, err := d.c.standing(t, fixedChains(t))
	if err != nil {
		return err
	}
	if !now.there {
		d.add("table "+t.String(), ErrMissing)
		return nil
	}
	if err := d.standing(t, now); err != nil {
		return err
	}
	if err := d.rules(t, p.mark); err != nil {
		return err
	}
	missing := map[*set]bool{}
	if len(d.all) > 0 || now.use != now.wanted(t) { // else the rules keep the sets in place
		if missing, err = d.sets(t); err != nil {
			return err
		}
	}
	return d.elems(slices.DeleteFunc(slices.Clone(p.elems), func(e elem) bool { return e.set.family != t.family || missing[e.set] }))
}

// standing says what of a table that is there keeps its rules from working, though
// they may all be there.
func (d *differences) standing(t table, now standing) error {
	if now.dormant {
		d.add("table "+t.String()+", which is dormant", ErrChanged)
	}
	for i, ch := range now.asked {
		if now.uses[i] >= 0 && now.moved[i] {
			d.add("base chain "+t.String()+" "+ch.name, ErrChanged)
		}
	}
	if now.use <= now.wanted(t) {
		return nil
	}
	foreign, err := d.c.foreignChains(t)
	for _, ch := range foreign {
		d.add("chain "+t.String()+" "+ch.name+", which is not ours", ErrConflict)
	}
	return err
}

// sets returns those that are missing.
func (d *differences) sets(t table) (map[*set]bool, error) {
	var requests []nfnl.Message
	for _, s := range t.sets {
		requests = append(requests, askSet(s))
	}
	there, err := d.c.holds(requests...)
	missing := map[*set]bool{}
	for i, s := range t.sets {
		if err == nil && !there[i] {
			missing[s] = true
			d.add("set "+s.String(), ErrMissing)
		}
	}
	return missing, err
}

// rules compares the rules of a table that is there with those that we write, and
// looks for the rule of a network in chain marks; nil: it has none.
func (d *differences) rules(t table, mark *markRule) error {
	sum, marks, err := d.c.contents(t)
	if err != nil {
		return err
	}
	name := t.String() + " " + marksChain
	for _, r := range marks {
		if !r.isMark() {
			d.add(fmt.Sprintf("rule %s %q, which is not ours", name, r.why), ErrConflict)
		}
	}
	if mark != nil && t.family == unix.NFPROTO_INET && !slices.ContainsFunc(marks, func(r heldRule) bool { return r.why == mark.comment() }) {
		d.add(fmt.Sprintf("rule %s %q", name, mark.comment()), ErrMissing)
	}
	if sum == contents[t.family] {
		return nil
	}
	return d.eachRule(t)
}

// eachRule names the rules that differ.
func (d *differences) eachRule(t table) error {
	there, err := d.c.holds(chainsAsked(t)...)
	if err != nil {
		return err
	}
	held, err := d.c.written(t.family)
	if err != nil {
		return err
	}
	for i, ch := range t.chains {
		name := t.String() + " " + ch.name
		switch {
		case !there[i]:
			d.add("chain "+name, ErrMissing)
		case ch.name != marksChain:
			d.chain(name, ch, held[ch.name])
		}
	}
	return nil
}

func chainsAsked(t table) []nfnl.Message {
	var all []nfnl.Message
	for _, ch := range t.chains {
		all = append(all, askChain(t.family, ch.name))
	}
	return all
}

func (d *differences) chain(name string, ch chain, held []heldRule) {
	missing := 0
	for _, r := range ch.rules {
		if !slices.ContainsFunc(held, func(h heldRule) bool { return h.why == r.why }) {
			d.add(fmt.Sprintf("rule %s %q", name, r.why), ErrMissing)
			missing++
		}
	}
	if len(held) > len(ch.rules)-missing {
		d.add("rules of chain "+name, ErrConflict)
	}
	if missing > 0 || len(held) != len(ch.rules) {
		return
	}
	for i, r := range ch.rules {
		if held[i].why != r.why || !sameExprs(r.encoded(), held[i].exprs) {
			d.add(fmt.Sprintf("rule %s %q", name, r.why), ErrChanged)
		}
	}
}

// missing looks for elements that are not there, whichever owner has them.
func (d *differences) missing(want []elem) error {
	there, err := d.c.look(want)
	for _, f := range there {
		if f.missing() && err == nil {
			d.add("element "+f.asked.String(), ErrMissing)
		}
	}
	return err
}

func (d *differences) elems(want []elem) error {
	there, err := d.c.look(want)
	if err != nil {
		return err
	}
	for _, f := range there {
		switch {
		case f.missing():
			d.add("element "+f.asked.String(), ErrMissing)
		case f.owner != f.asked.owner:
			d.add(fmt.Sprintf("element %s of %q", f.asked, f.owner), ErrConflict)
		case !f.gives(f.asked):
			d.add(fmt.Sprintf("element %s in place of %s", f.elem, f.asked), ErrConflict)
		}
	}
	return nil
}

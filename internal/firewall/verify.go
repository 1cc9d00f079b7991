package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Verify changes nothing and returns what differs from the state after Apply,
// joined: ErrMissing with the table, chain, rule, set or element by name, or
// ErrConflict with the element and its holder, or with the chain that has more
// rules than ours. Nil means nothing differs.
func (f *Firewall) Verify(ctx context.Context, n Network, e Endpoint) error {
	p, err := plan(n, e)
	if err != nil || len(p.elems) == 0 {
		return err
	}
	var found differences
	err = f.do(ctx, func(c *conn) error {
		found = differences{c: c}
		for _, t := range tablesOf(p.elems) {
			if err := found.table(t, p); err != nil {
				return err
			}
		}
		return found.gates(p.gates)
	})
	if err != nil {
		return fmt.Errorf("verify rules of %s: %w", e.Owner, supported(err))
	}
	return errors.Join(found.all...)
}

// Intact is ErrMissing if our table of packet rules is not there, or a chain of
// it has not its number of rules. It looks at no element, and is much cheaper
// than Verify.
func (f *Firewall) Intact(ctx context.Context) error {
	return f.do(ctx, func(c *conn) error {
		state, err := c.stateOf(inetTable())
		switch {
		case err != nil:
			return supported(err)
		case state == tableMissing:
			return fmt.Errorf("table inet %s: %w", tableName, ErrMissing)
		case state == tableBroken:
			return fmt.Errorf("rules of table inet %s: %w", tableName, ErrMissing)
		}
		return nil
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
	name := familyName(t.family) + " " + tableName
	requests := []nfnl.Message{askTable(t.family)}
	for _, s := range t.sets {
		requests = append(requests, askSet(s))
	}
	there, err := d.c.holds(requests...)
	if err != nil {
		return err
	}
	if !there[0] {
		d.add("table "+name, ErrMissing)
		return nil
	}
	for _, ch := range t.chains {
		if err := d.chain(t.family, name+" "+ch.name, ch, p.mark); err != nil {
			return err
		}
	}
	missing := map[*set]bool{}
	for i, s := range t.sets {
		if missing[s] = !there[i+1]; missing[s] {
			d.add("set "+s.String(), ErrMissing)
		}
	}
	return d.elems(slices.DeleteFunc(slices.Clone(p.elems), func(e elem) bool { return e.set.family != t.family || missing[e.set] }))
}

func (d *differences) chain(family uint8, name string, ch chain, mark *markRule) error {
	there, err := d.c.holds(askChain(family, ch.name))
	if err != nil {
		return err
	}
	if !there[0] {
		d.add("chain "+name, ErrMissing)
		return nil
	}
	held, err := d.c.rules(family, ch.name)
	if err != nil {
		return err
	}
	has := func(why string) bool { return slices.ContainsFunc(held, func(r heldRule) bool { return r.why == why }) }
	if ch.name == marksChain {
		if mark != nil && !has(mark.comment()) {
			d.add(fmt.Sprintf("rule %s %q", name, mark.comment()), ErrMissing)
		}
		return nil
	}
	missing := 0
	for _, r := range ch.rules {
		if !has(r.why) {
			d.add(fmt.Sprintf("rule %s %q", name, r.why), ErrMissing)
			missing++
		}
	}
	if len(held) > len(ch.rules)-missing {
		d.add("rules of chain "+name, ErrConflict)
	}
	return nil
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

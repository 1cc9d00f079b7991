package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Verify changes nothing and returns what differs from the state after Apply,
// joined: ErrMissing with the table, chain, rule, set or element by name, or
// ErrConflict with the element and its holder, or with the chain that has more
// rules than ours. Nil means nothing differs.
func (f *Firewall) Verify(ctx context.Context, n Network, e Endpoint) error {
	elems, err := plan(n, e)
	if err != nil || len(elems) == 0 {
		return err
	}
	var found differences
	err = f.do(ctx, func(c *conn) error {
		found = differences{c: c}
		for _, t := range tablesOf(elems) {
			if err := found.table(t, elems); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("verify rules of %s: %w", e.Owner, supported(err))
	}
	return errors.Join(found.all...)
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

func (d *differences) table(t table, elems []elem) error {
	name := familyName(t.family) + " " + tableName
	there, err := d.c.holdsTable(t.family)
	if err != nil {
		return err
	}
	if !there {
		d.add("table "+name, ErrMissing)
		return nil
	}
	for _, ch := range t.chains {
		if err := d.chain(t.family, name+" "+ch.name, ch); err != nil {
			return err
		}
	}
	for _, s := range t.sets {
		if err := d.set(s, elems); err != nil {
			return err
		}
	}
	return nil
}

func (d *differences) chain(family uint8, name string, ch chain) error {
	n, err := d.c.ruleCount(family, ch.name)
	if err != nil {
		return err
	}
	if n < 0 {
		d.add("chain "+name, ErrMissing)
		return nil
	}
	got, err := d.c.rules(family, ch.name)
	if err != nil {
		return err
	}
	missing := 0
	for _, r := range ch.rules {
		if !slices.Contains(got, r.why) {
			d.add(fmt.Sprintf("rule %s %q", name, r.why), ErrMissing)
			missing++
		}
	}
	if len(got) > len(ch.rules)-missing {
		d.add("rules of chain "+name, ErrConflict)
	}
	return nil
}

func (d *differences) set(s *set, elems []elem) error {
	there, err := d.c.holds(unix.NFT_MSG_GETSET, s.family, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_SET_TABLE, tableName)
		ae.String(unix.NFTA_SET_NAME, s.name)
	})
	if err != nil {
		return err
	}
	if !there {
		d.add("set "+s.String(), ErrMissing)
		return nil
	}
	for _, e := range elems {
		if e.set != s {
			continue
		}
		owner, found, err := d.c.holder(e)
		switch {
		case err != nil:
			return err
		case !found:
			d.add("element "+e.String(), ErrMissing)
		case owner != e.owner:
			d.add(fmt.Sprintf("element %s of %q", e, owner), ErrConflict)
		}
	}
	return nil
}

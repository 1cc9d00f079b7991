package firewall

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// ApplyNetwork makes the rules of n what they should be, in one transaction:
// those of an earlier configuration of the same Name go. Apply alone only adds.
func (f *Firewall) ApplyNetwork(ctx context.Context, n Network) error {
	elems, mark, err := n.plan()
	if err == nil {
		err = f.setNetwork(ctx, Key(n.Name), planned{elems: elems, mark: mark})
	}
	if err != nil {
		return fmt.Errorf("apply rules of network %s: %w", n.Name, err)
	}
	return nil
}

// RemoveNetwork deletes the elements that n.Name holds, and our tables with the
// last element in them. What is missing is success, and so is a table that
// somebody else has put something into. Only Name is looked at.
func (f *Firewall) RemoveNetwork(ctx context.Context, n Network) error {
	err := checkOwner(n.Name)
	if err == nil {
		err = f.removeLast(ctx, Key(n.Name), holdings{})
	}
	if err != nil {
		return fmt.Errorf("remove rules of network %s: %w", n.Name, err)
	}
	return nil
}

// setNetwork leaves of owner's elements for networks only those of p.
func (f *Firewall) setNetwork(ctx context.Context, owner string, p planned) error {
	if len(p.elems) > 0 {
		if err := f.renew(ctx, []table{inetTable()}, false); err != nil {
			return supported(err)
		}
	}
	err := f.transact(ctx, func(c *conn, b *batch) error {
		state := tableIntact
		if len(p.elems) > 0 {
			var err error
			if state, err = c.stateOf(inetTable()); err != nil {
				return err
			}
		}
		if state == tableMissing {
			b.make(inetTable())
		}
		if _, err := c.delOthers(b, owner, p.elems); err != nil {
			return err
		}
		if p.mark == nil {
			if _, err := c.delMarks(b, owner, ""); err != nil {
				return err
			}
		}
		return c.place(b, p)
	})
	return supported(err)
}

// putStrict adds the elements of strict, which may be there.
func (b *batch) putStrict() {
	for _, e := range strictElems() {
		b.put(e)
	}
}

// delOthers adds the deletion of owner's elements for networks but those in keep,
// and of those in strict, unless some network is.
func (c *conn) delOthers(b *batch, owner string, keep []elem) (anyStrict bool, err error) {
	there, err := c.holds(askTable(unix.NFPROTO_INET))
	if err != nil || !there[0] {
		return false, err
	}
	anyStrict = slices.ContainsFunc(keep, func(e elem) bool { return e.set == &strict })
	type place struct {
		set *set
		key string
	}
	kept := make(map[place]bool, len(keep)) // of a tunnel to a thousand hosts there are as many
	for _, e := range keep {
		kept[place{e.set, string(e.key)}] = true
	}
	for _, s := range networkSets {
		all, err := c.elems(s)
		if err != nil {
			return false, err
		}
		for _, e := range all {
			if e.owner == owner && !kept[place{e.set, string(e.key)}] {
				b.del(e)
			} else if slices.Contains(strictSets, s) {
				anyStrict = true
			}
		}
	}
	if anyStrict {
		return true, nil
	}
	left, err := c.elems(&strict)
	for _, e := range left {
		b.del(e)
	}
	return false, err
}

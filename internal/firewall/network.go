package firewall

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// ApplyNetwork makes the rules of n what they should be, in one transaction, as
// Apply with Exact does.
func (f *Firewall) ApplyNetwork(ctx context.Context, n Network) error {
	n.Exact = ExactNetwork
	_, err := f.Apply(ctx, n, Endpoint{})
	return err
}

// RemoveNetwork deletes the elements that n.Name and n.Guard hold and those of
// n.Bridge if there is a Guard, and our tables with the last element in them. What
// is missing is success, and so is a table with chains or sets of another program.
func (f *Firewall) RemoveNetwork(ctx context.Context, n Network) error {
	err := checkOwner(n.Name)
	if err == nil {
		err = f.removeLast(ctx, n, holdings{})
	}
	if err != nil {
		return fmt.Errorf("remove rules of network %s: %w", n.Name, err)
	}
	return nil
}

// putStrict adds the elements of strict, which may be there.
func (b *batch) putStrict() {
	for _, e := range strictElems() {
		b.put(e)
	}
}

// delOthers adds the deletion of n's elements for networks but those in keep, of
// its marks if it has none now, and of the elements of strict unless some network
// is.
func (c *conn) delOthers(b *batch, n Network, keep []elem) error {
	there, err := c.holds(askTable(unix.NFPROTO_INET))
	if err != nil || !there[0] {
		return err
	}
	own := n.Exact != AdoptBridge && (n.AcceptMark == nil || len(keep) == 0)
	err = c.delMarksIf(b, func(why string) bool { return adoptsMark(n, why) || own && ownsMark(n, why) })
	if err != nil {
		return err
	}
	anyStrict := slices.ContainsFunc(keep, func(e elem) bool { return e.set == &strict })
	kept := make(map[slot]bool, len(keep)) // of a tunnel to a thousand hosts there are as many
	for _, e := range keep {
		kept[e.slot()] = true
	}
	for _, s := range networkSets {
		all, err := c.elems(s)
		if err != nil {
			return err
		}
		for _, e := range all {
			if e.heldBy(n) && !kept[e.slot()] {
				b.del(e)
			} else if slices.Contains(strictSets, s) {
				anyStrict = true
			}
		}
	}
	if anyStrict {
		return nil
	}
	left, err := c.elems(&strict)
	for _, e := range left {
		b.del(e)
	}
	return err
}

package nft

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
)

// ApplyNetwork makes the rules of n what they should be, in one transaction, as
// Apply with Exact does.
func (f *Firewall) ApplyNetwork(ctx context.Context, n firewall.Network) error {
	n.Exact = firewall.ExactNetwork
	_, err := f.Apply(ctx, n, firewall.Endpoint{})
	return err
}

// RemoveNetwork deletes the elements that n.Name and n.Guard hold and those of
// n.Bridge if there is a Guard, and our tables with the last element in them. A missing
// element is success, and so is a table with chains or sets of another program.
func (f *Firewall) RemoveNetwork(ctx context.Context, n firewall.Network) error {
	err := firewall.CheckOwner(n.Name)
	if err == nil {
		err = f.removeLast(ctx, n, ruleset.Holdings{})
	}
	if err != nil {
		return fmt.Errorf("remove rules of network %s: %w", n.Name, err)
	}
	return nil
}

// putStrict adds the elements of strict, which may be there.
func (b *batch) putStrict() {
	for _, e := range ruleset.StrictElems() {
		b.Put(e)
	}
}

// delOthers adds the deletion of n's elements for networks but those in keep, of
// its marks if it has none now, and of the elements of strict unless some network
// is.
func (c *conn) delOthers(b *batch, n firewall.Network, keep []ruleset.Elem) error {
	there, err := c.holds(askTable(unix.NFPROTO_INET))
	if err != nil || !there[0] {
		return err
	}
	own := n.Exact != firewall.AdoptBridge && (n.AcceptMark == nil || len(keep) == 0)
	err = c.delMarksIf(b, func(why string) bool { return ruleset.AdoptsMark(n, why) || own && ruleset.OwnsMark(n, why) })
	if err != nil {
		return err
	}
	anyStrict := slices.ContainsFunc(keep, func(e ruleset.Elem) bool { return e.Set == &ruleset.Strict })
	kept := make(map[ruleset.Slot]bool, len(keep)) // of a tunnel to a thousand hosts there are as many
	for _, e := range keep {
		kept[e.Slot()] = true
	}
	for _, s := range ruleset.NetworkSets {
		all, err := c.elems(s)
		if err != nil {
			return err
		}
		for _, e := range all {
			if e.HeldBy(n) && !kept[e.Slot()] {
				b.Del(e)
			} else if slices.Contains(ruleset.StrictSets, s) {
				anyStrict = true
			}
		}
	}
	if anyStrict {
		return nil
	}
	left, err := c.elems(&ruleset.Strict)
	for _, e := range left {
		b.Del(e)
	}
	return err
}

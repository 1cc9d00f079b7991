package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Remove deletes the elements that e.Owner holds, in one transaction, and no
// one else's: a change by others meanwhile makes it look again. What is missing
// is success. Elements are found by key as far as the fields are known: nil
// Addrs, no Bridge, no Port and nil Ports mean unknown, and cost a listing of
// the sets concerned, as do some hundred ports; empty Addrs and Ports mean none. Masquerade, Hairpin and
// the like say nothing here. A nil MAC costs a listing only if Port is guarded.
// With Owner alone everything of the owner goes.
func (f *Firewall) Remove(ctx context.Context, e Endpoint) error {
	if err := f.remove(ctx, e); err != nil {
		return fmt.Errorf("remove rules of %s: %w", e.Owner, err)
	}
	return nil
}

func (f *Firewall) remove(ctx context.Context, e Endpoint) error {
	h, err := holdingsOf(e, manyAsked)
	if err != nil {
		return err
	}
	if err := f.renewOther(ctx); err != nil {
		return absent(err)
	}
	return absent(f.transact(ctx, func(c *conn, b *batch) error { return c.delHoldings(b, h) }))
}

// RemoveLast is Remove for the last endpoint of a network, and RemoveNetwork, in
// one transaction: the caller waits once for the kernel to free what was deleted.
func (f *Firewall) RemoveLast(ctx context.Context, n Network, e Endpoint) error {
	h, err := holdingsOf(e, manyAsked)
	if err == nil {
		err = checkOwner(n.Name)
	}
	if err == nil {
		err = f.removeLast(ctx, n, h)
	}
	if err != nil {
		return fmt.Errorf("remove rules of %s and of its network: %w", e.Owner, err)
	}
	return nil
}

func (f *Firewall) removeLast(ctx context.Context, n Network, h holdings) error {
	if err := f.renewOther(ctx); err != nil {
		return absent(AsUnsupported(err))
	}
	drop := true
	fill := func(c *conn, b *batch) error {
		if err := c.delHoldings(b, h); err != nil {
			return err
		}
		if err := c.delOthers(b, n, nil); err != nil {
			return err
		}
		if !drop {
			return nil
		}
		return c.dropUnused(b, n, h.owner)
	}
	err := f.transact(ctx, fill)
	if errors.Is(err, errRefused) { // another program has put something into a table of ours, or taken some of it away
		drop = false
		err = f.transact(ctx, fill)
	}
	return absent(AsUnsupported(err))
}

// dropUnused adds the deletion of each of our tables in which no other owner than
// these two has an element.
func (c *conn) dropUnused(b *batch, n Network, endpoint string) error {
	var requests []nfnl.Message
	for _, family := range tableFamilies {
		requests = append(requests, askTable(family))
	}
	there, err := c.holds(requests...)
	if err != nil {
		return err
	}
	for i, family := range tableFamilies {
		if !there[i] {
			continue
		}
		t := tableOf(family)
		used, err := c.usedByOthers(t, n, endpoint)
		if err != nil {
			return err
		}
		if used {
			continue
		}
		if err := c.drop(b, t); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) usedByOthers(t table, n Network, endpoint string) (bool, error) {
	sets := t.sets
	if t.family == unix.NFPROTO_INET {
		sets = append([]*set{&owners}, networkSets...) // these tell of all
	}
	for _, s := range sets {
		all, err := c.elems(s)
		ofNetwork := slices.Contains(networkSets, s)
		if err != nil || slices.ContainsFunc(all, func(e elem) bool { return e.owner != endpoint && (!ofNetwork || !e.heldBy(n)) }) {
			return true, err
		}
	}
	if t.family != unix.NFPROTO_INET {
		return false, nil
	}
	marks, err := c.rules(t.family, marksChain)
	return slices.ContainsFunc(marks, func(r heldRule) bool {
		return !ownsMark(n, r.why) && !adoptsMark(n, r.why)
	}), err
}

// delHoldings adds the deletion of what h.owner has of h.
func (c *conn) delHoldings(b *batch, h holdings) error {
	if h.owner == "" {
		return nil
	}
	gates := gateChain(h.owner)
	there, gated, err := c.lookAlso(h.byKey, askChain(unix.NFPROTO_IPV4, gates), askChain(unix.NFPROTO_IPV6, gates))
	if err != nil {
		return err
	}
	held := map[*set]bool{}
	for _, f := range there {
		if f.owner == h.owner {
			held[f.asked.set] = true
			b.del(f.elem)
		}
	}
	lists := slices.DeleteFunc(slices.Clone(h.bySet), func(s *set) bool { return s.family == unix.NFPROTO_INET && !held[&owners] })
	if held[&guarded] && !held[&macs] { // its MAC is another than we were told
		lists = append(lists, &macs)
	}
	for _, s := range lists {
		if err := c.delHeld(b, s, h.owner); err != nil {
			return err
		}
	}
	for i, f := range bothFamilies() {
		if !gated[i] {
			continue
		}
		if err := c.delGate(b, f, h.owner); err != nil {
			return err
		}
	}
	return nil
}

// delHeld adds the deletion of all elements of s that owner holds.
func (c *conn) delHeld(b *batch, s *set, owner string) error {
	all, err := c.elems(s)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.owner == owner {
			b.del(e)
		}
	}
	return nil
}

// absent returns nil for ErrUnsupported: what the kernel cannot hold is not there.
func absent(err error) error {
	if errors.Is(err, ErrUnsupported) {
		return nil
	}
	return err
}

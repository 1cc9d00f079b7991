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

// Remove deletes the elements that the endpoints' Owners hold, in one transaction, and no
// others: a change by another process meanwhile makes it look again. A missing element is success.
// Elements are found by key as far as the fields are known: nil Addrs, no Bridge, no Port
// and nil Ports mean unknown, and cost a listing of the sets concerned, as do some hundred
// ports; empty Addrs and Ports mean none. Masquerade, Hairpin and the like say nothing
// here. A nil MAC costs a listing only if Port is guarded. With Owner alone everything of
// the owner goes.
func (f *Firewall) Remove(ctx context.Context, es ...firewall.Endpoint) error {
	if err := f.remove(ctx, es); err != nil {
		return fmt.Errorf("remove rules of %s: %w", firewall.Owners(es), err)
	}
	return nil
}

func (f *Firewall) remove(ctx context.Context, es []firewall.Endpoint) error {
	all := make([]ruleset.Holdings, len(es))
	for i, e := range es {
		h, err := ruleset.HoldingsOf(e, manyAsked)
		if err != nil {
			return err
		}
		all[i] = h
	}
	if err := f.renewOther(ctx); err != nil {
		return absent(err)
	}
	return absent(f.transact(ctx, func(c *conn, b *batch) error {
		for _, h := range all {
			if err := c.delHoldings(b, h); err != nil {
				return err
			}
		}
		return nil
	}))
}

// RemoveLast is Remove for the last endpoint of a network, and RemoveNetwork, in
// one transaction: the caller waits once for the kernel to free what was deleted.
func (f *Firewall) RemoveLast(ctx context.Context, n firewall.Network, e firewall.Endpoint) error {
	h, err := ruleset.HoldingsOf(e, manyAsked)
	if err == nil {
		err = firewall.CheckOwner(n.Name)
	}
	if err == nil {
		err = f.removeLast(ctx, n, h)
	}
	if err != nil {
		return fmt.Errorf("remove rules of %s and of its network: %w", e.Owner, err)
	}
	return nil
}

func (f *Firewall) removeLast(ctx context.Context, n firewall.Network, h ruleset.Holdings) error {
	if err := f.renewOther(ctx); err != nil {
		return absent(firewall.AsUnsupported(err))
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
		return c.dropUnused(b, n, h.Owner)
	}
	err := f.transact(ctx, fill)
	if errors.Is(err, transaction.ErrRefused) { // another program has put something into a table of ours, or taken some of it away
		drop = false
		err = f.transact(ctx, fill)
	}
	return absent(firewall.AsUnsupported(err))
}

// dropUnused adds the deletion of each of our tables in which no other owner than
// these two has an element.
func (c *conn) dropUnused(b *batch, n firewall.Network, endpoint string) error {
	var requests []nfnl.Message
	for _, family := range ruleset.TableFamilies {
		requests = append(requests, askTable(family))
	}
	there, err := c.holds(requests...)
	if err != nil {
		return err
	}
	for i, family := range ruleset.TableFamilies {
		if !there[i] {
			continue
		}
		t := ruleset.TableOf(family)
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

func (c *conn) usedByOthers(t ruleset.Table, n firewall.Network, endpoint string) (bool, error) {
	sets := t.Sets
	if t.Family == unix.NFPROTO_INET {
		sets = append([]*ruleset.Set{&ruleset.Owners}, ruleset.NetworkSets...) // these tell of all
	}
	for _, s := range sets {
		all, err := c.elems(s)
		ofNetwork := slices.Contains(ruleset.NetworkSets, s)
		if err != nil || slices.ContainsFunc(all, func(e ruleset.Elem) bool { return e.Owner != endpoint && (!ofNetwork || !e.HeldBy(n)) }) {
			return true, err
		}
	}
	if t.Family != unix.NFPROTO_INET {
		return false, nil
	}
	marks, err := c.rules(t.Family, ruleset.MarksChain)
	return slices.ContainsFunc(marks, func(r heldRule) bool {
		return !ruleset.OwnsMark(n, r.why) && !ruleset.AdoptsMark(n, r.why)
	}), err
}

// delHoldings adds the deletion of what h.owner has of h.
func (c *conn) delHoldings(b *batch, h ruleset.Holdings) error {
	if h.Owner == "" {
		return nil
	}
	gates := ruleset.GateChain(h.Owner)
	there, gated, err := c.lookAlso(h.ByKey, askChain(unix.NFPROTO_IPV4, gates), askChain(unix.NFPROTO_IPV6, gates))
	if err != nil {
		return err
	}
	held := map[*ruleset.Set]bool{}
	for _, f := range there {
		if f.Owner == h.Owner {
			held[f.asked.Set] = true
			b.Del(f.Elem)
		}
	}
	lists := slices.DeleteFunc(slices.Clone(h.BySet), func(s *ruleset.Set) bool { return s.Family == unix.NFPROTO_INET && !held[&ruleset.Owners] })
	if held[&ruleset.Guarded] && !held[&ruleset.MACs] { // its MAC is another than we were told
		lists = append(lists, &ruleset.MACs)
	}
	for _, s := range lists {
		if err := c.delHeld(b, s, h.Owner); err != nil {
			return err
		}
	}
	for i, f := range ruleset.BothFamilies() {
		if !gated[i] {
			continue
		}
		if err := c.delGate(b, f, h.Owner); err != nil {
			return err
		}
	}
	return nil
}

// delHeld adds the deletion of all elements of s that owner holds.
func (c *conn) delHeld(b *batch, s *ruleset.Set, owner string) error {
	all, err := c.elems(s)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Owner == owner {
			b.Del(e)
		}
	}
	return nil
}

// absent returns nil for firewall.ErrUnsupported: what the kernel cannot hold is not there.
func absent(err error) error {
	if errors.Is(err, firewall.ErrUnsupported) {
		return nil
	}
	return err
}

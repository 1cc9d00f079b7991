package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	h, err := holdingsOf(e)
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
	h, err := holdingsOf(e)
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
		if err != nil || slices.ContainsFunc(all, func(e elem) bool { return e.owner != endpoint && (!ofNetwork || !n.holds(e)) }) {
			return true, err
		}
	}
	if t.family != unix.NFPROTO_INET {
		return false, nil
	}
	marks, err := c.rules(t.family, marksChain)
	return slices.ContainsFunc(marks, func(r heldRule) bool {
		return !n.hasMark(r.why) && !n.adoptsMark(r.why)
	}), err
}

// holdings are where an owner's elements are: at keys, the first of which is
// its element in owners, and somewhere in sets.
type holdings struct {
	owner string
	byKey []elem
	bySet []*set
}

func holdingsOf(e Endpoint) (holdings, error) {
	if err := checkOwner(e.Owner); err != nil {
		return holdings{}, fmt.Errorf("owner %w", err)
	}
	byKey := []elem{ownerElem(e.Owner)}
	var bySet []*set
	add := func(known bool, elems func() ([]elem, error), sets []*set) error {
		if !known {
			bySet = append(bySet, sets...)
			return nil
		}
		more, err := elems()
		byKey = append(byKey, more...)
		return err
	}
	plain4, ports4 := ipv4().all()
	plain6, ports6 := ipv6().all()
	where := e.Addrs != nil && e.Bridge != ""
	err := errors.Join(
		add(where, e.allMasqElems, append(plain4, plain6...)),
		add(where && e.Ports != nil && numbers(e.Ports) <= manyAsked, e.allPortElems, append(ports4, ports6...)),
		add(e.Port != "", e.macElems, []*set{&guarded, &macs}))
	return holdings{Key(e.Owner), byKey, bySet}, err
}

// numbers counts the ports: of many, to list the sets is cheaper than to ask for
// the elements, which with all that they might be are six or more for each.
func numbers(ports []PortMap) int {
	n := 0
	for _, m := range ports {
		if m.HostPort != m.ContainerPort {
			n += int(m.last() - m.HostPort)
		}
		n++
	}
	return n
}

// allMasqElems are the elements of any Masquerade and Source.
func (e Endpoint) allMasqElems() ([]elem, error) {
	e.Masquerade, e.Source = Families{true, true}, []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	return e.masqElems()
}

// allPortElems are the elements of Ports under any policy, with Hairpin and
// without, Beside and not, and with Standby and without.
func (e Endpoint) allPortElems() ([]elem, error) {
	var all []elem
	e.ConditionsIPv4, e.ConditionsIPv6, e.Handover = nil, nil, nil // see delGate
	e.Beside = false
	standby := [][]PortMap{nil}
	if len(e.Standby) > 0 {
		standby = append(standby, e.Standby)
	}
	for _, e.Standby = range standby {
		for _, hairpin := range []bool{true, false} {
			e.Hairpin, e.MasqueradeAll = hairpin, hairpin
			p, err := e.planPorts(Network{Trusted: []string{""}})
			if err != nil {
				return nil, err
			}
			all = append(all, p.elems...)
		}
	}
	more, err := e.singleOpens()
	if err != nil {
		return nil, err
	}
	all = append(all, more...)
	for _, el := range all {
		for _, f := range bothFamilies() {
			switch el.set {
			case &f.hairpin[0]:
				el.set = &f.hairpin[1]
				all = append(all, el)
			case &f.masqAll[0]:
				el.set = &f.masqAll[1]
				all = append(all, el)
			}
		}
	}
	return dedupe(all), nil
}

// singleOpens are the elements by which each mapping of Ports opens its own ports
// of the container: earlier versions did not put those together that meet.
func (e Endpoint) singleOpens() ([]elem, error) {
	addrs, err := e.addrs()
	if err != nil {
		return nil, err
	}
	var all []elem
	for _, a := range addrs {
		p := publication{sets: setsFor(a), target: a, owner: Key(e.Owner)}
		for _, m := range e.Ports {
			if m, ok := m.in(a.Is4()); ok {
				if err := p.open([]PortMap{m}); err != nil {
					return nil, err
				}
			}
		}
		all = append(all, p.elems...)
	}
	return all, nil
}

// delHoldings adds the deletion of what h.owner has of h.
func (c *conn) delHoldings(b *batch, h holdings) error {
	if h.owner == "" {
		return nil
	}
	gates := chainOf(h.owner)
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

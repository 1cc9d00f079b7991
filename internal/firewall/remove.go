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
// the sets concerned; empty Addrs and Ports mean none. Masquerade, Hairpin and
// the like say nothing here. A nil MAC costs a listing only if Port is guarded.
// With Owner alone everything of the owner goes.
func (f *Firewall) Remove(ctx context.Context, e Endpoint) error {
	if err := f.remove(ctx, e); err != nil {
		return fmt.Errorf("remove rules of %s: %w", e.Owner, err)
	}
	return nil
}

func (f *Firewall) remove(ctx context.Context, e Endpoint) error {
	if err := checkOwner(e.Owner); err != nil {
		return fmt.Errorf("owner %w", err)
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
		add(where && e.Ports != nil, e.allPortElems, append(ports4, ports6...)),
		add(e.Port != "", e.macElems, []*set{&guarded, &macs}))
	if err != nil {
		return err
	}
	return f.removeHeld(ctx, Key(e.Owner), byKey, bySet)
}

// allMasqElems are the elements of any Masquerade and Source.
func (e Endpoint) allMasqElems() ([]elem, error) {
	e.Masquerade, e.Source = Families{true, true}, []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	return e.masqElems()
}

// allPortElems are the elements of Ports under any policy, with Hairpin and
// without, Beside and not.
func (e Endpoint) allPortElems() ([]elem, error) {
	var all []elem
	e.ConditionsIPv4, e.ConditionsIPv6 = nil, nil // see delGate
	e.Beside = false
	for _, hairpin := range []bool{true, false} {
		e.Hairpin, e.MasqueradeAll = hairpin, hairpin
		p, err := e.planPorts(Network{Trusted: []string{""}})
		if err != nil {
			return nil, err
		}
		all = append(all, p.elems...)
	}
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

// removeHeld deletes what owner holds of byKey, the first of which is its element
// in owners, and in the sets bySet.
func (f *Firewall) removeHeld(ctx context.Context, owner string, byKey []elem, bySet []*set) error {
	err := f.do(ctx, func(c *conn) error {
		generation, err := c.generation()
		if err != nil {
			return err
		}
		gates := chainOf(owner)
		there, gated, err := c.lookAlso(byKey, askChain(unix.NFPROTO_IPV4, gates), askChain(unix.NFPROTO_IPV6, gates))
		if err != nil {
			return err
		}
		b := newBatch(generation)
		held := map[*set]bool{}
		for _, f := range there {
			if f.owner == owner {
				held[f.asked.set] = true
				b.del(f.elem)
			}
		}
		lists := slices.DeleteFunc(slices.Clone(bySet), func(s *set) bool { return s.family == unix.NFPROTO_INET && !held[&owners] })
		if held[&guarded] && !held[&macs] { // its MAC is another than we were told
			lists = append(lists, &macs)
		}
		for _, s := range lists {
			if err := c.delHeld(b, s, owner); err != nil {
				return err
			}
		}
		for i, f := range bothFamilies() {
			if !gated[i] {
				continue
			}
			if err := c.delGate(b, f, owner); err != nil {
				return err
			}
		}
		return c.commit(b)
	})
	return absent(err)
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

// dropEmpty deletes those of our tables in which nobody has an element.
func (f *Firewall) dropEmpty(ctx context.Context) error {
	var there []bool
	err := f.do(ctx, func(c *conn) error {
		var requests []nfnl.Message
		for _, family := range tableFamilies {
			requests = append(requests, askTable(family))
		}
		var err error
		there, err = c.holds(requests...)
		return err
	})
	for i, family := range tableFamilies {
		if err == nil && there[i] {
			err = f.dropTable(ctx, tableOf(family))
		}
	}
	return absent(supported(err))
}

// dropTable lets the kernel say whether t is empty: looking first and deleting
// then would take away what another one applies in between.
func (f *Firewall) dropTable(ctx context.Context, t table) error {
	err := f.do(ctx, func(c *conn) error {
		b := newBatch(0)
		b.drop(t)
		err := c.commit(b)
		if errors.Is(err, errRefused) && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EBUSY)) {
			return errKept
		}
		return err
	})
	if errors.Is(err, errKept) {
		return nil
	}
	return err
}

// errKept is a table that is in use, or that somebody else has just removed.
var errKept = errors.New("table is kept")

// absent returns nil for ErrUnsupported: what the kernel cannot hold is not there.
func absent(err error) error {
	if errors.Is(err, ErrUnsupported) {
		return nil
	}
	return err
}

package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Remove deletes the elements that e.Owner holds, in one transaction, and no
// one else's: a change by others meanwhile makes it look again. What is missing
// is success. Elements are found by key as far as the fields are known: nil
// Addrs, no Bridge, and no Port mean unknown, and cost a listing of the sets
// concerned; empty Addrs mean none. Masquerade says nothing here. A nil MAC
// costs a listing only if Port is guarded. With Owner alone everything of the
// owner goes.
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
	var byKey []elem
	var bySet []*set
	if e.Addrs == nil || e.Bridge == "" {
		bySet = append(bySet, &masq4, &home4, &masq6, &home6)
	} else {
		masq, err := e.masqElems()
		if err != nil {
			return err
		}
		byKey = masq
	}
	if e.Port == "" {
		bySet = append(bySet, &guarded, &macs)
		return f.removeHeld(ctx, Key(e.Owner), byKey, bySet)
	}
	mac, err := e.macElems()
	if err != nil {
		return err
	}
	return f.removeHeld(ctx, Key(e.Owner), append(byKey, mac...), bySet)
}

// removeHeld deletes what owner holds of byKey and in the sets bySet.
func (f *Firewall) removeHeld(ctx context.Context, owner string, byKey []elem, bySet []*set) error {
	err := f.do(ctx, func(c *conn) error {
		generation, err := c.generation()
		if err != nil {
			return err
		}
		var b batch
		held := map[*set]bool{}
		for _, e := range byKey {
			holder, found, err := c.holder(e)
			if err != nil {
				return err
			}
			if found && holder == owner {
				held[e.set] = true
				b.del(e)
			}
		}
		lists := bySet
		if held[&guarded] && !held[&macs] { // its MAC is another than we were told
			lists = append(slices.Clone(bySet), &macs)
		}
		for _, s := range lists {
			if err := c.delHeld(&b, s, owner); err != nil {
				return err
			}
		}
		return c.commit(generation, &b)
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

// RemoveNetwork deletes the elements that n.Name holds for n.Bridge, and then
// our tables, each if nobody has an element in it. What is missing is success,
// and so is a table in use. Internal and NoICC say nothing here. An empty
// Bridge means unknown: the elements of all bridges are looked through.
func (f *Firewall) RemoveNetwork(ctx context.Context, n Network) error {
	err := checkOwner(n.Name)
	var byKey []elem
	bySet := []*set{&internal, &inside, &noicc}
	if err == nil && n.Bridge != "" {
		bySet = nil
		byKey, err = Network{Name: n.Name, Bridge: n.Bridge, Internal: true, NoICC: true}.elems()
	}
	if err == nil {
		err = f.removeHeld(ctx, Key(n.Name), byKey, bySet)
	}
	for _, t := range []table{inetTable(), bridgeTable()} {
		if err == nil {
			err = f.dropEmpty(ctx, t)
		}
	}
	if err != nil {
		return fmt.Errorf("remove rules of network %s: %w", n.Name, err)
	}
	return nil
}

// dropEmpty lets the kernel say whether t is empty: looking first and deleting
// then would take away what another one applies in between.
func (f *Firewall) dropEmpty(ctx context.Context, t table) error {
	err := f.do(ctx, func(c *conn) error {
		there, err := c.holdsTable(t.family)
		if err != nil || !there {
			return err
		}
		var b batch
		b.drop(t)
		return c.commit(0, &b)
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return absent(supported(err))
}

// absent returns nil for ErrUnsupported: what the kernel cannot hold is not there.
func absent(err error) error {
	if errors.Is(err, ErrUnsupported) {
		return nil
	}
	return err
}

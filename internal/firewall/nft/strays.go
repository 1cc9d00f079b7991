package nft

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
)

// Asked is what Apply was asked for.
type Asked struct {
	Network  firewall.Network
	Endpoint firewall.Endpoint
}

// Stray is an element of our sets that has an owner, and that this owner did not ask for.
type Stray struct {
	Owner string // in the form of firewall.Key
	// Closes: it keeps packets out, the others let packets in or lead them elsewhere.
	Closes bool
	// Listed: List names the owner, so that it was put there by Apply, or by a program
	// that took care to look so.
	Listed bool
	elem   ruleset.Elem
}

// String is set and key, as nft writes them.
func (s Stray) String() string { return s.elem.String() }

// Strays returns the elements that none of asked explains. Without our tables there are
// none. Its cost grows with what exists.
func (f *Firewall) Strays(ctx context.Context, asked []Asked) ([]Stray, error) {
	want, err := explain(asked)
	if err != nil {
		return nil, err
	}
	var all []Stray
	err = f.do(ctx, func(c *conn) error {
		all = nil
		if _, err := transaction.Generation(c.nl); err != nil {
			return err
		}
		listed := map[string]bool{}
		for _, family := range ruleset.TableFamilies {
			for _, s := range ruleset.TableOf(family).Sets {
				elems, err := c.elems(s)
				if err != nil {
					return err
				}
				for _, e := range elems {
					listed[e.Owner] = listed[e.Owner] || s == &ruleset.Owners || s == &ruleset.Guarded
					if e.Owner != "" && s != &ruleset.Strict && !want.explains(e) {
						all = append(all, Stray{Owner: e.Owner, Closes: slices.Contains(ruleset.ClosingSets, s), elem: e})
					}
				}
			}
		}
		for i := range all {
			all[i].Listed = listed[all[i].Owner]
		}
		return nil
	})
	if err := absent(firewall.AsUnsupported(err)); err != nil {
		return nil, fmt.Errorf("look for elements that no record explains: %w", err)
	}
	return all, nil
}

// RemoveStrays deletes those that are as they were. The caller keeps their owners from
// being changed meanwhile.
func (f *Firewall) RemoveStrays(ctx context.Context, strays []Stray) error {
	err := f.transact(ctx, func(c *conn, b *batch) error {
		asked := make([]ruleset.Elem, len(strays))
		for i, s := range strays {
			asked[i] = s.elem
		}
		there, err := c.look(asked)
		for _, t := range there {
			if !t.missing() && t.Owner == t.asked.Owner && t.Gives(t.asked) {
				b.Del(t.Elem)
			}
		}
		return err
	})
	if err := absent(firewall.AsUnsupported(err)); err != nil {
		return fmt.Errorf("delete elements that no record explains: %w", err)
	}
	return nil
}

// explained are elements that were asked for, and owners of conditions.
type explained struct {
	elems map[ruleset.Slot][]ruleset.Elem
	gated map[string]bool
}

func explain(asked []Asked) (explained, error) {
	x := explained{map[ruleset.Slot][]ruleset.Elem{}, map[string]bool{}}
	for _, a := range asked {
		p, err := ruleset.Plan(a.Network, a.Endpoint)
		if err != nil {
			return x, err
		}
		for _, e := range p.Elems {
			x.elems[e.Slot()] = append(x.elems[e.Slot()], e)
		}
		for _, g := range p.Gates {
			x.gated[g.Owner] = true
		}
	}
	return x, nil
}

// explains says that an element was asked for. The owner in an element that networks share
// does not count: several networks may have asked for it.
func (x explained) explains(e ruleset.Elem) bool {
	if e.Set.Family == unix.NFPROTO_IPV4 || e.Set.Family == unix.NFPROTO_IPV6 {
		return x.gated[e.Owner]
	}
	return slices.ContainsFunc(x.elems[e.Slot()], func(o ruleset.Elem) bool { return (e.Shared() || e.Owner == o.Owner) && e.Gives(o) })
}

// opened looks for elements that let into a closed bridge, or by it to e, more than is
// wanted: Verify asks for what is wanted, and does not see more of it.
func (d *differences) opened(n firewall.Network, e firewall.Endpoint, want []ruleset.Elem) error {
	has := func(sets ...*ruleset.Set) bool {
		return slices.ContainsFunc(want, func(e ruleset.Elem) bool { return slices.Contains(sets, e.Set) })
	}
	if !has(ruleset.ClosingSets...) {
		return nil // what is open cannot be opened
	}
	wanted := make(map[ruleset.Slot]bool, len(want))
	for _, e := range want {
		wanted[e.Slot()] = true
	}
	more := func(s *ruleset.Set, is func(ruleset.Elem) (bool, error)) error {
		elems, err := d.c.elems(s)
		for _, o := range elems {
			if err != nil {
				return err
			}
			opens := false
			if opens, err = is(o); opens && !wanted[o.Slot()] && err == nil {
				d.add(fmt.Sprintf("element %s of %q, which lets in more than is asked for", o, o.Owner), firewall.ErrConflict)
			}
		}
		return err
	}
	for _, s := range ruleset.OpeningSets { // each of which has few
		err := more(s, func(o ruleset.Elem) (bool, error) {
			if !o.Concerns(n.Bridge) || wanted[o.Slot()] || s != &ruleset.Inside {
				return o.Concerns(n.Bridge), nil
			}
			tunnel, err := d.throughTunnel(o) // of an overlay network on the bridge, which is another one
			return !tunnel, err
		})
		if err != nil {
			return err
		}
	}
	if !has(&ruleset.Routed, &ruleset.Trusted) {
		return nil // no rule looks at open ports
	}
	for _, s := range ruleset.OpenPorts(e.Addrs) {
		if err := more(s, func(o ruleset.Elem) (bool, error) { return ruleset.Opens(o, e.Addrs), nil }); err != nil {
			return err
		}
	}
	return nil
}

// throughTunnel says that an element of set inside leads to or from a tunnel of ours.
func (d *differences) throughTunnel(e ruleset.Elem) (bool, error) {
	there, err := d.c.look(ruleset.TunnelsOf(e))
	return slices.ContainsFunc(there, func(f found) bool { return !f.missing() }), err
}

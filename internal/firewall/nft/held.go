package nft

import (
	"context"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
)

// CheckPorts changes nothing. It is a *firewall.PortHeldError if another owner than e's
// has a port of e; nil also where there is no nf_tables.
func (f *Firewall) CheckPorts(ctx context.Context, e firewall.Endpoint) error {
	p, err := ruleset.PlanPorts(firewall.Network{}, e)
	if err != nil || len(p.Claims) == 0 {
		return err
	}
	return absent(firewall.AsUnsupported(f.do(ctx, func(c *conn) error {
		_, err := c.refuseHeld(p, nil)
		return err
	})))
}

// refuseHeld returns a *firewall.PortHeldError if another owner has one of the ports, but
// for one whose ports are handed over: its elements are returned. there is what
// was found at the keys of our own elements.
func (c *conn) refuseHeld(p ruleset.Planned, there []found) (handed []ruleset.Elem, err error) {
	if len(p.Claims) == 0 {
		return nil, nil
	}
	var rivals []ruleset.Elem
	for _, f := range there {
		if !f.missing() && f.Owner != f.asked.Owner {
			rivals = append(rivals, f.Elem)
		}
	}
	for _, f := range ruleset.BothFamilies() {
		ours := slices.DeleteFunc(slices.Clone(p.Claims), func(c ruleset.Claim) bool { return c.Sets != f })
		if len(ours) == 0 {
			continue
		}
		more, err := c.rivals(f, ours)
		if err != nil {
			return nil, err
		}
		rivals = append(rivals, more...)
	}
	ours := firewall.IndexPorts(p.Claims, func(c ruleset.Claim) firewall.PortSpan { return c.PortSpan })
	var refused *firewall.PortHeldError
	for _, r := range ruleset.Dedupe(rivals) {
		held, ok := r.Claim()
		if !ok || held.Owner == p.Claims[0].Owner {
			continue
		}
		var parts []firewall.PortSpan
		ours.Meeting(held.PortSpan, func(_ ruleset.Claim, part firewall.PortSpan) { parts = append(parts, part) })
		switch {
		case len(parts) == 0:
		case held.Owner == p.From():
			handed = append(handed, r)
		default:
			if refused == nil {
				refused = &firewall.PortHeldError{Owner: held.Owner, Port: parts[0].String()}
			}
			if refused.Owner == held.Owner {
				for _, part := range parts {
					refused.All = append(refused.All, part.PortMap())
				}
			}
		}
	}
	if refused == nil {
		return handed, nil
	}
	return nil, refused
}

// maxProbes is how many ports are asked for one by one: a list of all comes cheaper for more.
const maxProbes = 64

// rivals returns elements of one family that may stand against ours. Ports of
// any address are the many; of them only those concerned are asked for.
func (c *conn) rivals(f *ruleset.FamilySets, ours []ruleset.Claim) ([]ruleset.Elem, error) {
	lists := []*ruleset.Set{&f.Port, &f.From, &f.Span, &f.Gate}
	var probes []ruleset.Elem
	for _, o := range ours {
		for p := int(o.Lo); p <= int(o.Hi) && len(probes) <= maxProbes; p++ {
			probes = append(probes, f.OfAnyPort(o.Protocol, uint16(p)))
		}
	}
	var all []ruleset.Elem
	if len(probes) > maxProbes {
		lists = append(lists, &f.AnyPort)
	} else {
		there, err := c.look(probes)
		if err != nil {
			return nil, err
		}
		for _, t := range there {
			if !t.missing() {
				all = append(all, t.Elem)
			}
		}
	}
	for _, s := range lists {
		elems, err := c.elems(s)
		if err != nil {
			return nil, err
		}
		all = append(all, elems...)
	}
	return all, nil
}

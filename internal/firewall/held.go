package firewall

import (
	"context"
	"slices"
)

// CheckPorts changes nothing. It is a *PortHeldError if another owner than e's
// has a port of e; nil also where there is no nf_tables.
func (f *Firewall) CheckPorts(ctx context.Context, e Endpoint) error {
	p, err := planPorts(Network{}, e)
	if err != nil || len(p.claims) == 0 {
		return err
	}
	return absent(AsUnsupported(f.do(ctx, func(c *conn) error {
		_, err := c.refuseHeld(p, nil)
		return err
	})))
}

// refuseHeld returns a *PortHeldError if another owner has one of the ports, but
// for one whose ports are handed over: its elements are returned. there is what
// was found at the keys of our own elements.
func (c *conn) refuseHeld(p planned, there []found) (handed []elem, err error) {
	if len(p.claims) == 0 {
		return nil, nil
	}
	var rivals []elem
	for _, f := range there {
		if !f.missing() && f.owner != f.asked.owner {
			rivals = append(rivals, f.elem)
		}
	}
	for _, f := range bothFamilies() {
		ours := slices.DeleteFunc(slices.Clone(p.claims), func(c claim) bool { return c.sets != f })
		if len(ours) == 0 {
			continue
		}
		more, err := c.rivals(f, ours)
		if err != nil {
			return nil, err
		}
		rivals = append(rivals, more...)
	}
	ours := indexClaims(p.claims)
	var refused *PortHeldError
	for _, r := range dedupe(rivals) {
		held, ok := r.claim()
		if !ok || held.owner == p.claims[0].owner {
			continue
		}
		parts := ours.meeting(held)
		switch {
		case len(parts) == 0:
		case held.owner == p.from():
			handed = append(handed, r)
		default:
			if refused == nil {
				refused = &PortHeldError{Owner: held.owner, Port: parts[0].part.String()}
			}
			if refused.Owner == held.owner {
				for _, c := range parts {
					refused.All = append(refused.All, c.part.portMap())
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
func (c *conn) rivals(f *familySets, ours []claim) ([]elem, error) {
	lists := []*set{&f.port, &f.from, &f.span, &f.gate}
	var probes []elem
	for _, o := range ours {
		for p := int(o.lo); p <= int(o.hi) && len(probes) <= maxProbes; p++ {
			probes = append(probes, f.ofAnyPort(o.protocol, uint16(p)))
		}
	}
	var all []elem
	if len(probes) > maxProbes {
		lists = append(lists, &f.anyPort)
	} else {
		there, err := c.look(probes)
		if err != nil {
			return nil, err
		}
		for _, t := range there {
			if !t.missing() {
				all = append(all, t.elem)
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

package firewall

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
)

// gives says that two elements with the same key are the same in all else.
func (e elem) gives(o elem) bool { return bytes.Equal(e.data, o.data) && bytes.Equal(e.end, o.end) }

// same says that two elements have the same key.
func (e elem) same(o elem) bool { return e.set == o.set && bytes.Equal(e.key, o.key) }

// claim returns what an element of a set of ports claims; false if it is none.
func (e elem) claim() (claim, bool) {
	for _, f := range bothFamilies() {
		c := claim{sets: f, owner: e.owner}
		v, ok := e.set.key.split(e.key)
		if !ok {
			return claim{}, false
		}
		switch e.set {
		case &f.anyPort:
			c.protocol, c.lo = Protocol(v[0][0]), binary.BigEndian.Uint16(v[1])
			c.hi = c.lo
		case &f.port:
			c.host, _ = netip.AddrFromSlice(v[0])
			c.protocol, c.lo = Protocol(v[1][0]), binary.BigEndian.Uint16(v[2])
			c.hi = c.lo
		case &f.gate:
			end, ok := e.set.key.split(e.end)
			if !ok {
				return claim{}, false
			}
			if bytes.Equal(v[0], end[0]) {
				c.host, _ = netip.AddrFromSlice(v[0])
			}
			c.protocol, c.lo, c.hi = Protocol(v[1][0]), binary.BigEndian.Uint16(v[2]), binary.BigEndian.Uint16(end[2])
		case &f.from, &f.span:
			end, ok := e.set.key.split(e.end)
			if !ok {
				return claim{}, false
			}
			if bytes.Equal(v[1], end[1]) {
				c.host, _ = netip.AddrFromSlice(v[1])
			}
			c.protocol, c.lo, c.hi = Protocol(v[2][0]), binary.BigEndian.Uint16(v[3]), binary.BigEndian.Uint16(end[3])
		default:
			continue
		}
		return c, true
	}
	return claim{}, false
}

// CheckPorts changes nothing. It is a *PortHeldError if another owner than e's
// has a port of e; nil also where there is no nf_tables.
func (f *Firewall) CheckPorts(ctx context.Context, e Endpoint) error {
	p, err := e.planPorts(Network{})
	if err != nil || len(p.claims) == 0 {
		return err
	}
	return absent(supported(f.do(ctx, func(c *conn) error { return c.refuseHeld(p.claims, nil) })))
}

// refuseHeld returns a *PortHeldError if another owner has one of the ports.
// there is what was found at the keys of our own elements.
func (c *conn) refuseHeld(claims []claim, there []found) error {
	if len(claims) == 0 {
		return nil
	}
	var rivals []elem
	for _, f := range there {
		if !f.missing() && f.owner != f.asked.owner {
			rivals = append(rivals, f.elem)
		}
	}
	for _, f := range bothFamilies() {
		ours := slices.DeleteFunc(slices.Clone(claims), func(c claim) bool { return c.sets != f })
		if len(ours) == 0 {
			continue
		}
		more, err := c.rivals(f, ours)
		if err != nil {
			return err
		}
		rivals = append(rivals, more...)
	}
	for _, r := range rivals {
		held, ok := r.claim()
		if !ok || held.owner == claims[0].owner {
			continue
		}
		if i := slices.IndexFunc(claims, held.meets); i >= 0 {
			return &PortHeldError{Owner: held.owner, Port: claims[i].String()}
		}
	}
	return nil
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
			probes = append(probes, elem{set: &f.anyPort, key: f.anyPort.key.of([]byte{byte(o.protocol)}, port(uint16(p)))})
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

func containsKey(all []elem, e elem) bool { return slices.ContainsFunc(all, e.same) }

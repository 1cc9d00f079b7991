package firewall

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
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
		var first, last [][]byte // of address, protocol and port
		v, ok := e.set.key.split(e.key)
		if !ok {
			return claim{}, false
		}
		end := v
		if e.set.interval {
			if end, ok = e.set.key.split(e.end); !ok {
				return claim{}, false
			}
		}
		switch e.set {
		case &f.anyPort:
			every := (&publication{target: f.zero()}).every()
			first, last = append([][]byte{every.first}, v...), append([][]byte{every.last}, v...)
		case &f.port, &f.gate:
			first, last = v, end
		case &f.from, &f.span:
			first, last = v[1:], end[1:]
		default:
			continue
		}
		c.at = withLocalhost4(addrRange{first[0], last[0]})
		c.protocol, c.lo, c.hi = Protocol(first[1][0]), binary.BigEndian.Uint16(first[2]), binary.BigEndian.Uint16(last[2])
		return c, true
	}
	return claim{}, false
}

// withLocalhost4 puts 127.0.0.0/8 to a range that leaves it out: who publishes a
// port of any address without hairpin has it there, too.
func withLocalhost4(r addrRange) addrRange {
	if bytes.Equal(r.last, notLocalhost4[0].last) {
		r.last = []byte{127, 255, 255, 255}
	}
	if bytes.Equal(r.first, notLocalhost4[1].first) {
		r.first = []byte{127, 0, 0, 0}
	}
	return r
}

// CheckPorts changes nothing. It is a *PortHeldError if another owner than e's
// has a port of e; nil also where there is no nf_tables.
func (f *Firewall) CheckPorts(ctx context.Context, e Endpoint) error {
	p, err := e.planPorts(Network{})
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

// claimIndex are claims in the order of their ports.
type claimIndex struct {
	claims []claim
	widest int // ports of a claim, at most
}

func indexClaims(all []claim) claimIndex {
	x := claimIndex{claims: slices.Clone(all)}
	slices.SortFunc(x.claims, func(a, b claim) int { return cmp.Compare(a.lo, b.lo) })
	for _, c := range all {
		x.widest = max(x.widest, int(c.hi-c.lo)+1)
	}
	return x
}

// meeting is a claim that another one meets, and where.
type meeting struct{ whole, part claim }

// meeting returns the claims that o meets.
func (x claimIndex) meeting(o claim) []meeting {
	first, _ := slices.BinarySearchFunc(x.claims, int(o.lo)-x.widest+1, func(c claim, lo int) int { return cmp.Compare(int(c.lo), lo) })
	var all []meeting
	for _, c := range x.claims[first:] {
		if c.lo > o.hi {
			break
		}
		if c.meets(o) {
			all = append(all, meeting{c, c.common(o)})
		}
	}
	return all
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

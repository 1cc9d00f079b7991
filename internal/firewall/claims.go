package firewall

import (
	"bytes"
	"cmp"
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

// ofAnyPort returns the element of a port of any address; whose it is, and what it
// gives, is left out.
func (f *familySets) ofAnyPort(p Protocol, n uint16) elem {
	return elem{set: &f.anyPort, key: f.anyPort.key.of([]byte{byte(p)}, port(n))}
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

package ipamstore

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/ipmath"
)

// span is a run of addresses that may be chosen automatically, both ends
// included.
type span struct {
	first, last netip.Addr
	rng         int // index of the range it was cut from
}

// pool is a range set made ready: defaults filled in, and everything that is
// never chosen cut out.
type pool struct {
	ranges []Range
	spans  []span // in the order of ranges, ascending within one
	size   uint64 // addresses in spans, at most MaxUint64
}

// rangeOf returns the range that holds a, or nil.
func (p *pool) rangeOf(a netip.Addr) *Range {
	for i := range p.ranges {
		if r := &p.ranges[i]; ipmath.Within(a, r.Start, r.End) {
			return r
		}
	}
	return nil
}

// choosable says whether a may be chosen automatically.
func (p *pool) choosable(a netip.Addr) bool {
	return slices.ContainsFunc(p.spans, func(s span) bool { return ipmath.Within(a, s.first, s.last) })
}

// overlap appends to out what the spans have in common with first to last.
func (p *pool) overlap(out []span, first, last netip.Addr) []span {
	for _, s := range p.spans {
		if s.first.BitLen() != first.BitLen() || last.Less(s.first) || s.last.Less(first) {
			continue
		}
		if s.first.Less(first) {
			s.first = first
		}
		if last.Less(s.last) {
			s.last = last
		}
		out = append(out, s)
	}
	return out
}

// String lists the ranges.
func (p *pool) String() string {
	var out []string
	for _, r := range p.ranges {
		out = append(out, fmt.Sprintf("%s-%s of %s", r.Start, r.End, r.Subnet))
	}
	return strings.Join(out, ", ")
}

// nth returns the address at position k (modulo the size) of the spans.
func (p *pool) nth(k uint64) (netip.Addr, bool) {
	if p.size == 0 {
		return netip.Addr{}, false
	}
	k %= p.size
	for _, s := range p.spans {
		n := s.size()
		if k < n {
			return ipmath.Add(s.first, k), true
		}
		k -= n
	}
	return netip.Addr{}, false
}

// after returns where a search starts that goes on behind a: the next address
// that may be chosen, in the order of the ranges and round to the start.
func (p *pool) after(a netip.Addr) (netip.Addr, bool) {
	for i, r := range p.ranges {
		if !ipmath.Within(a, r.Start, r.End) {
			continue
		}
		for _, s := range p.spans {
			if s.rng > i || s.rng == i && a.Less(s.last) {
				return later(s.first, a, s.rng == i), true
			}
		}
	}
	return p.nth(0)
}

// later returns first, or the address behind a if that is greater and same
// says that both are of one range.
func later(first, a netip.Addr, same bool) netip.Addr {
	if same && first.Compare(a) <= 0 {
		return a.Next()
	}
	return first
}

// from returns the spans in search order: beginning at start, round to it.
func (p *pool) from(start netip.Addr) []span {
	for i, s := range p.spans {
		if !ipmath.Within(start, s.first, s.last) {
			continue
		}
		out := append([]span{{start, s.last, s.rng}}, p.spans[i+1:]...)
		out = append(out, p.spans[:i]...)
		if s.first.Less(start) {
			out = append(out, span{s.first, start.Prev(), s.rng})
		}
		return out
	}
	return p.spans
}

func (s span) size() uint64 { return ipmath.SatAdd(ipmath.Distance(s.first, s.last), 1) }

// cut returns what is left of spans without the addresses first to last.
func cut(spans []span, first, last netip.Addr) []span {
	var out []span
	for _, s := range spans {
		if s.first.BitLen() != first.BitLen() || last.Less(s.first) || s.last.Less(first) {
			out = append(out, s)
			continue
		}
		if s.first.Less(first) {
			out = append(out, span{s.first, first.Prev(), s.rng})
		}
		if last.Less(s.last) {
			out = append(out, span{last.Next(), s.last, s.rng})
		}
	}
	return slices.Clip(out)
}

package netpolicy

import (
	"maps"
	"net/netip"
	"slices"
	"sort"
)

// part are addresses that the same blocks contain.
type part struct {
	from, to netip.Addr
	blocks   []Class // in order; not empty
}

// parts are apart from each other, and in order: IPv4 first.
type parts []part

// at returns the blocks that contain an address.
func (p parts) at(a netip.Addr) []Class {
	i := sort.Search(len(p), func(i int) bool { return p[i].to.Compare(a) >= 0 })
	if i < len(p) && p[i].from.Compare(a) <= 0 {
		return p[i].blocks
	}
	return nil
}

// edge is where a block, or an exception of one, begins or ends.
type edge struct {
	at    netip.Addr
	block Class
	in    int // 1: the block begins, or an exception ends; -1: the opposite
}

// partition divides all addresses by which blocks contain them.
func partition(blocks map[Class]block) parts {
	var edges []edge
	for _, id := range slices.Sorted(maps.Keys(blocks)) {
		for _, s := range blocks[id].spans() {
			edges = append(edges, edge{s.from, id, 1})
			if next := s.to.Next(); next.IsValid() {
				edges = append(edges, edge{next, id, -1})
			}
		}
	}
	slices.SortStableFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })
	var all parts
	inside := map[Class]int{}
	for i := 0; i < len(edges); {
		from := edges[i].at
		if i > 0 && edges[i-1].at.Is4() && from.Is6() {
			clear(inside) // those that go on to the last IPv4 address end nowhere
		}
		for ; i < len(edges) && edges[i].at == from; i++ {
			if inside[edges[i].block] += edges[i].in; inside[edges[i].block] == 0 {
				delete(inside, edges[i].block)
			}
		}
		if len(inside) == 0 {
			continue
		}
		to := last(from)
		if i < len(edges) && edges[i].at.Is4() == from.Is4() {
			to = edges[i].at.Prev()
		}
		all = append(all, part{from, to, slices.Sorted(maps.Keys(inside))})
	}
	return all
}

// spans are the addresses of a block without its exceptions.
func (b block) spans() (all []part) {
	at, end := b.prefix.Addr(), lastOf(b.prefix)
	except := slices.SortedFunc(slices.Values(b.except), func(x, y netip.Prefix) int { return x.Addr().Compare(y.Addr()) })
	for _, e := range except {
		if !e.Overlaps(b.prefix) || lastOf(e).Compare(at) < 0 {
			continue
		}
		if e.Addr().Compare(at) > 0 {
			all = append(all, part{from: at, to: e.Addr().Prev()})
		}
		if at = lastOf(e).Next(); !at.IsValid() || at.Compare(end) > 0 {
			return all
		}
	}
	return append(all, part{from: at, to: end})
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// last is the last address of a family.
func last(a netip.Addr) netip.Addr { return lastOf(netip.PrefixFrom(a, 0)) }

package netpolicy

import (
	"encoding/binary"
	"iter"
	"maps"
	"net/netip"
)

// Table gives values by address. It never changes: a later one shares all parts with it that are the
// same, so that neither making it nor comparing both looks at all addresses.
type Table[V comparable] struct{ parts *[tableParts]*tablePart[V] }

// tableParts are so many that a part of a large cluster has few addresses, and so few that a table is
// made at once.
const (
	tablePartBits = 9
	tableParts    = 1 << tablePartBits
)

type tablePart[V comparable] struct{ values map[netip.Addr]V }

// partOf is the number of the part that an address belongs to.
func partOf(a netip.Addr) int {
	const scatter = 0x9e3779b97f4a7c15 // 2^64 by the golden ratio
	b := a.As16()
	return int((binary.BigEndian.Uint64(b[:8])*31 + binary.BigEndian.Uint64(b[8:])) * scatter >> (64 - tablePartBits))
}

func (t Table[V]) part(i int) map[netip.Addr]V {
	if t.parts == nil || t.parts[i] == nil {
		return nil
	}
	return t.parts[i].values
}

// At returns the value of an address, and whether it has one.
func (t Table[V]) At(a netip.Addr) (v V, there bool) {
	v, there = t.part(partOf(a))[a]
	return v, there
}

// All are all addresses and their values.
func (t Table[V]) All() iter.Seq2[netip.Addr, V] {
	return func(yield func(netip.Addr, V) bool) {
		for was := range Differing(t, Table[V]{}) {
			for a, v := range was {
				if !yield(a, v) {
					return
				}
			}
		}
	}
}

// Differing are the parts of two tables that may differ, of each as a map. All other addresses have the
// same in both.
func Differing[V comparable](from, to Table[V]) iter.Seq2[map[netip.Addr]V, map[netip.Addr]V] {
	return func(yield func(was, is map[netip.Addr]V) bool) {
		for i := range tableParts {
			if from.parts != nil && to.parts != nil && from.parts[i] == to.parts[i] {
				continue
			}
			if was, is := from.part(i), to.part(i); len(was)+len(is) > 0 && !yield(was, is) {
				return
			}
		}
	}
}

// edit makes a later table.
type edit[V comparable] struct {
	Table[V]
	own [tableParts]bool // parts that are no other table's
}

// edit begins with what the table has.
func (t Table[V]) edit() *edit[V] {
	e := &edit[V]{Table: Table[V]{new([tableParts]*tablePart[V])}}
	if t.parts != nil {
		*e.parts = *t.parts
	}
	return e
}

// put gives an address a value, or none.
func (e *edit[V]) put(a netip.Addr, v V, is bool) {
	if was, had := e.At(a); had == is && (!is || was == v) {
		return
	}
	i := partOf(a)
	if !e.own[i] {
		values := maps.Clone(e.part(i))
		if values == nil {
			values = map[netip.Addr]V{}
		}
		e.own[i], e.parts[i] = true, &tablePart[V]{values}
	}
	if is {
		e.parts[i].values[a] = v
	} else {
		delete(e.parts[i].values, a)
	}
}

package netpolicy

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// A table has what a map has that is changed as it is, tables before it stay as they were, and parts
// that differ have all that differs.
func TestTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var tables []Table[int]
	var want []map[netip.Addr]int
	last, now := Table[int]{}, map[netip.Addr]int{}
	for range 60 {
		e := last.edit()
		for range r.IntN(40) {
			a, v, is := netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), byte(r.IntN(200))}), r.IntN(3), r.IntN(3) > 0
			if r.IntN(2) == 0 {
				a = netip.AddrFrom16([16]byte{0xfd, 1: byte(r.IntN(3)), 15: byte(r.IntN(200))})
			}
			if e.put(a, v, is); is {
				now[a] = v
			} else {
				delete(now, a)
			}
		}
		last = e.Table
		tables, want = append(tables, last), append(want, maps.Clone(now))
	}
	for i, table := range tables {
		if got := maps.Collect(table.All()); !maps.Equal(got, want[i]) {
			t.Fatalf("table %d: %v, want %v", i, got, want[i])
		}
		for a, v := range want[i] {
			if got, there := table.At(a); !there || got != v {
				t.Fatalf("table %d at %s: %d, %v; want %d", i, a, got, there, v)
			}
		}
		other := r.IntN(len(tables))
		moved := maps.Clone(want[i])
		for was, is := range Differing(table, tables[other]) {
			for a := range was {
				delete(moved, a)
			}
			maps.Copy(moved, is)
		}
		if !maps.Equal(moved, want[other]) {
			t.Fatalf("what differs of %d and %d makes %v, want %v", i, other, moved, want[other])
		}
	}
	for was, is := range Differing(last, last) {
		t.Errorf("a table differs from itself: %v, %v", was, is)
	}
}

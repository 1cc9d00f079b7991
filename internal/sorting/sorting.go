// Package sorting sorts slices of every type by one sort.
package sorting

import (
	"cmp"
	"maps"
	"slices"
)

// Stable sorts all by compare, which is as for slices.SortFunc; what compares equal stays in its
// order. slices.SortFunc and SortStableFunc are compiled anew for each type, which makes a plugin
// 14 KB larger, or 25 KB; Stable sorts indices instead, for 1 KB. Package slices serves
// better where many values of one type are sorted: Stable allocates, and calls compare
// through another function.
func Stable[E any](all []E, compare func(a, b E) int) {
	order := sorted(len(all), func(i, j int) int { return compare(all[i], all[j]) })
	if order == nil {
		return
	}
	from := slices.Clone(all)
	for to, i := range order {
		all[to] = from[i]
	}
}

// Ordered is slices.Sort.
func Ordered[E cmp.Ordered](all []E) { Stable(all, cmp.Compare[E]) }

// Keys returns the keys of a map in their order.
func Keys[K cmp.Ordered, V any](of map[K]V) []K {
	all := slices.Collect(maps.Keys(of))
	Ordered(all)
	return all
}

// sorted returns the indices of n values in their order, or nil if they are in it.
func sorted(n int, compare func(i, j int) int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	byOrder := func(i, j int) int { return cmp.Or(compare(i, j), i-j) }
	if slices.IsSortedFunc(order, byOrder) {
		return nil
	}
	slices.SortFunc(order, byOrder)
	return order
}

// Package sorting sorts slices of every type by one sort.
package sorting

import (
	"cmp"
	"slices"
)

// Stable sorts all by compare, which is as for slices.SortFunc; what compares equal stays in its
// order. slices.SortFunc and SortStableFunc are compiled anew for each type, which makes a plugin
// 14 KB larger, or 25 KB; Stable sorts indices instead, for 1 KB. Package slices serves
// better where many values of one type are sorted: Stable allocates, and calls compare
// through another function.
func Stable[E any](all []E, compare func(a, b E) int) {
	if len(all) < 2 {
		return
	}
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Or(compare(all[i], all[j]), i-j) })
	from := slices.Clone(all)
	for to, i := range order {
		all[to] = from[i]
	}
}

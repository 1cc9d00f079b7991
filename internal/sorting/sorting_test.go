package sorting

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Stable sorts as slices.SortStableFunc does.
func TestStable(t *testing.T) {
	type item struct{ Key, Place int }
	byKey := func(a, b item) int { return a.Key - b.Key }
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		all := make([]item, n)
		for i := range all {
			all[i] = item{r.IntN(1 + n/3), i}
		}
		want := slices.Clone(all)
		slices.SortStableFunc(want, byKey)
		Stable(all, byKey)
		if diff := cmp.Diff(want, all); diff != "" {
			t.Fatalf("%d items (-want +got):\n%s", n, diff)
		}
	}
}

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

// Ordered sorts, and Keys are all keys in their order.
func TestOrdered(t *testing.T) {
	all := []string{"b", "c", "a", "b"}
	Ordered(all)
	if diff := cmp.Diff([]string{"a", "b", "b", "c"}, all); diff != "" {
		t.Errorf("Ordered (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{1, 2, 3}, Keys(map[int]bool{3: true, 1: false, 2: true})); diff != "" {
		t.Errorf("Keys (-want +got):\n%s", diff)
	}
	if none := Keys(map[int]bool(nil)); none != nil {
		t.Errorf("Keys of no map: %v", none)
	}
}

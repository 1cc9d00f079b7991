package service

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func shares(weights ...int) (all []Share) {
	for i, w := range weights {
		all = append(all, Share{fmt.Sprintf("container-%d:eth0", i), w})
	}
	return all
}

// portions returns what part of all connections each share gets.
func portions(all []Share, s Slots) []float64 {
	got, rest := make([]float64, len(all)), 0
	for _, i := range s.First {
		if i < 0 {
			rest++
			continue
		}
		got[i] += 1.0 / Buckets
	}
	for _, i := range s.Rest {
		if i >= 0 {
			got[i] += float64(rest) / Buckets / Buckets
		}
	}
	return got
}

func TestAssignByWeight(t *testing.T) {
	for _, weights := range [][]int{{1}, {1, 1}, {1, 1, 1, 1, 1, 1, 1}, {1, 2, 3, 4, 5, 6, 7}, {1, 1000}, {3, 7}, slices.Repeat([]int{1}, 10), slices.Repeat([]int{1}, 63), slices.Repeat([]int{1}, 65), slices.Repeat([]int{1}, 100)} {
		all := shares(weights...)
		total := 0
		for _, w := range weights {
			total += w
		}
		sum := 0.0
		for i, got := range portions(all, Assign(all)) {
			sum += got
			want := float64(weights[i]) / float64(total)
			// A slot of the second table is 1/64 of the buckets that it divides.
			if math.Abs(got-want) > float64(min(len(all), Buckets))/Buckets/Buckets {
				t.Errorf("%v: share %d gets %.5f of all, want %.5f", weights, i, got, want)
			}
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Errorf("%v: %.6f of all connections lead to a backend", weights, sum)
		}
	}
}

// The buckets are those of earlier releases: else each upgrade would move clients.
func TestAssignStays(t *testing.T) {
	for first, want := range map[int]uint64{3: 0x34e61e1fd72d13dc, 7: 0xa508a260519b2437, 1000: 0x5158726f0aa3b469} {
		sum := fnv.New64a()
		for n := 1; n <= 40; n++ {
			all := shares(slices.Repeat([]int{3}, n)...)
			all[0].Weight = first
			_, _ = fmt.Fprint(sum, Assign(all), AssignClients(all))
		}
		if got := sum.Sum64(); got != want {
			t.Errorf("weights %d, 3, …: buckets with sum %#x, want %#x", first, got, want)
		}
	}
}

func BenchmarkAssign(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		all := shares(slices.Repeat([]int{1}, n)...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Assign(all)
			}
		})
	}
}

// bestFirst is fill by its definition: all pairs in order, the best one first.
func bestFirst(to []int, shares []Share, quota []int) {
	type pair struct {
		share, bucket int
		score         float64
	}
	alike := !slices.ContainsFunc(shares, func(b Share) bool { return b.Weight != shares[0].Weight })
	var all []pair
	for i, b := range shares {
		for bucket := range to {
			to[bucket] = unassigned
			u := chance(hashed(b.Key, "round"), bucket)
			score := 1 - u
			if !alike {
				score = -math.Log(u) / float64(b.Weight)
			}
			all = append(all, pair{i, bucket, score})
		}
	}
	slices.SortStableFunc(all, func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(shares[a.share].Key, shares[b.share].Key), cmp.Compare(a.bucket, b.bucket))
	})
	left := slices.Clone(quota)
	for _, p := range all {
		if left[p.share] > 0 && to[p.bucket] == unassigned {
			to[p.bucket] = p.share
			left[p.share]--
		}
	}
}

// Whatever the weights and quotas, and with shares of one key, the best pairs are served first.
func TestFillServesTheBestFirst(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		var all []Share
		most := 1 + random.IntN(40)
		for i := range 1 + random.IntN(100) {
			key := fmt.Sprint(random.Uint64())
			if i > 0 && random.IntN(6) == 0 {
				key = all[random.IntN(i)].Key
			}
			all = append(all, Share{key, 1 + random.IntN(most)})
		}
		quota := make([]int, len(all))
		for range random.IntN(Buckets + 1) {
			quota[random.IntN(len(all))]++
		}
		got, want := make([]int, Buckets), make([]int, Buckets)
		fill(got, all, quota, "round")
		bestFirst(want, all, quota)
		if !slices.Equal(got, want) {
			t.Fatalf("%v with quotas %v: buckets %v, want %v", all, quota, got, want)
		}
	}
}

// The hash is FNV-1a of the standard library.
func TestHashed(t *testing.T) {
	for _, key := range []string{"", "a", "container-1:eth0", "\xff\x00ü"} {
		want := fnv.New64a()
		_, _ = want.Write([]byte(key + "\x00first"))
		if got := hashed(key, "first"); got != want.Sum64() {
			t.Errorf("%q: %#x, want %#x", key, got, want.Sum64())
		}
	}
}

func TestAssignNone(t *testing.T) {
	s, clients := Assign(nil), AssignClients(nil)
	for i := range Buckets {
		if s.First[i] >= 0 || s.Rest[i] >= 0 || clients[i] >= 0 {
			t.Fatalf("%+v", s)
		}
	}
}

// The order of the shares is nothing, and the clients of the others stay when one goes.
func TestClientsAreStable(t *testing.T) {
	for n := 2; n <= 40; n++ {
		all := shares(slices.Repeat([]int{1}, n)...)
		before := AssignClients(all)
		reversed := slices.Clone(all)
		slices.Reverse(reversed)
		for bucket, i := range AssignClients(reversed) {
			if reversed[i] != all[before[bucket]] {
				t.Fatalf("%d shares: in another order bucket %d is %s, was %s", n, bucket, reversed[i].Key, all[before[bucket]].Key)
			}
		}
		worst := 1.0
		for gone := range all {
			fewer := slices.Delete(slices.Clone(all), gone, gone+1)
			kept, asked := 0, 0
			for bucket, i := range AssignClients(fewer) {
				if was := before[bucket]; was != gone {
					asked++
					if all[was] == fewer[i] {
						kept++
					}
				}
			}
			worst = min(worst, float64(kept)/float64(asked))
		}
		t.Logf("%d shares, one gone: at least %.1f %% of the clients of the others stay", n, worst*100)
		if worst < 0.85 {
			t.Errorf("%d shares, one gone: %.1f %% of the clients of the others stay, want 85 %%", n, worst*100)
		}
	}
}

func TestClientsByWeight(t *testing.T) {
	all := shares(1, 2, 5)
	got := make([]int, len(all))
	for _, i := range AssignClients(all) {
		got[i]++
	}
	if want := []int{32, 64, 160}; !slices.Equal(got, want) {
		t.Errorf("buckets %v, want %v", got, want)
	}
}

func TestParsePort(t *testing.T) {
	for text, want := range map[string]string{
		"80:8080/tcp": "80:8080/tcp", "80": "80:80/tcp", "53/UDP": "53:53/udp", "9:10/sctp": "9:10/sctp",
		"": "", "0": "", "80:0": "", "80:8080/icmp": "", "65536": "", "80:": "", "a:b/tcp": "", "1:2:3/tcp": "",
	} {
		p, err := ParsePort(text)
		if (err == nil) != (want != "") || err == nil && p.String() != want {
			t.Errorf("%q: %v, %v; want %q", text, p, err, want)
		}
	}
}

package service

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
)

const (
	// Buckets is how many parts the connections of a service are divided into, and again
	// those of the parts that belong to no backend as a whole.
	Buckets = 64
	// ClientBuckets is how many parts the clients of a service with affinity are divided
	// into.
	ClientBuckets = 256
)

// Share is a backend that gets connections.
type Share struct {
	Key    string
	Weight int // more than 0
}

// unassigned stands in Slots for a bucket that is divided further.
const unassigned = -1

// Slots says which backend each bucket leads to, as its place in the shares. A connection
// is first in one of First. Where that is negative, it is in one of Rest, by another hash
// or random number; Rest is all negative if there is none.
//
// A single table of 64 would give a backend of seven 9 or 10 of 64 parts, 8 % more or
// less than its share. With the second table the error is below 0.05 % of all.
type Slots struct{ First, Rest [Buckets]int }

// Assign divides the buckets by weight. It depends on the shares alone, not on their order
// or on what was before: every host, and every process after a crash, divides alike. When a
// share comes or goes, most buckets of the others stay where they are.
func Assign(shares []Share) Slots {
	var s Slots
	total := 0
	for _, b := range shares {
		total += b.Weight
	}
	whole, part, left := make([]int, len(shares)), make([]float64, len(shares)), Buckets
	for i, b := range shares {
		whole[i] = Buckets * b.Weight / total
		part[i] = float64(Buckets*b.Weight%total) / float64(total)
		left -= whole[i]
	}
	fill(s.First[:], shares, whole, "first")
	rest := make([]int, len(shares))
	if len(shares) > 0 && left > 0 {
		rest = apportion(shares, part, float64(left), Buckets)
	}
	fill(s.Rest[:], shares, rest, "rest")
	return s
}

// AssignClients divides the buckets of clients by weight, as Assign does, to the next whole
// bucket: a second table would move the clients in it at each change.
func AssignClients(shares []Share) (to [ClientBuckets]int) {
	parts, total := make([]float64, len(shares)), 0.0
	for i, b := range shares {
		parts[i] = float64(b.Weight)
		total += parts[i]
	}
	fill(to[:], shares, apportion(shares, parts, total, ClientBuckets), "client")
	return to
}

// apportion gives the buckets by the largest remainder. sum is that of the parts.
func apportion(shares []Share, parts []float64, sum float64, buckets int) []int {
	quota, order := make([]int, len(parts)), make([]int, len(parts))
	left := buckets
	remainder := make([]float64, len(parts))
	for i, p := range parts {
		exact := p * float64(buckets) / sum
		quota[i] = int(exact)
		remainder[i], order[i] = exact-math.Floor(exact), i
		left -= quota[i]
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(remainder[b], remainder[a]), cmp.Compare(shares[a].Key, shares[b].Key))
	})
	for i := range min(left, len(order)) { // less than one for each
		quota[order[i]]++
	}
	return quota
}

// claim is how much a backend wants a bucket: less is more.
type claim struct {
	share, bucket int32
	score         float64
}

// fill gives each share its quota of buckets. Each pair of share and bucket has a score of
// its own (weighted rendezvous hashing); the best pair is served first. Buckets that are
// left over lead nowhere.
func fill(to []int, shares []Share, quota []int, round string) {
	claims := make([]claim, 0, len(shares)*len(to))
	alike := !slices.ContainsFunc(shares, func(b Share) bool { return b.Weight != shares[0].Weight })
	for i, b := range shares {
		words := hashed(b.Key, round)
		for bucket := range to {
			u := chance(words, bucket)
			score := 1 - u // in the order of the logarithm, which takes most of the time
			if !alike {
				score = -math.Log(u) / float64(b.Weight)
			}
			claims = append(claims, claim{int32(i), int32(bucket), score})
		}
	}
	for i := range to {
		to[i] = unassigned
	}
	left := slices.Clone(quota)
	for _, c := range sorted(claims, shares) {
		if left[c.share] > 0 && to[c.bucket] == unassigned {
			to[c.bucket] = int(c.share)
			left[c.share]--
		}
	}
}

// Scores are put into bins by their exponent, down to 2^lowest, and by the first bits behind it. Of
// numbers that are drawn a bin has few.
const (
	lowest, highest = -20, 6
	binBits         = 6
	bins            = (highest - lowest) << binBits
)

func binOf(score float64) int {
	const mantissa, bias = 52, 1023
	at := int(math.Float64bits(score)>>(mantissa-binBits)) - (bias+lowest)<<binBits
	return max(0, min(at, bins-1))
}

// sorted returns the claims, the best one first. To compare them all with each other would take
// five times as long: see BenchmarkAssign.
func sorted(claims []claim, shares []Share) []claim {
	var next [bins + 1]int32 // where the next one of a bin goes
	for _, c := range claims {
		next[binOf(c.score)+1]++
	}
	for i := range bins {
		next[i+1] += next[i]
	}
	all := make([]claim, len(claims))
	for _, c := range claims {
		at := binOf(c.score)
		all[next[at]] = c
		next[at]++
	}
	for i := 1; i < len(all); i++ {
		for j := i; j > 0 && all[j].before(all[j-1], shares); j-- {
			all[j], all[j-1] = all[j-1], all[j]
		}
	}
	return all
}

// before says whether c is served before d.
func (c claim) before(d claim, shares []Share) bool {
	if c.score != d.score {
		return c.score < d.score
	}
	return cmp.Or(cmp.Compare(shares[c.share].Key, shares[d.share].Key), cmp.Compare(c.bucket, d.bucket)) < 0
}

// hashed is FNV-1a of words, 64 bits, with 0 between them.
func hashed(key, round string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(round))
	return h.Sum64()
}

// chance is a number above 0 and below 1, the same for the same words.
func chance(words uint64, bucket int) float64 {
	const prime = 0x100000001b3 // FNV's: as if the bucket were one more byte of the words
	x := (words ^ uint64(byte(bucket))) * prime
	// FNV leaves the upper bits of short words alike: mix them (MurmurHash3's finalizer)
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return (float64(x>>12) + 0.5) / (1 << 52)
}

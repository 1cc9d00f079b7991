package service

import (
	"cmp"
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

// taker is a share that gets buckets in a round.
type taker struct {
	share int
	key   string
	quota int // more than 0
	has   []int
	worst int // place in has of the bucket that it gives up first, once it has its quota
}

// filling is the state of fill.
type filling struct {
	to     []int
	takers []taker
	scores []float64 // of each taker with each bucket: less is better
	limits []float64 // of the bucket that each taker gives up first; infinite while it has room
}

// fill gives each share its quota of buckets. Each pair of share and bucket has a score of
// its own (weighted rendezvous hashing); the best pair is served first. Buckets that are
// left over lead nowhere.
//
// To sort all pairs would take several times as long (see BenchmarkAssign). Instead each bucket
// goes to the best share that has room, or has a worse bucket; that one then goes elsewhere. The
// result is the same, as buckets and shares go by one order of the pairs.
func fill(to []int, shares []Share, quota []int, round string) {
	f := filling{to: to, takers: takersOf(shares, quota)}
	f.rate(shares, round)
	for i := range to {
		to[i] = unassigned
	}
	for bucket := range to {
		for next, is := bucket, true; is; {
			next, is = f.place(next)
		}
	}
}

func takersOf(shares []Share, quota []int) []taker {
	all, sum := make([]taker, 0, len(shares)), 0
	for i, q := range quota {
		if q > 0 {
			all = append(all, taker{share: i, key: shares[i].Key, quota: q})
			sum += q
		}
	}
	room := make([]int, sum)
	for i := range all {
		all[i].has, room = room[:0:all[i].quota], room[all[i].quota:]
	}
	return all
}

// rate gives each pair its score.
func (f *filling) rate(shares []Share, round string) {
	n := len(f.takers)
	both := make([]float64, n+len(f.to)*n)
	f.limits, f.scores = both[:n], both[n:]
	alike := !slices.ContainsFunc(shares, func(b Share) bool { return b.Weight != shares[0].Weight })
	for i, t := range f.takers {
		f.limits[i] = math.Inf(1)
		words, scores := hashed(t.key, round), f.scores[i*len(f.to):][:len(f.to)]
		for bucket := range scores {
			u := chance(words, bucket)
			score := 1 - u // in the order of the logarithm, which takes most of the time
			if !alike {
				score = -math.Log(u) / float64(shares[t.share].Weight)
			}
			scores[bucket] = score
		}
	}
}

// place gives a bucket to a share, and returns the one that the share gives up for it, if any.
func (f *filling) place(bucket int) (left int, is bool) {
	at := f.best(bucket)
	if at < 0 {
		return 0, false
	}
	t := &f.takers[at]
	f.to[bucket] = t.share
	if len(t.has) < t.quota {
		t.has = append(t.has, bucket)
	} else {
		left, is = t.has[t.worst], true
		f.to[left], t.has[t.worst] = unassigned, bucket
	}
	if len(t.has) == t.quota {
		t.worst = 0
		for i, b := range t.has {
			if f.prefers(at, t.has[t.worst], b) {
				t.worst = i
			}
		}
		f.limits[at] = f.scores[at*len(f.to)+t.has[t.worst]]
	}
	return left, is
}

// best is the place of the taker that a bucket goes to; negative: there is none.
func (f *filling) best(bucket int) int {
	best, least := -1, math.Inf(1)
	for i, limit := range f.limits {
		switch score := f.scores[i*len(f.to)+bucket]; {
		case score > least || score > limit:
		case score == least && f.takers[i].key >= f.takers[best].key: // alike, as in a list by key
		case score == limit && !f.prefers(i, bucket, f.takers[i].has[f.takers[i].worst]):
		default:
			best, least = i, score
		}
	}
	return best
}

// prefers says whether a pair of a taker is served before another pair of it.
func (f *filling) prefers(at, bucket, other int) bool {
	a, b := f.scores[at*len(f.to)+bucket], f.scores[at*len(f.to)+other]
	return a < b || a == b && bucket < other
}

const fnvOffset, fnvPrime = 0xcbf29ce484222325, 0x100000001b3

// hashed is FNV-1a of words, 64 bits, with 0 between them. Package hash/fnv would allocate.
func hashed(key, round string) uint64 {
	h := uint64(fnvOffset)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * fnvPrime
	}
	h *= fnvPrime // of the 0
	for i := range len(round) {
		h = (h ^ uint64(round[i])) * fnvPrime
	}
	return h
}

// chance is a number above 0 and below 1, the same for the same words.
func chance(words uint64, bucket int) float64 {
	x := (words ^ uint64(byte(bucket))) * fnvPrime // as if the bucket were one more byte of the words
	// FNV leaves the upper bits of short words alike: mix them (MurmurHash3's finalizer)
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return (float64(x>>12) + 0.5) / (1 << 52)
}

package ipamstore

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// model is what the lease files should say: address to owner.
type model map[string]Owner

func (m model) of(o Owner) (out []string) {
	for a, holder := range m {
		if holder == o {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return addr(a).Compare(addr(b)) })
	return out
}

// run holds one random sequence of operations.
type run struct {
	t     *testing.T
	s     *Store
	m     model
	rng   *rand.Rand
	now   *time.Duration
	steps []string
	hl    hostLocal
	old   map[string][]byte // an earlier copy of the index
}

// Random operations, also of host-local's, of an operator with rm, and crashes
// that leave any mixture of old, new and damaged index files, give what a map
// would give.
func TestModel(t *testing.T) {
	t.Parallel()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 7))
		c := Config{Sets: sets("10.1.0.0/28", "fd00::/60"), Sticky: rng.IntN(2) == 0}
		c.Strategy = []Strategy{StrategyNext, StrategyLowest, StrategyRandom, StrategyHash}[rng.IntN(4)]
		if rng.IntN(2) == 0 {
			c.Cooldown = 10 * time.Second
		}
		s := mustOpen(t, c)
		r := &run{t: t, s: s, m: model{}, rng: rng, now: clock(s), hl: newHostLocal(t, s)}
		for range 100 {
			r.step()
			if t.Failed() {
				t.Fatalf("seed %d, %+v: %v", seed, c, r.steps)
			}
		}
	}
}

func (r *run) step() {
	*r.now += time.Duration(r.rng.IntN(5)) * time.Second
	n := r.rng.IntN(16)
	op := r.rng.IntN(20)
	r.steps = append(r.steps, fmt.Sprintf("%d(%d)", op, n))
	switch {
	case op < 8:
		r.apply(n)
	case op < 13:
		mustRemove(r.t, r.s, n)
		maps.DeleteFunc(r.m, func(_ string, o Owner) bool { return o == owner(n) })
	case op == 13:
		r.request(n)
	case op == 14:
		r.foreign(n)
	case op == 15:
		r.hl.del(r.t, owner(n))
		maps.DeleteFunc(r.m, func(_ string, o Owner) bool { return o == owner(n) })
	case op == 16:
		keep := func(o Owner) bool { return hashOf(o.ContainerID)%4 != 0 }
		if _, err := r.s.Collect(r.t.Context(), func(h Holder) bool { return keep(h.Owner) }); err != nil {
			r.t.Error(err)
		}
		maps.DeleteFunc(r.m, func(_ string, o Owner) bool { return !keep(o) })
	case op == 17:
		for a := range r.m {
			if err := os.Remove(filepath.Join(r.s.path(), a)); err != nil {
				r.t.Error(err)
			}
			delete(r.m, a)
			break
		}
	default:
		r.crash()
	}
	r.check()
}

func (r *run) apply(n int) {
	before := r.m.of(owner(n))
	leases, err := r.s.Apply(r.t.Context(), request(n))
	if errors.Is(err, ErrExhausted) {
		taken := 0
		for a := range r.m {
			if addr(a).Is4() {
				taken++
			}
		}
		if taken < 13 && r.s.conf.Cooldown == 0 {
			r.t.Errorf("exhausted with %d taken: %v", taken, err)
		}
		return
	}
	if err != nil {
		r.t.Error(err)
		return
	}
	for _, l := range leases {
		a := l.Addr.Addr().String()
		if holder, ok := r.m[a]; ok && holder != owner(n) {
			r.t.Errorf("%s of %v given to %d", a, holder, n)
		}
		r.m[a] = owner(n)
	}
	if len(before) == 2 && len(r.m.of(owner(n))) > 2 {
		r.t.Errorf("%d holds %v, had %v", n, r.m.of(owner(n)), before)
	}
}

func (r *run) request(n int) {
	want := fmt.Sprintf("10.1.0.%d", 2+r.rng.IntN(13))
	leases, err := r.s.Apply(r.t.Context(), request(n, want))
	holder, taken := r.m[want]
	switch {
	case taken && holder != owner(n):
		if !errors.Is(err, ErrTaken) {
			r.t.Errorf("%s is taken by %v: %v", want, holder, err)
		}
	case err != nil:
		r.t.Error(err)
	default:
		for _, a := range r.m.of(owner(n)) {
			if addr(a).Is4() {
				delete(r.m, a)
			}
		}
		for _, l := range leases {
			r.m[l.Addr.Addr().String()] = owner(n)
		}
	}
}

// foreign is an ADD of host-local's.
func (r *run) foreign(n int) {
	a := fmt.Sprintf("10.1.0.%d", 2+r.rng.IntN(13))
	if _, taken := r.m[a]; !taken && len(r.m.of(owner(n))) == 0 {
		r.hl.add(r.t, owner(n), a)
		r.m[a] = owner(n)
	}
}

// crash leaves the index in a state it may have after a kill: some files as
// they were some time ago, some cut off, some missing, and not declared clean.
func (r *run) crash() {
	now := map[string][]byte{}
	files, err := filepath.Glob(filepath.Join(r.s.index(), "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			r.t.Fatal(err)
		}
		now[f] = data
	}
	if len(now) == 0 {
		return
	}
	for f, data := range now {
		switch r.rng.IntN(6) {
		case 0:
			data = r.old[f]
		case 1:
			data = data[:r.rng.IntN(len(data)+1)]
		case 2:
			if err := os.Remove(f); err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(f, data, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	r.old = now
	if err := os.Chtimes(r.s.path(), time.Now(), time.Now()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *run) check() {
	checkIndex(r.t, r.s)
	files := leaseFiles(r.t, r.s)
	for a, holder := range r.m {
		if files[a] != string(leaseText(holder)) {
			r.t.Errorf("%s: %q, want %v", a, files[a], holder)
		}
	}
	if len(files) != len(r.m) {
		r.t.Errorf("%d files, want %d", len(files), len(r.m))
	}
	for n := range 16 {
		leases, err := r.s.Lookup(r.t.Context(), owner(n))
		var got []netip.Addr
		for _, l := range leases {
			got = append(got, l.Addr.Addr())
		}
		slices.SortFunc(got, netip.Addr.Compare)
		want := r.m.of(owner(n))
		if fmt.Sprint(got) != fmt.Sprint(want) || (len(want) == 0) != errors.Is(err, ErrNotFound) {
			r.t.Errorf("%d holds %v, want %v (%v)", n, got, want, err)
		}
	}
}

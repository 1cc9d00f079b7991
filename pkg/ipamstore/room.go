package ipamstore

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/internal/sorting"
)

// makeRoom is called when a set has no free address. It frees what it can,
// the cheapest first, and reports whether it freed anything. It returns
// errStale when the directory has fewer leases than the index believes.
//
// The files are not counted when the owners account for each address of the
// set: then no count could show that one is free.
func (x *session) makeRoom(set int) (bool, error) {
	if freed, err := x.expire(math.MaxInt); freed || err != nil {
		return freed, err
	}
	if x.squeezed {
		return false, nil
	}
	x.squeezed = true
	all, err := x.holders()
	if err != nil {
		return false, err
	}
	freed := false
	count := x.state.problems
	p, owned := &x.s.pools[set], uint64(0)
	for _, e := range all {
		count += len(e.addrs)
		for _, l := range e.addrs {
			if p.choosable(l.addr) {
				owned++
			}
		}
		if e.Owner == x.self || !x.s.dead(e.Holder) {
			continue
		}
		if err := x.touch(); err != nil {
			return false, err
		}
		n, err := x.release(e)
		if err != nil {
			return false, err
		}
		freed = freed || n > 0
	}
	if freed {
		x.all = nil
		return true, nil
	}
	if owned >= p.size {
		return false, nil
	}
	files, err := x.dir.Count(ownFile)
	if err != nil {
		return false, err
	}
	if files != count {
		return false, errStale
	}
	return false, nil
}

// holders returns every entry of the owner table.
func (x *session) holders() ([]*entry, error) {
	if !x.indexed {
		return x.table.sorted(), nil
	}
	if x.all != nil {
		return x.all, nil
	}
	names, err := x.idx.Names()
	if err != nil {
		return nil, err
	}
	var out []*entry
	for _, name := range names {
		if !strings.HasPrefix(name, bucketPrefix) {
			continue
		}
		data, err := x.owners.load(name)
		if err != nil {
			return nil, err
		}
		parseBucket(data, func(_ []byte, e *entry) { out = append(out, e) })
	}
	x.all = out
	return out, nil
}

// evict releases what a dead holder has.
func (x *session) evict(o Owner) error {
	e, err := x.owners.find(o)
	if err != nil {
		return err
	}
	if e == nil {
		return errStale
	}
	if err := x.touch(); err != nil {
		return err
	}
	_, err = x.release(e)
	return err
}

// exhausted says how many addresses of a set are in use, which owners hold most of
// them, and what can be done.
func (x *session) exhausted(set int) error {
	all, err := x.holders()
	if err != nil {
		return err
	}
	p := &x.s.pools[set]
	var most []share
	leases, owners := 0, 0
	for _, e := range all {
		sh := share{entry: e}
		for _, l := range e.addrs {
			if p.choosable(l.addr) {
				sh.n++
				sh.since = l.since
			}
		}
		if sh.n == 0 {
			continue
		}
		leases += sh.n
		owners++
		if len(most) < 3 || sh.compare(most[2]) < 0 {
			most = append(most[:min(2, len(most))], sh)
			sorting.Stable(most, share.compare)
		}
	}
	msg := fmt.Sprintf("%d of %s leased, to %s", leases, counted(p.size, "address is", "addresses are"), counted(owners, "owner", "owners"))
	for i, sh := range most {
		msg += []string{"; mostly ", ", ", ", "}[i] + sh.String()
	}
	resting, _, err := x.queued()
	if err != nil {
		return err
	}
	if n := len(slices.DeleteFunc(resting, func(a netip.Addr) bool { return !p.choosable(a) })); n > 0 {
		msg += fmt.Sprintf("; %d rest until %s have passed since their release", n, x.s.conf.Cooldown)
	}
	return fmt.Errorf("%w in set %d (%s): %s; remove containers, collect leases of those that are gone (GC), or enlarge the range",
		ErrExhausted, set, p, msg)
}

// share is what one owner holds of a set.
type share struct {
	*entry
	n     int
	since int64
}

// compare puts the largest first, then the oldest.
func (s share) compare(o share) int {
	return cmp.Or(cmp.Compare(o.n, s.n), cmp.Compare(s.since, o.since), cmp.Compare(s.ContainerID, o.ContainerID))
}

func (s share) String() string {
	return fmt.Sprintf("%.160s (%d since %s)", s.text(), s.n, time.Unix(0, s.since).UTC().Format(time.DateTime))
}

// counted is a number with the word for one, or for any other number.
func counted[N ~int | ~int64 | ~uint64](n N, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", more)
}

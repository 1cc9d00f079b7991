package ipamstore

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/ipmath"
	"github.com/libnet-cni/libnet/internal/pooldir"
)

// blocksCounted bounds the blocks of the bitmap that Status reads; where there
// are more it goes through the names of the lease files.
const blocksCounted = 1024

// Status counts what is in use and says whether an Apply could be served now.
// The Usage is valid also with ErrExhausted, which is returned when a set has
// no free address and no provably dead holder.
//
// Errors are ErrExhausted, ErrLocked, ErrIO (directory unwritable or full).
func (s *Store) Status(ctx context.Context) (Usage, error) {
	u := Usage{Dir: s.path(), Sets: make([]SetUsage, len(s.pools))}
	for i := range s.pools {
		u.Sets[i].Capacity = s.pools[i].size
	}
	err := s.do(ctx, looking, func(x *session) error {
		if err := x.ready(); err != nil {
			return err
		}
		if err := x.usage(&u); err != nil {
			return err
		}
		if err := writable(s.path()); err != nil {
			return err
		}
		return x.full(&u)
	})
	if errors.Is(err, errNoPool) {
		return u, writable(s.path())
	}
	return u, err
}

// usage fills in the counts.
func (x *session) usage(u *Usage) error {
	u.Problems = x.state.problems
	var leases []netip.Addr // where the bitmap does not tell
	if !x.indexed {
		u.Problems = x.table.problems()
		leases = x.currentLeases()
	}
	resting, over, err := x.queued()
	if err != nil {
		return err
	}
	for i := range x.s.pools {
		p, c := &x.s.pools[i], &u.Sets[i]
		c.Cooling = countIn(p, resting)
		n, ok, err := x.countBits(p)
		if err != nil {
			return err
		}
		if c.Held = n - min(n, c.Cooling+countIn(p, over)); !ok {
			if leases == nil {
				if leases, err = x.leaseNames(); err != nil {
					return err
				}
			}
			c.Held = countIn(p, leases)
		}
		warn := x.s.conf.WarnAt
		c.Warn = warn > 0 && float64(c.Held)*100 >= float64(c.Capacity)*float64(warn)
	}
	return nil
}

// currentLeases returns the leases in x.table that the next Apply will honour.
func (x *session) currentLeases() []netip.Addr {
	old := func(Owner, leased) bool { return false }
	if x.state.boot != x.boot && x.s.conf.RebootPolicy == RebootRelease {
		now, err := x.dir.Mtime()
		old = x.stale(x.table, err == nil && x.state.clean && x.state.stamp.Equal(now))
	}
	out := slices.Clone(x.table.barred)
	for o, e := range x.table.entries {
		for _, l := range e.addrs {
			if !old(o, l) {
				out = append(out, l.addr)
			}
		}
	}
	return slices.Clip(append(out, netip.Addr{}))
}

func (x *session) leaseNames() ([]netip.Addr, error) {
	names, err := x.dir.Names()
	out := make([]netip.Addr, 0, len(names))
	for _, n := range names {
		if a, err := netip.ParseAddr(n); err == nil {
			out = append(out, a)
		}
	}
	return out, err
}

func countIn(p *pool, addrs []netip.Addr) (n uint64) {
	for _, a := range addrs {
		if p.choosable(a) {
			n++
		}
	}
	return n
}

// countBits counts the addresses of p that the bitmap marks, or returns false
// if that would take too long.
func (x *session) countBits(p *pool) (n uint64, ok bool, err error) {
	if !x.indexed {
		return 0, false, nil
	}
	spans := p.spans
	if p.size>>blockBits+uint64(len(spans)) > blocksCounted {
		// Of a huge pool only the blocks that have a file matter.
		names, err := x.idx.Names()
		if err != nil {
			return 0, false, err
		}
		spans = nil
		for _, name := range names {
			if base, ok := parseBlockFile(name); ok {
				spans = p.overlap(spans, base, ipmath.Add(base, blockSize-1))
			}
			if len(spans) > blocksCounted {
				return 0, false, nil
			}
		}
	}
	for _, s := range spans {
		m, err := x.bits.count(s)
		if err != nil {
			return 0, false, err
		}
		n += m
	}
	return n, true, nil
}

// full returns ErrExhausted if a set has no room and no dead holder.
func (x *session) full(u *Usage) error {
	for i, c := range u.Sets {
		if c.Held+c.Cooling < c.Capacity {
			continue
		}
		all, err := x.holders()
		if err != nil {
			return err
		}
		p := &x.s.pools[i]
		if !slices.ContainsFunc(all, func(e *entry) bool {
			return slices.ContainsFunc(e.addrs, func(l leased) bool { return p.choosable(l.addr) }) && x.s.dead(e.Holder)
		}) {
			return x.exhausted(i)
		}
	}
	return nil
}

// writable says whether files can be made in a directory, or in the nearest
// one above it that exists.
func writable(path string) error {
	err := unix.Access(path, unix.W_OK|unix.X_OK)
	for errors.Is(err, unix.ENOENT) && path != filepath.Dir(path) {
		path = filepath.Dir(path)
		err = unix.Access(path, unix.W_OK|unix.X_OK)
	}
	var fs unix.Statfs_t
	if err == nil {
		err = unix.Statfs(path, &fs)
	}
	if err == nil && (fs.Blocks > 0 && fs.Bfree == 0 || fs.Files > 0 && fs.Ffree == 0) {
		err = unix.ENOSPC
	}
	if err != nil {
		return pooldir.Failure("write to", path, err)
	}
	return nil
}

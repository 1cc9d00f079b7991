package ipamstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/libnet-cni/libnet/internal/sorting"
)

// Store is a pool of addresses. Make one with Open; it needs no closing.
type Store struct {
	conf  Config
	pools []pool

	// Clocks, for tests: the start of this boot, and the time since.
	bootStart func() time.Time
	uptime    func() time.Duration
}

// Open checks conf and returns a Store. It touches no file. An error is a
// *ConfigError.
func Open(conf Config) (*Store, error) {
	if err := conf.check(); err != nil {
		return nil, err
	}
	pools, err := conf.pools()
	if err != nil {
		return nil, err
	}
	return &Store{conf: conf, pools: pools, bootStart: bootStart, uptime: uptime}, nil
}

// Verify reports whether the owner holds exactly addrs, in any order; with no
// addrs, whether it holds any address. It changes no lease.
//
// Errors are ErrNotFound, ErrMismatch, ErrInvalid, ErrLocked, ErrIO.
func (s *Store) Verify(ctx context.Context, owner Owner, addrs []netip.Addr) error {
	leases, err := s.Lookup(ctx, owner)
	if err != nil || len(addrs) == 0 {
		return err
	}
	var held, want []netip.Addr
	for _, l := range leases {
		held = append(held, l.Addr.Addr())
	}
	for _, a := range addrs {
		want = append(want, a.Unmap())
	}
	sorting.Stable(held, netip.Addr.Compare)
	sorting.Stable(want, netip.Addr.Compare)
	if !slices.Equal(held, slices.Compact(want)) {
		return fmt.Errorf("verify %s in %s: %w: holds %v, not %v", owner.text(), s.path(), ErrMismatch, held, want)
	}
	return nil
}

// Lookup returns what the owner holds, in the order of the sets.
//
// Errors are ErrNotFound, ErrInvalid, ErrLocked, ErrIO.
func (s *Store) Lookup(ctx context.Context, owner Owner) ([]Lease, error) {
	if msg := owner.check(); msg != "" {
		return nil, fmt.Errorf("look up %s: %w: %s", owner.text(), ErrInvalid, msg)
	}
	var out []Lease
	err := s.do(ctx, looking, func(x *session) error {
		if err := x.ready(); err != nil {
			return err
		}
		e, err := x.find(owner)
		if e != nil {
			out = s.leases(e)
		}
		return err
	})
	if errors.Is(err, errNoPool) || err == nil && len(out) == 0 {
		return nil, fmt.Errorf("look up %s in %s: %w", owner.text(), s.path(), ErrNotFound)
	}
	return out, err
}

// Remove releases all addresses of the owners. An owner without any, or a pool
// that does not exist, is success. It needs no Config.Sets.
//
// Errors are ErrInvalid, ErrLocked, ErrIO.
func (s *Store) Remove(ctx context.Context, owners ...Owner) error {
	for _, owner := range owners {
		if msg := owner.check(); msg != "" {
			return fmt.Errorf("release %s: %w: %s", owner.text(), ErrInvalid, msg)
		}
	}
	err := s.do(ctx, existing, func(x *session) error {
		if err := x.ready(); err != nil {
			return err
		}
		var errs []error
		for _, owner := range owners {
			errs = append(errs, x.remove(owner))
		}
		_ = x.commit() // as with touch, it does not matter if the index cannot be written
		return errors.Join(errs...)
	})
	if errors.Is(err, errNoPool) {
		return nil
	}
	return err
}

// remove releases all addresses of an owner.
func (x *session) remove(owner Owner) error {
	e, err := x.find(owner)
	if err != nil || e == nil {
		return err
	}
	// A full disk may refuse the note that a change is under way. The
	// directory's time tells it as well.
	_ = x.touch()
	_, err = x.release(e)
	return err
}

// List returns all leases, and all files of the directory that are none, in
// the order of addresses. A pool that does not exist has none. It reads every
// lease file.
//
// Errors are ErrLocked, ErrIO.
func (s *Store) List(ctx context.Context) ([]Held, error) {
	var out []Held
	err := s.do(ctx, looking, func(x *session) error {
		t, err := x.scan()
		if err == nil {
			out = t.files
		}
		return err
	})
	if errors.Is(err, errNoPool) {
		return nil, nil
	}
	return out, err
}

// Collect releases the leases of all holders that keep says no to, and
// removes lease files without content. It returns how many files it removed.
// It goes on after an error and returns all errors joined.
//
// Errors are ErrLocked, ErrIO.
func (s *Store) Collect(ctx context.Context, keep func(Holder) bool) (int, error) {
	n := 0
	err := s.sweep(ctx, func(x *session, t *table) error {
		var errs []error
		for _, e := range t.sorted() {
			if keep(e.Holder) {
				continue
			}
			m, err := x.release(e)
			n += m
			errs = append(errs, err)
		}
		m, err := x.tidy(t)
		n += m
		return errors.Join(append(errs, err)...)
	})
	return n, err
}

// Holders returns the holders of leases, each once, in the order of their names. It
// reads every lease file and changes none.
//
// Errors are ErrLocked, ErrIO.
func (s *Store) Holders(ctx context.Context) (all []Holder, err error) {
	err = s.do(ctx, looking, func(x *session) error {
		t, err := x.scan()
		if err == nil {
			all = t.holders()
		}
		return err
	})
	if errors.Is(err, errNoPool) {
		err = nil
	}
	return all, err
}

// Tidy is Holders that removes lease files without content, which are of no
// holder.
//
// Errors are ErrLocked, ErrIO.
func (s *Store) Tidy(ctx context.Context) (all []Holder, err error) {
	err = s.sweep(ctx, func(x *session, t *table) error {
		all = t.holders()
		_, err := x.tidy(t)
		return err
	})
	return all, err
}

func (t *table) holders() (all []Holder) {
	for _, e := range t.sorted() {
		all = append(all, e.Holder)
	}
	return all
}

// sweep runs fn with all leases at hand, in one change. A pool that does not
// exist has none.
func (s *Store) sweep(ctx context.Context, fn func(*session, *table) error) error {
	err := s.do(ctx, existing, func(x *session) error {
		if err := x.ready(); err != nil {
			return err
		}
		t, err := x.scan()
		if err != nil {
			return err
		}
		_ = x.touch() // see Remove
		err = fn(x, t)
		_ = x.commit()
		return err
	})
	if errors.Is(err, errNoPool) {
		return nil
	}
	return err
}

// tidy removes the lease files without content.
func (x *session) tidy(t *table) (n int, err error) {
	var errs []error
	for _, f := range t.files {
		if f.Problem == "" || !f.Addr.IsValid() || slices.Contains(t.barred, f.Addr) {
			continue
		}
		if err := x.dir.Remove(f.File); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
		x.state.problems = max(0, x.state.problems-1)
	}
	return n, errors.Join(errs...)
}

package ipamstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/pooldir"
)

// Adoption is an owner whose lease files may be lost while it uses addresses.
type Adoption struct {
	Holder
	Addrs []netip.Addr
}

// Adopt leases to each owner the addresses it uses, as far as it does not hold
// them yet, and makes the pool if it is missing; all of it under one lock. They
// may be in no range. It returns the owners that got a lease. It goes on after errors
// and returns them joined: an address that another owner holds stays that one's,
// and is an ErrTaken that names it.
//
// Errors are ErrTaken, ErrInvalid, ErrLocked, ErrIO.
func (s *Store) Adopt(ctx context.Context, all []Adoption) (made []Owner, err error) {
	err = s.do(ctx, making, func(x *session) error {
		if err := x.ready(); err != nil {
			return err
		}
		var errs []error
		for _, a := range all {
			n, err := x.adopt(a)
			if n > 0 {
				made = append(made, a.Owner)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("adopt addresses of %s in %s: %w", a.Owner.text(), s.path(), err))
			}
		}
		return errors.Join(errs...)
	})
	return made, err
}

func (x *session) adopt(a Adoption) (made int, err error) {
	if msg := a.check(); msg != "" {
		return 0, fmt.Errorf("%w: %s", ErrInvalid, msg)
	}
	old, err := x.findExact(a.Owner)
	if err != nil {
		return 0, err
	}
	if old == nil {
		old = &entry{Holder: a.Holder}
	}
	x.self = a.Owner
	c := &change{old: old}
	var errs []error
	for _, addr := range a.Addrs {
		addr = addr.Unmap()
		if slices.ContainsFunc(old.addrs, func(l leased) bool { return l.addr == addr }) {
			continue
		}
		if err := x.unheld(addr); err != nil {
			errs = append(errs, err)
			continue
		}
		c.picks = append(c.picks, pick{addr: addr, fresh: true})
	}
	if len(c.picks) > 0 {
		if err := x.take(old.Holder, c); err != nil {
			return 0, errors.Join(append(errs, err)...)
		}
		x.finish(c, x.s.leases(c.new))
	}
	return len(c.picks), errors.Join(errs...)
}

// unheld names the holder of an address; nil if it has none.
func (x *session) unheld(a netip.Addr) error {
	kind, f := readLease(x.dir, a.String())
	switch kind {
	case fileBarrier:
		return fmt.Errorf("%w: %s: its lease file %s", ErrTaken, a, f.problem)
	case fileLease:
		return fmt.Errorf("%w: %s is held by %s", ErrTaken, a, f.owner.text())
	}
	return nil
}

// Blank says that the pool may have lost leases: it has no index, or it has no
// lease and no index that says so. A pool that is new is blank, too. It takes no
// lock and reads no lease.
func (s *Store) Blank() bool {
	here := pooldir.Dir{Fd: unix.AT_FDCWD}
	var pool unix.Stat_t
	if err := unix.Stat(s.path(), &pool); err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	text, _, err := here.Read(filepath.Join(s.conf.DataDir, pooldir.IndexDir, s.conf.Network, stateFile), stateSize+1)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if st := parseState(text); err == nil && st.clean && st.stamp.Equal(time.Unix(pool.Mtim.Unix())) {
		return false
	}
	d, err := pooldir.Open(s.path())
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer d.Close()
	n, err := d.Count(ownFile)
	return n == 0 && err == nil
}

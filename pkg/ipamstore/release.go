package ipamstore

import (
	"errors"
	"net/netip"
	"slices"
)

// find returns what an owner holds, or nil. A lease that names no interface
// stands in for one of an owner that has none of its own.
func (x *session) find(o Owner) (*entry, error) {
	e, err := x.findExact(o)
	if err == nil && e == nil && o.IfName != "" {
		return x.findExact(Owner{ContainerID: o.ContainerID})
	}
	return e, err
}

func (x *session) findExact(o Owner) (*entry, error) {
	if !x.indexed {
		return x.table.entries[o], nil
	}
	e, err := x.owners.find(o)
	if err != nil || e == nil || x.confirmed(e) {
		return e, err
	}
	if err := x.rebuild(); err != nil {
		return nil, err
	}
	return x.owners.find(o)
}

// confirmed says whether the lease files say what the entry says.
func (x *session) confirmed(e *entry) bool {
	for _, l := range e.addrs {
		if kind, f := readLease(x.dir, l.addr.String()); kind != fileLease || f.owner != e.Owner {
			return false
		}
	}
	return true
}

// holder returns what is known of the holder of a lease file.
func (x *session) holder(o Owner) (Holder, error) {
	e, err := x.owners.find(o)
	if err != nil || e == nil {
		return Holder{Owner: o}, err
	}
	return e.Holder, nil
}

// release removes the lease files of an entry and takes it out of the index.
// It goes on after an error: what could not be removed stays leased. It
// returns how many files it removed.
func (x *session) release(e *entry) (int, error) {
	return x.giveUp(e, e.addrs)
}

// giveUp releases some of an entry's addresses. e stays as it was; the index
// says what is left of it.
func (x *session) giveUp(e *entry, addrs []leased) (int, error) {
	var errs []error
	var gone []netip.Addr
	for i, l := range addrs {
		if err := x.unlease(l.addr, i); err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, l.addr)
	}
	if !x.indexed || len(gone) == 0 {
		return len(gone), errors.Join(errs...)
	}
	left := &entry{Holder: e.Holder}
	for _, l := range e.addrs {
		if !slices.Contains(gone, l.addr) {
			left.addrs = append(left.addrs, l)
		}
	}
	if len(left.addrs) == 0 {
		left = nil
	}
	if err := errors.Join(x.owners.set(e.Owner, left), x.rest(gone)); err != nil {
		x.suspect = true // the files are right; the index will be rebuilt
	}
	return len(gone), errors.Join(errs...)
}

// rest marks released addresses as free, now or after their cooldown.
func (x *session) rest(addrs []netip.Addr) error {
	if x.s.conf.Cooldown > 0 && len(addrs) > 0 {
		return x.cool(addrs)
	}
	for _, a := range addrs {
		if err := x.bits.unmark(a); err != nil {
			return err
		}
	}
	return nil
}

// leases returns an entry's addresses as leases, in the order of the sets;
// those of no set last.
func (s *Store) leases(e *entry) []Lease {
	var out, other []Lease
	for i := range s.pools {
		for _, l := range e.addrs {
			if r := s.pools[i].rangeOf(l.addr); r != nil {
				out = append(out, leaseOf(i, r, l.addr))
			}
		}
	}
	for _, l := range e.addrs {
		if set, _ := s.rangeOf(l.addr); set < 0 {
			other = append(other, Lease{Addr: netip.PrefixFrom(l.addr, l.addr.BitLen()), Set: -1})
		}
	}
	return append(out, other...)
}

func leaseOf(set int, r *Range, a netip.Addr) Lease {
	return Lease{Addr: netip.PrefixFrom(a, r.Subnet.Bits()), Gateway: r.Gateway, Set: set}
}

// rangeOf returns the set and range that hold a; -1 if none does.
func (s *Store) rangeOf(a netip.Addr) (int, *Range) {
	for i := range s.pools {
		if r := s.pools[i].rangeOf(a); r != nil {
			return i, r
		}
	}
	return -1, nil
}

func (s *Store) inUse(h Holder, a netip.Addr) bool { return s.conf.InUse != nil && s.conf.InUse(h, a) }

func (s *Store) dead(h Holder) bool { return s.conf.Dead != nil && s.conf.Dead(h) }

package ipamstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Apply leases one address out of each set to the request's owner, or none at
// all. An owner that has leases already gets the same ones back, and what is
// known of the holder is brought up to date; if another address is requested
// of a set, that is leased in place of the old one. The first Apply of a boot
// voids leases of earlier boots (see RebootPolicy).
//
// Errors are ErrExhausted, ErrTaken, ErrInvalid, ErrLocked, ErrIO.
func (s *Store) Apply(ctx context.Context, req Request) ([]Lease, error) {
	want, err := s.wanted(req)
	if err != nil {
		return nil, err
	}
	var out []Lease
	err = s.do(ctx, making, func(x *session) error {
		if err := x.ready(); err != nil {
			return err
		}
		out, err = x.apply(req.Holder, want)
		if errors.Is(err, errStale) {
			if err := x.rebuild(); err != nil {
				return err
			}
			out, err = x.apply(req.Holder, want)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lease to %s in %s: %w", req.Owner.text(), s.path(), err)
	}
	return out, nil
}

// wanted checks a request and returns the address wanted of each set, the zero
// Addr for any.
func (s *Store) wanted(req Request) ([]netip.Addr, error) {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("lease to %s: %w: %s", req.Owner.text(), ErrInvalid, fmt.Sprintf(format, args...))
	}
	if msg := req.check(); msg != "" {
		return nil, refuse("%s", msg)
	}
	if req.IfName == "" {
		return nil, refuse("interface is empty")
	}
	for _, f := range []string{req.Netns, req.NetnsID, req.Workload} {
		if !printable(f) || len(f) > 4096 {
			return nil, refuse("%q is too long or has control characters", f)
		}
	}
	if len(s.pools) == 0 {
		return nil, refuse("no ranges to lease from")
	}
	want := make([]netip.Addr, len(s.pools))
	for _, a := range req.Addrs {
		a = a.Unmap()
		set, r := s.rangeOf(a)
		switch {
		case set < 0:
			return nil, refuse("requested address %s is in no range", a)
		case want[set].IsValid() && want[set] != a:
			return nil, refuse("requested addresses %s and %s are of the same set", want[set], a)
		case s.reserved(a):
			return nil, refuse("requested address %s is a gateway or auxiliary address of %s", a, r.Subnet)
		}
		want[set] = a
	}
	return want, nil
}

// reserved says whether a belongs to something else: a gateway, or Config.Aux.
func (s *Store) reserved(a netip.Addr) bool {
	for _, p := range s.pools {
		if slices.ContainsFunc(p.ranges, func(r Range) bool { return r.Gateway == a }) {
			return true
		}
	}
	for _, x := range s.conf.Aux {
		if x.Unmap() == a {
			return true
		}
	}
	return false
}

// change is what an Apply does.
type change struct {
	old, new *entry // of the owner; old has no addresses if it held none
	picks    []pick // one for each set
	drop     []leased
}

// pick is the address of one set.
type pick struct {
	addr   netip.Addr
	fresh  bool // not held by the owner yet
	chosen bool // by the strategy
	public bool // its lease file is in place
	since  int64
}

func (x *session) apply(h Holder, want []netip.Addr) ([]Lease, error) {
	if _, err := x.expire(coolingStep); err != nil {
		return nil, err
	}
	old, err := x.owners.find(h.Owner)
	if err != nil {
		return nil, err
	}
	if old == nil {
		old = &entry{Holder: h}
	} else if !x.confirmed(old) {
		return nil, errStale
	}
	x.self = h.Owner
	c := &change{old: old}
	if err = x.pickAll(h, c, want); err == nil {
		err = x.take(h, c)
	}
	if err != nil {
		if !errors.Is(err, errStale) {
			_ = x.commit() // room may have been made
		}
		return nil, err
	}
	var out []Lease
	for i, p := range c.picks {
		out = append(out, leaseOf(i, x.s.pools[i].rangeOf(p.addr), p.addr))
	}
	x.finish(c, out)
	return out, nil
}

// pickAll finds an address for each set, and the ones the owner gives up.
func (x *session) pickAll(h Holder, c *change, want []netip.Addr) error {
	for i := range want {
		var held []leased
		for _, l := range c.old.addrs {
			if x.s.pools[i].rangeOf(l.addr) != nil {
				held = append(held, l)
			}
		}
		p, err := x.pickOne(i, h, held, want[i])
		if err != nil {
			return err
		}
		c.picks = append(c.picks, p)
		for _, l := range held {
			if want[i].IsValid() && l.addr != p.addr {
				c.drop = append(c.drop, l)
			}
		}
	}
	return nil
}

func (x *session) pickOne(set int, h Holder, held []leased, want netip.Addr) (pick, error) {
	for _, l := range held {
		if l.addr == want || !want.IsValid() {
			return pick{addr: l.addr}, nil
		}
	}
	if want.IsValid() {
		return pick{addr: want, fresh: true}, x.claim(want)
	}
	if x.s.conf.Sticky && h.Workload != "" {
		last, _, err := x.remembered(h.Workload)
		if err != nil {
			return pick{}, err
		}
		for _, a := range last {
			if x.s.pools[set].choosable(a) && x.claim(a) == nil {
				return pick{addr: a, fresh: true}, nil
			}
		}
	}
	a, err := x.choose(set, h)
	return pick{addr: a, fresh: true, chosen: true}, err
}

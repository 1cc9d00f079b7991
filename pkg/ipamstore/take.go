package ipamstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// take makes the picks the owner's: the index first, so that no knowledge of
// the holder is lost in a crash, then the lease files, all or none.
func (x *session) take(h Holder, c *change) error {
	fresh := slices.ContainsFunc(c.picks, func(p pick) bool { return p.fresh })
	if !fresh && len(c.drop) == 0 && c.old.Holder == h {
		return nil
	}
	if err := x.touch(); err != nil {
		return err
	}
	c.new = &entry{Holder: h}
	for _, l := range c.old.addrs {
		if !slices.Contains(c.drop, l) {
			c.new.addrs = append(c.new.addrs, l)
		}
	}
	err := x.draftAll(c)
	if err == nil {
		err = x.owners.set(h.Owner, c.new)
	}
	if err == nil {
		err = x.publishAll(c)
	}
	if err != nil {
		return errors.Join(err, x.undo(c))
	}
	return nil
}

func (x *session) draftAll(c *change) error {
	for i := range c.picks {
		p := &c.picks[i]
		if !p.fresh {
			continue
		}
		var err error
		if p.since, err = x.draft(i, c.new.Owner); err != nil {
			return err
		}
		c.new.addrs = append(c.new.addrs, leased{p.addr, p.since})
	}
	return nil
}

func (x *session) publishAll(c *change) error {
	for i := range c.picks {
		p := &c.picks[i]
		if !p.fresh {
			continue
		}
		if err := x.publish(i, leased{p.addr, p.since}, c.new.Owner); err != nil {
			return err
		}
		p.public = true
	}
	if x.s.conf.RebootPolicy != RebootKeep {
		return nil
	}
	return x.dir.Sync()
}

// undo takes back what take has done.
func (x *session) undo(c *change) error {
	var errs []error
	for i, p := range c.picks {
		if p.public {
			errs = append(errs, x.unlease(p.addr, i))
		}
	}
	old := c.old
	if len(old.addrs) == 0 {
		old = nil
	}
	errs = append(errs, x.owners.set(c.new.Owner, old))
	err := errors.Join(errs...)
	if err != nil {
		x.suspect = true
	}
	return err
}

// finish brings the rest of the index in line with leases that are made. After a failed
// write the next call finds the leases by their files.
func (x *session) finish(c *change, leases []Lease) {
	if c.new == nil {
		_ = x.commit() // room may have been made
		return
	}
	var errs []error
	var gone, early []netip.Addr
	for _, l := range c.drop {
		errs = append(errs, x.dir.Remove(l.addr.String()))
		gone = append(gone, l.addr)
	}
	errs = append(errs, x.rest(gone))
	for i, p := range c.picks {
		if !p.fresh {
			continue
		}
		errs = append(errs, x.bits.mark(p.addr))
		switch {
		case !p.chosen:
			early = append(early, p.addr)
		case x.s.conf.Strategy == StrategyNext:
			errs = append(errs, x.setCursor(i, p.addr))
		}
	}
	if len(early) > 0 {
		errs = append(errs, x.wake(early))
	}
	if x.s.conf.Sticky && c.new.Workload != "" {
		errs = append(errs, x.remember(c.new.Workload, leases))
	}
	if errors.Join(errs...) != nil {
		x.suspect = true
	}
	_ = x.commit()
}

// claim makes sure that a has no holder, taking it from a dead one.
func (x *session) claim(a netip.Addr) error {
	kind, f := readLease(x.dir, a.String())
	switch kind {
	case fileBarrier:
		return fmt.Errorf("%w: %s: its lease file %s", ErrTaken, a, f.problem)
	case fileLease:
		h, err := x.holder(f.owner)
		if err != nil {
			return err
		}
		if !x.s.dead(h) {
			return fmt.Errorf("%w: %s is held by %s", ErrTaken, a, h.text())
		}
		if err := x.evict(h.Owner); err != nil {
			return err
		}
	}
	return nil
}

// choose finds a free address by the strategy.
func (x *session) choose(set int, h Holder) (netip.Addr, error) {
	p := &x.s.pools[set]
	start, ok := netip.Addr{}, false
	switch x.s.conf.Strategy {
	case StrategyNext:
		start, ok = p.after(x.cursor(set))
	case StrategyLowest:
		start, ok = p.nth(0)
	case StrategyRandom:
		start, ok = p.nth(rand.Uint64())
	case StrategyHash:
		name := []string{h.Workload}
		if h.Workload == "" {
			name = []string{h.ContainerID, h.IfName}
		}
		start, ok = p.nth(hashOf(name...))
	}
	for ok {
		a, found, err := x.search(p, start)
		if found || err != nil {
			return a, err
		}
		if ok, err = x.makeRoom(set); err != nil {
			return a, err
		}
	}
	return start, x.exhausted(set)
}

// search returns the first free address from start on, and round to it.
func (x *session) search(p *pool, start netip.Addr) (netip.Addr, bool, error) {
	for _, s := range p.from(start) {
		if a, ok, err := x.bits.free(s); ok || err != nil {
			return a, ok, err
		}
	}
	return netip.Addr{}, false, nil
}

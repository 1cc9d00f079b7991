package ipamstore

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
)

// claim makes sure that a has no holder, taking it from a dead one.
func (x *session) claim(a netip.Addr) error {
	kind, f := x.dir.readLease(a.String())
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

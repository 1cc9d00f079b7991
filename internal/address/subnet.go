package address

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/sorting"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

// AutoPool is a Pool some of whose subnets are not known until it is used. The
// first Apply chooses the lowest subnet of the host's address pools (see
// subnets.LoadPools) that overlaps no network, route or name server of
// this host, and enters it in the book of its data directory: every later use,
// by any process, finds the same one. Nothing else chooses: Remove and Collect
// need no subnet, and Status only looks.
type AutoPool struct {
	cfg    ipamstore.Config // the sets in wants have no subnet yet
	wants  map[int]subnets.Request
	extra  model.Addressing
	closed *Pool // takes addresses back
	book   subnets.Book
	host   surroundings
}

var _ IPAM = (*AutoPool)(nil)

// NewAutoPool is NewPool for a pool whose subnets are to be chosen: wants has,
// by the index in cfg.Sets, what subnet a set is to get. That set is one Range
// without any value, and there is one at most for each address family. It
// touches no file. The error is an *ipamstore.ConfigError.
func NewAutoPool(cfg ipamstore.Config, wants map[int]subnets.Request, extra model.Addressing) (*AutoPool, error) {
	closed := cfg
	closed.Sets, closed.Aux = nil, nil
	pool, err := NewPool(closed, extra)
	if err != nil {
		return nil, err
	}
	cfg.DataDir = pool.cfg.DataDir
	p := &AutoPool{
		cfg: cfg, wants: wants, extra: extra, closed: pool,
		book: subnets.Book{DataDir: cfg.DataDir, LockTimeout: cfg.LockTimeout},
		host: surroundings{network: cfg.Network, records: state.New(state.DefaultPath), routes: ownRoutes},
	}
	return p, p.check()
}

// check refuses what no choice of subnets could mend.
func (p *AutoPool) check() error {
	// Stands for a chosen subnet and collides with none that is given.
	filler := map[bool]netip.Prefix{false: netip.PrefixFrom(netip.IPv4Unspecified(), 32), true: netip.PrefixFrom(netip.IPv6Unspecified(), 128)}
	filled := map[int]netip.Prefix{}
	for _, i := range sorting.Keys(p.wants) {
		want := p.wants[i]
		key := fmt.Sprintf("ranges[%d][0].subnet", i)
		if err := want.Check(); err != nil {
			return err
		}
		if i < 0 || i >= len(p.cfg.Sets) || len(p.cfg.Sets[i]) != 1 || p.cfg.Sets[i][0] != (ipamstore.Range{}) {
			return &ipamstore.ConfigError{Key: key, Value: want.String(), Msg: "stands alone: rangeStart, rangeEnd, gateway and other ranges of the set cannot be given before the subnet is known"}
		}
		if filled[i] = filler[want.IPv6]; !filled[i].IsValid() {
			return &ipamstore.ConfigError{Key: key, Value: want.String(), Msg: "is the second chosen subnet of its address family; a network has one"}
		}
		delete(filler, want.IPv6)
	}
	cfg := p.with(filled)
	cfg.Aux = nil
	_, err := ipamstore.Open(cfg)
	return err
}

// with returns the configuration with these subnets.
func (p *AutoPool) with(subnets map[int]netip.Prefix) ipamstore.Config {
	cfg := p.cfg
	cfg.Sets = slices.Clone(cfg.Sets)
	for i, s := range subnets {
		cfg.Sets[i] = ipamstore.RangeSet{{Subnet: s}}
	}
	return cfg
}

// Resolve returns the pool with its subnets, choosing those the network has
// not got yet.
func (p *AutoPool) Resolve(ctx context.Context) (*Pool, error) {
	subnets, err := p.held()
	if err != nil {
		return nil, err
	}
	for _, i := range sorting.Keys(p.wants) {
		if _, ok := subnets[i]; ok {
			continue
		}
		if subnets[i], err = p.choose(ctx, p.wants[i]); err != nil {
			return nil, err
		}
	}
	return NewPool(p.with(subnets), p.extra)
}

// held returns the subnets that the network has, by the index of their sets.
func (p *AutoPool) held() (map[int]netip.Prefix, error) {
	subnets := map[int]netip.Prefix{}
	for i, want := range p.wants {
		s, err := p.book.Lookup(p.cfg.Network, want.IPv6)
		if err != nil {
			return nil, err
		}
		if s.IsValid() {
			subnets[i] = s
		}
	}
	return subnets, nil
}

func (p *AutoPool) choose(ctx context.Context, want subnets.Request) (netip.Prefix, error) {
	inUse, own, err := p.host.inUse()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("choose a subnet: %w", err)
	}
	claim := subnets.Claim{Network: p.cfg.Network, Want: want, InUse: inUse}
	var given []netip.Prefix
	for _, set := range p.cfg.Sets {
		for _, r := range set {
			given = append(given, r.Subnet)
		}
	}
	claim.InUse = append(claim.InUse, given...)
	for _, s := range own { // the network lives already, its entry is lost
		if s.Addr().Is6() == want.IPv6 && !claim.Keep.IsValid() && !slices.ContainsFunc(given, s.Overlaps) {
			claim.Keep = s
		}
	}
	return p.book.Apply(ctx, claim)
}

// Type returns PoolType.
func (p *AutoPool) Type() string { return PoolType }

// Apply gives the claim its addresses; the network gets its subnets first, if
// it has none yet.
func (p *AutoPool) Apply(ctx context.Context, claim Claim) (model.Addressing, error) {
	pool, err := p.Resolve(ctx)
	if err != nil {
		return model.Addressing{}, err
	}
	return pool.Apply(ctx, claim)
}

// Verify is Pool.Verify.
func (p *AutoPool) Verify(ctx context.Context, id model.ID, addrs []netip.Addr) error {
	return p.closed.Verify(ctx, id, addrs)
}

// Remove is Pool.Remove. The subnets stay the network's.
func (p *AutoPool) Remove(ctx context.Context, id model.ID) error { return p.closed.Remove(ctx, id) }

// Collect is Pool.Collect.
func (p *AutoPool) Collect(ctx context.Context, keep func(life.Holder) bool) error {
	return p.closed.Collect(ctx, keep)
}

// Status is Pool.Status; of subnets that are not chosen yet it says why none
// could be.
func (p *AutoPool) Status(ctx context.Context) error {
	subnets, err := p.held()
	if err != nil {
		return err
	}
	if len(subnets) == len(p.wants) {
		pool, err := NewPool(p.with(subnets), p.extra)
		if err != nil {
			return err
		}
		return pool.Status(ctx)
	}
	return errors.Join(p.closed.Status(ctx), p.choosable())
}

// choosable says why a subnet could not be chosen now.
func (p *AutoPool) choosable() error {
	inUse, own, err := p.host.inUse()
	book, bookErr := p.book.List()
	pools, poolsErr := subnets.LoadPools(p.book.PoolsFile)
	if err := errors.Join(err, bookErr, poolsErr); err != nil || len(own) > 0 {
		return err
	}
	for _, h := range book {
		if h.Network != p.cfg.Network {
			inUse = append(inUse, h.Subnet)
		}
	}
	var errs []error
	for _, want := range p.wants {
		_, err := subnets.Choose(pools, inUse, want)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// On returns the pool for a host whose networks are in records, and whose address pools
// in a file; an empty one is subnets.DefaultPoolsFile. Routes lists what the host leads
// to; nil: the routes of the calling thread's network namespace.
func (p *AutoPool) On(records Networks, routes func() ([]netip.Prefix, error), poolsFile string) *AutoPool {
	own := *p
	own.host.records, own.book.PoolsFile = records, poolsFile
	if routes != nil {
		own.host.routes = routes
	}
	return &own
}

// Closed returns the part of the pool that takes addresses back, and gives none.
func (p *AutoPool) Closed() *Pool { return p.closed }

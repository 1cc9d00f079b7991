package address

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

// Pool is the IPAM of this module: leases in a directory of this host.
type Pool struct {
	network string
	store   *ipamstore.Store
	cfg     SavedPool
}

// SavedPool is what a network's record keeps of its pool.
type SavedPool struct {
	DataDir string
	Sets    []ipamstore.RangeSet
	Extra   model.Addressing // routes and DNS that go with every address
	savedPolicy
}

// savedPolicy is how a pool chooses and keeps addresses; the fields are those
// of ipamstore.Config.
type savedPolicy struct {
	Exclude      []netip.Prefix         `json:",omitempty"`
	Aux          map[string]netip.Addr  `json:",omitempty"`
	Strategy     ipamstore.Strategy     `json:",omitempty"`
	Sticky       bool                   `json:",omitempty"`
	Cooldown     time.Duration          `json:",omitempty"`
	RebootPolicy ipamstore.RebootPolicy `json:",omitempty"`
	WarnAt       int                    `json:",omitempty"`
}

func savedPoolOf(c ipamstore.Config, extra model.Addressing) SavedPool {
	return SavedPool{DataDir: c.DataDir, Sets: c.Sets, Extra: extra, savedPolicy: savedPolicy{
		Exclude: c.Exclude, Aux: c.Aux, Strategy: c.Strategy, Sticky: c.Sticky,
		Cooldown: c.Cooldown, RebootPolicy: c.RebootPolicy, WarnAt: c.WarnAt,
	}}
}

// Config returns the configuration of the pool of a network whose record keeps p.
func (p SavedPool) Config(network string) ipamstore.Config {
	return ipamstore.Config{
		Network: network, DataDir: p.DataDir, Sets: p.Sets,
		Exclude: p.Exclude, Aux: p.Aux, Strategy: p.Strategy, Sticky: p.Sticky,
		Cooldown: p.Cooldown, RebootPolicy: p.RebootPolicy, WarnAt: p.WarnAt,
	}
}

var _ IPAM = (*Pool)(nil)

// DefaultDataDir is where leases are kept unless told otherwise; host-local
// keeps its own there.
const DefaultDataDir = "/var/lib/cni/networks"

// NewPool returns the pool that cfg describes, with the routes and DNS of
// extra for each endpoint. It touches no file. The error is an
// *ipamstore.ConfigError. cfg.Dead may be nil: owners whose network namespace
// is gone are then dead. So may cfg.InUse: an address in its owner's network
// namespace is in use. Without Sets the pool gives nothing and takes
// everything back: all that is needed to clean up.
func NewPool(cfg ipamstore.Config, extra model.Addressing) (*Pool, error) {
	if cfg.Dead == nil {
		var seen life.Verdicts
		cfg.Dead = func(h ipamstore.Holder) bool { return seen.Dead(holderOf(cfg.Network, h)) }
	}
	if cfg.InUse == nil {
		cfg.InUse = func(h ipamstore.Holder, a netip.Addr) bool { return holderOf(cfg.Network, h).Has(a) }
	}
	if cfg.DataDir == "" {
		cfg.DataDir = DefaultDataDir
	}
	if cfg.BootID == "" {
		id, err := life.BootID()
		if err != nil {
			return nil, err
		}
		cfg.BootID = id
	}
	store, err := ipamstore.Open(cfg)
	if err != nil {
		return nil, err
	}
	return &Pool{network: cfg.Network, store: store, cfg: savedPoolOf(cfg, extra)}, nil
}

// PoolType is the type of Pool, in configurations and records.
const PoolType = "ipam-ln"

// Type returns PoolType.
func (p *Pool) Type() string { return PoolType }

// Apply gives the claim its addresses, the same ones if it holds some already.
func (p *Pool) Apply(ctx context.Context, claim Claim) (model.Addressing, error) {
	req := ipamstore.Request{
		Holder: ipamstore.Holder{Owner: storeOwner(claim.ID), Netns: claim.Netns, Workload: claim.Workload},
		Addrs:  claim.Addresses,
	}
	req.NetnsID = life.Holder{NetnsID: claim.NetnsID, MountNS: life.MountNS(), Runtime: claim.Runtime}.Token()
	leases, err := p.store.Apply(ctx, req)
	if err != nil {
		return model.Addressing{}, err
	}
	out := model.Addressing{Routes: p.cfg.Extra.Routes, DNS: p.cfg.Extra.DNS}
	for _, l := range leases {
		out.Addresses = append(out.Addresses, model.Address{Prefix: l.Addr, Gateway: l.Gateway})
	}
	return out, nil
}

// Verify says if the owner does not hold exactly these addresses.
func (p *Pool) Verify(ctx context.Context, id model.ID, addrs []netip.Addr) error {
	return p.store.Verify(ctx, storeOwner(id), addrs)
}

// Remove gives the owner's addresses back.
func (p *Pool) Remove(ctx context.Context, id model.ID) error {
	return p.store.Remove(ctx, storeOwner(id))
}

// RemoveAll is Remove for several owners, while the pool is locked once.
func (p *Pool) RemoveAll(ctx context.Context, ids []model.ID) error {
	owners := make([]ipamstore.Owner, len(ids))
	for i, id := range ids {
		owners[i] = storeOwner(id)
	}
	return p.store.Remove(ctx, owners...)
}

// Collect takes back the addresses of every owner keep says no to.
func (p *Pool) Collect(ctx context.Context, keep func(life.Holder) bool) error {
	_, err := p.store.Collect(ctx, func(h ipamstore.Holder) bool { return keep(holderOf(p.network, h)) })
	return err
}

// holders returns the holders of leases, as list of the store tells.
func (p *Pool) holders(ctx context.Context, list func(*ipamstore.Store, context.Context) ([]ipamstore.Holder, error)) ([]life.Holder, error) {
	held, err := list(p.store, ctx)
	var all []life.Holder
	for _, h := range held {
		all = append(all, holderOf(p.network, h))
	}
	return all, err
}

// NearlyFull names the range sets of which WarnAt percent or more are held, or
// all and by holders that are not dead, in words for an operator; empty if there
// are none.
func (p *Pool) NearlyFull(ctx context.Context) string {
	usage, err := p.store.Status(ctx) // an error is Status's to report
	exhausted := errors.Is(err, ipamstore.ErrExhausted)
	var full []string
	for i, s := range usage.Sets {
		if s.Warn || exhausted && s.Held+s.Cooling >= s.Capacity {
			full = append(full, fmt.Sprintf("range set %d: %d of %d addresses are held", i, s.Held, s.Capacity))
		}
	}
	return strings.Join(full, "; ")
}

// Status says why the pool cannot be used now. One with no address left is none
// of these reasons: NearlyFull tells of it.
func (p *Pool) Status(ctx context.Context) error {
	_, err := p.store.Status(ctx)
	return IgnoreFull(err)
}

// IgnoreFull returns nil for a pool that has no address left.
func IgnoreFull(err error) error {
	if errors.Is(err, ipamstore.ErrExhausted) {
		return nil
	}
	return err
}

// Use is how much of a range set is in use.
type Use struct {
	IPv6           bool
	Held, Capacity uint64
}

// Usage returns how much of each range set is in use.
func (p *Pool) Usage(ctx context.Context) ([]Use, error) {
	usage, err := p.store.Status(ctx)
	if errors.Is(err, ipamstore.ErrExhausted) {
		err = nil // that is an answer
	}
	var all []Use
	for i, s := range usage.Sets {
		all = append(all, Use{p.cfg.Sets[i][0].Subnet.Addr().Is6(), s.Held, s.Capacity})
	}
	return all, err
}

// UseOfSets returns the use of each range set, also of one without an address left.
func (p *Pool) UseOfSets(ctx context.Context) ([]ipamstore.SetUsage, error) {
	usage, err := p.store.Status(ctx)
	return usage.Sets, IgnoreFull(err)
}

// Resting returns the addresses that rest after their release.
func (p *Pool) Resting(ctx context.Context) ([]ipamstore.Resting, error) { return p.store.Resting(ctx) }

// HolderOf returns the holder of a lease of a network's pool.
func HolderOf(network string, h ipamstore.Holder) life.Holder { return holderOf(network, h) }

// BlockSets returns the range sets out of which a host's blocks are given, one
// for each address family.
func BlockSets(blocks []netip.Prefix) []ipamstore.RangeSet {
	var sets []ipamstore.RangeSet
	at := map[bool]int{} // by Is6
	for _, b := range blocks {
		is6 := b.Addr().Is6()
		if _, has := at[is6]; !has {
			at[is6] = len(sets)
			sets = append(sets, nil)
		}
		sets[at[is6]] = append(sets[at[is6]], ipamstore.Range{Subnet: b})
	}
	return sets
}

// Gateways returns the gateway of each subnet, in the order of the sets, each
// once.
func (p *Pool) Gateways() []model.Address {
	var all []model.Address
	seen := map[netip.Addr]bool{}
	for _, set := range p.cfg.Sets {
		for _, r := range set {
			gw := r.Gateway
			if !gw.IsValid() {
				gw = model.FirstOf(r.Subnet)
			}
			if gw.IsValid() && !seen[gw] {
				seen[gw] = true
				own := model.Address{Prefix: r.Subnet, Gateway: gw}
				if r.Subnet.Contains(gw) {
					own.Prefix = own.OnBridge()
				}
				all = append(all, own)
			}
		}
	}
	return all
}

func storeOwner(id model.ID) ipamstore.Owner {
	return ipamstore.Owner{ContainerID: id.ContainerID, IfName: id.IfName}
}

func holderOf(network string, h ipamstore.Holder) life.Holder {
	known := life.ParseToken(h.NetnsID)
	known.ID, known.Netns = model.ID{Network: network, ContainerID: h.ContainerID, IfName: h.IfName}, h.Netns
	return known
}

// Suits says which subnets and gateways of the pool a network with this
// configuration cannot have, as an *ipamstore.ConfigError; nil if none.
func (p *Pool) Suits(c model.NetworkConfig) error {
	for i, set := range p.cfg.Sets {
		for j, r := range set {
			var bad *model.ConfigError
			if errors.As(c.ValidateSubnet("", r.Subnet, r.Gateway), &bad) {
				return &ipamstore.ConfigError{Key: fmt.Sprintf("ranges[%d][%d]%s", i, j, bad.Key), Value: bad.Value, Msg: bad.Want}
			}
		}
	}
	return nil
}

// Gives says whether the pool may give an address of a part of a subnet.
func (p *Pool) Gives(part netip.Prefix) bool {
	for _, set := range p.cfg.Sets {
		for _, r := range set {
			before := r.End.IsValid() && r.End.Less(part.Masked().Addr())
			behind := r.Start.IsValid() && !part.Contains(r.Start) && part.Addr().Less(r.Start)
			if r.Subnet.Overlaps(part) && !before && !behind {
				return true
			}
		}
	}
	return false
}

// Subnets returns the subnets of the pool, each once, in the order of its range sets.
func (p *Pool) Subnets() []netip.Prefix {
	var all []netip.Prefix
	for _, set := range p.cfg.Sets {
		for _, r := range set {
			if !slices.Contains(all, r.Subnet) {
				all = append(all, r.Subnet)
			}
		}
	}
	return all
}

// DataDir returns the directory that the pool's leases are in.
func (p *Pool) DataDir() string { return p.cfg.DataDir }

// Saved returns what a network's record keeps of the pool.
func (p *Pool) Saved() SavedPool { return p.cfg }

// Open returns the pool of a network whose record keeps s.
func (s SavedPool) Open(network string) (*Pool, error) {
	return NewPool(s.Config(network), s.Extra)
}

// nearlyFull is the percentage at which a pool without WarnAt is reported.
const nearlyFull = 90

// Shortage says of which range sets little is left; empty: of none.
func (p *Pool) Shortage(ctx context.Context) string {
	usage, err := p.store.Status(ctx)
	if err != nil {
		return strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	var full []string
	for i, set := range usage.Sets {
		low := p.cfg.WarnAt == 0 && float64(set.Held)*100 >= float64(set.Capacity)*nearlyFull
		if set.Warn || low {
			full = append(full, fmt.Sprintf("range set %d (%s): %d of %d addresses are held", i, p.cfg.Sets[i][0].Subnet, set.Held, set.Capacity))
		}
	}
	return strings.Join(full, "; ")
}

// Lookup returns the addresses that the pool has leased to an owner.
func (p *Pool) Lookup(ctx context.Context, id model.ID) ([]netip.Addr, error) {
	leases, err := p.store.Lookup(ctx, storeOwner(id))
	if errors.Is(err, ipamstore.ErrNotFound) {
		return nil, nil
	}
	var all []netip.Addr
	for _, l := range leases {
		all = append(all, l.Addr.Addr())
	}
	return all, err
}

// Held returns the holder of each address.
func (p *Pool) Held(ctx context.Context) (map[netip.Addr]ipamstore.Owner, error) {
	list, err := p.store.List(ctx)
	all := map[netip.Addr]ipamstore.Owner{}
	for _, h := range list {
		if h.Problem == "" {
			all[h.Addr] = h.Owner
		}
	}
	return all, err
}

// List returns the leases of the pool, also those that cannot be read.
func (p *Pool) List(ctx context.Context) ([]ipamstore.Held, error) { return p.store.List(ctx) }

// Adopt leases addresses that attachments have already, and returns the owners of
// the leases it made.
func (p *Pool) Adopt(ctx context.Context, all []ipamstore.Adoption) ([]ipamstore.Owner, error) {
	return p.store.Adopt(ctx, all)
}

// Holders returns the holders of the pool's leases. It changes nothing.
func (p *Pool) Holders(ctx context.Context) ([]life.Holder, error) {
	return p.holders(ctx, (*ipamstore.Store).Holders)
}

// Tidy is Holders, and removes what is left of leases that cannot be read.
func (p *Pool) Tidy(ctx context.Context) ([]life.Holder, error) {
	return p.holders(ctx, (*ipamstore.Store).Tidy)
}

// Blank says that the pool has no lease, but may have lost some.
func (p *Pool) Blank() bool { return p.store.Blank() }

// ReleaseSubnets gives back the subnets that were chosen for the pool's
// network; none is success. It is for a caller that uses a pool without a Network,
// when that network is no more: a Network does it when it is deleted or
// dissolved.
func (p *Pool) ReleaseSubnets(ctx context.Context) error {
	return (&subnets.Book{DataDir: p.cfg.DataDir}).Remove(ctx, p.network)
}

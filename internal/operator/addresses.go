package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// SubnetsInUse returns what a new subnet must not overlap: routes, addresses and name
// servers of the host, and the subnets of its networks, with those that were chosen for
// networks without a container yet.
func (o *Operator) SubnetsInUse() (all []netip.Prefix, err error) {
	leave, err := o.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	return address.InUse(o.dir, o.DataDir)
}

// ErrNoPool is of a network whose addresses are given by another IPAM plugin, or by none.
var ErrNoPool = errors.New("has no addresses of ipam-ln")

// LeaseState says what an address of a pool is doing.
type LeaseState string

// The states of an address.
const (
	LeaseAlive LeaseState = "alive" // its container is not provably gone
	LeaseDead  LeaseState = "dead"  // its container is provably gone: GC frees it
	LeaseWrong LeaseState = "unreadable"
	// LeaseCooling is of an address that was released, and is not given again before Until.
	LeaseCooling LeaseState = "cooling"
)

// Lease is an address that a pool has given.
type Lease struct {
	Addr  netip.Addr
	ID    model.ID // zero for LeaseWrong and LeaseCooling
	State LeaseState
	Why   string    // the container is gone, or the lease cannot be read
	Since time.Time // of the lease, or of its release; zero: not known
	Until time.Time // zero but for LeaseCooling
	// Workload keeps the address over restarts; empty: none does.
	Workload string
	// Recorded says that the holder is an attachment of libnet's records.
	Recorded bool
}

// PoolState is a network's pool.
type PoolState struct {
	Network string
	Sets    []PoolUse
	Leases  []Lease // in the order of addresses
	Cooling []Lease // in the order in which they may be given again
	// NotRead says why the use is not known; the leases are.
	NotRead string
}

// PoolUse is how much of a range set is in use, in addresses.
type PoolUse struct {
	Subnets                 []netip.Prefix
	Held, Cooling, Capacity uint64
}

// Pool returns the pool of a network. ErrNotFound if there is no such network, ErrNoPool if
// its addresses are not ours. It changes nothing.
func (o *Operator) Pool(ctx context.Context, n *engine.Network) (PoolState, error) {
	pool, is := n.IPAM().(*address.Pool)
	if !is {
		return PoolState{}, fmt.Errorf("network %q %w: ipam.type is %q", n.Name(), ErrNoPool, n.IPAMType())
	}
	p := PoolState{Network: n.Name()}
	usage, err := pool.UseOfSets(ctx)
	for i, set := range pool.Saved().Sets {
		use := PoolUse{}
		for _, r := range set {
			use.Subnets = append(use.Subnets, r.Subnet)
		}
		if i < len(usage) {
			use.Held, use.Cooling, use.Capacity = usage[i].Held, usage[i].Cooling, usage[i].Capacity
		}
		p.Sets = append(p.Sets, use)
	}
	if err != nil {
		p.NotRead = oneLine(err)
	}
	recorded, err := recordedIDs(ctx, n)
	if err != nil {
		return p, err
	}
	held, err := pool.List(ctx)
	var seen life.Verdicts
	for _, h := range held {
		p.Leases = append(p.Leases, o.lease(n, h, &seen, recorded))
	}
	slices.SortFunc(p.Leases, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	resting, coolErr := pool.Resting(ctx)
	taken := map[netip.Addr]bool{} // by another program, too
	for _, h := range held {
		taken[h.Addr] = true
	}
	for _, r := range resting {
		if !taken[r.Addr] {
			p.Cooling = append(p.Cooling, Lease{Addr: r.Addr, State: LeaseCooling, Since: r.Since, Until: r.Until})
		}
	}
	return p, errors.Join(err, coolErr)
}

// recordedIDs are those of the attachments of a network.
func recordedIDs(ctx context.Context, n *engine.Network) (map[model.ID]bool, error) {
	all := map[model.ID]bool{}
	endpoints, err := n.Endpoints(ctx)
	for _, e := range endpoints {
		all[e.ID()] = true
	}
	if errors.Is(err, state.ErrCorrupt) { // doctor tells of it
		err = nil
	}
	return all, err
}

func (o *Operator) lease(n *engine.Network, h ipamstore.Held, seen *life.Verdicts, recorded map[model.ID]bool) Lease {
	l := Lease{Addr: h.Addr, Since: h.Since, Workload: h.Workload, State: LeaseAlive}
	if h.Problem != "" {
		l.State, l.Why = LeaseWrong, h.Problem
		return l
	}
	holder := address.HolderOf(n.Name(), h.Holder)
	l.ID = holder.ID
	l.Recorded = recorded[l.ID]
	if seen.Dead(holder) {
		l.State, l.Why = LeaseDead, cmp.Or(o.WhyDead(holder), "its network namespace is gone")
	}
	return l
}

// Release takes an address back from its holder, whose container is provably gone. With
// force it does so from one that is not. Then the address may get a second owner while the
// first one still uses it; the holder is returned, with all that it loses: the pool gives
// back all addresses of an attachment at once.
func (o *Operator) Release(ctx context.Context, n *engine.Network, addr netip.Addr, force bool) (lost []Lease, err error) {
	p, err := o.Pool(ctx, n)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(p.Leases, func(l Lease) bool { return l.Addr == addr })
	if at < 0 {
		return nil, fmt.Errorf("%w: %s is not held in network %q", model.ErrNotFound, addr, n.Name())
	}
	l := p.Leases[at]
	name, is := service.OfLease(l.ID.ContainerID, l.ID.IfName)
	has, err := o.Services().Has(n.Name(), name)
	switch {
	case is && err != nil:
		return nil, err
	case is && has:
		return nil, fmt.Errorf("%s is the address of service %q: lnctl service rm %s --network %s", addr, name, name, n.Name())
	case l.State == LeaseWrong:
		return nil, fmt.Errorf("the lease of %s cannot be read: %s; lnctl gc removes it", addr, l.Why)
	case l.State == LeaseAlive && l.Recorded:
		return nil, fmt.Errorf("%s is the address of %s %s, an attachment of network %q: have its runtime remove the container (DEL)", addr, l.ID.ContainerID, l.ID.IfName, n.Name())
	case l.State == LeaseAlive && !force:
		return nil, fmt.Errorf("%s is held by %s %s, which is not provably gone: --force releases it all the same", addr, l.ID.ContainerID, l.ID.IfName)
	}
	for _, other := range p.Leases {
		if other.ID == l.ID {
			lost = append(lost, other)
		}
	}
	if l.State == LeaseDead { // asked again while it is owned; its links and rules go, too
		return lost, n.Collect(ctx, func(h life.Holder) bool { return h.ID != l.ID || !o.Dead(h) }, engine.KeepNetwork)
	}
	return lost, n.IPAM().Remove(ctx, l.ID)
}

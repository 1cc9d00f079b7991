package ipamstore

import (
	"net/netip"
	"time"
)

// Owner names a holder of addresses: one interface of one container.
type Owner struct {
	// ContainerID is the runtime's ID. It must not be empty.
	ContainerID string
	// IfName is the interface in the container. It is empty only in leases
	// written by early host-local releases, which did not record it;
	// such a lease belongs to every interface of the container.
	IfName string
}

// Holder is an Owner and what is known of it. Only the Owner is written to
// the lease file; the rest lives in the index and is empty ("unknown") for
// leases made by another program.
type Holder struct {
	Owner
	// Netns is the path of the network namespace, "" if unknown.
	Netns string
	// NetnsID is an opaque token that tells namespaces apart, "" if unknown.
	// The store only keeps it for Config.Dead.
	NetnsID string
	// Workload is a name that outlives containers (a pod, a service); it is
	// the key of Config.Sticky and StrategyHash. "" is none.
	Workload string
}

// Range is a run of addresses of one subnet.
//
// Zero fields take host-local's defaults: Start is the first address after
// the network address, End the last address (for IPv4 the one before the
// broadcast address), Gateway the first address after the network address.
// Subnets of one or two addresses (/32, /31, /128, /127) are usable whole and
// have no gateway unless one is given. Of others the network address and, for
// IPv4, the broadcast address are never leased, even if Start or End name them.
type Range struct {
	// Subnet is required; host bits must be zero.
	Subnet netip.Prefix
	// Start and End are inclusive and lie in Subnet.
	Start, End netip.Addr
	// Gateway is never leased. It need not lie in Subnet.
	Gateway netip.Addr
}

// RangeSet is a pool: ranges of one address family that do not overlap. One
// address is taken out of each set.
type RangeSet []Range

// Strategy says which free address is taken.
type Strategy string

const (
	// StrategyNext, the default, takes the first free address after the one
	// leased last, as host-local does: released addresses rest longest.
	StrategyNext Strategy = "next"
	// StrategyLowest takes the lowest free address.
	StrategyLowest Strategy = "lowest"
	// StrategyRandom takes the first free address from a random point on.
	StrategyRandom Strategy = "random"
	// StrategyHash starts at a point derived from the workload (or else the
	// owner): the same name gets the same address as long as it is free.
	StrategyHash Strategy = "hash"
)

// RebootPolicy says what becomes of leases when the machine has rebooted.
type RebootPolicy string

const (
	// RebootRelease, the default, voids leases of earlier boots on the first
	// Apply of a new one: containers do not survive a reboot. Nothing is
	// synced to disk.
	RebootRelease RebootPolicy = "release"
	// RebootKeep keeps leases over reboots; Apply syncs them to disk.
	RebootKeep RebootPolicy = "keep"
)

// Config describes a pool. Only Network is needed for Remove, List, Lookup
// and Collect; Apply needs Sets.
type Config struct {
	// Network names the pool's directory: letters, digits, '_', '.', '-',
	// starting with a letter or digit.
	Network string
	// DataDir is the folder of all pools; "" is /var/lib/cni/networks.
	DataDir string
	// Sets are the pools; one address is leased out of each. Their order is
	// the order of the leases, and the N of last_reserved_ip.N.
	Sets []RangeSet
	// Exclude is never chosen automatically; a request for such an address
	// is granted.
	Exclude []netip.Prefix
	// Aux names addresses that belong to something else in the subnet, by
	// name. They are never leased.
	Aux map[string]netip.Addr
	// Strategy is how a free address is chosen; "" is StrategyNext.
	Strategy Strategy
	// Sticky gives a workload the address it had last, if that is free.
	Sticky bool
	// Cooldown is how long a released address rests before it is chosen
	// automatically again. Zero is not at all. Sticky and requested addresses
	// do not rest, nor do leases released by other programs.
	Cooldown time.Duration
	// RebootPolicy is what a reboot does to leases; "" is RebootRelease.
	RebootPolicy RebootPolicy
	// WarnAt is the percentage of a set in use at which Status sets
	// SetUsage.Warn. Zero is never.
	WarnAt int
	// Dead says whether a holder is provably gone, so that its lease may be
	// taken over. It is asked before an Apply fails for want of addresses and
	// when a requested address is taken. nil is never. Like InUse it runs with
	// the lock held: it must be quick and must not call the Store.
	Dead func(Holder) bool
	// InUse says whether a live link of a holder still has an address. It is
	// asked only where the index lists a lease whose file was removed by another
	// program: that lease is then made again, and the address is not given twice.
	// nil is never.
	InUse func(Holder, netip.Addr) bool
	// LockTimeout bounds the wait for the lock; zero is 10 seconds. The
	// context of a call may end the wait sooner.
	LockTimeout time.Duration
	// BootID identifies the running boot; "" reads
	// /proc/sys/kernel/random/boot_id.
	BootID string
}

// Request asks for one address out of each set.
type Request struct {
	Holder
	// Addrs are addresses wanted, at most one for each set. Sets without one
	// choose by Strategy.
	Addrs []netip.Addr
}

// Lease is an address an owner holds.
type Lease struct {
	// Addr is the address with the length of its subnet, or of a single
	// address if Set is -1.
	Addr netip.Prefix
	// Gateway is the range's gateway; the zero Addr if it has none.
	Gateway netip.Addr
	// Set is the index of the set, or -1 if the address is in none (the
	// configuration has changed since).
	Set int
}

// Held is one file of the pool's directory as List found it.
type Held struct {
	// Addr is the leased address; the zero Addr if the file is not named by
	// one.
	Addr netip.Addr
	// Holder has the address; zero if Problem says so.
	Holder
	// Since is when the lease file was written.
	Since time.Time
	// File is the name of the file in the directory.
	File string
	// Problem is "" for a lease. Otherwise the file is none: it is empty,
	// damaged, not a regular file, or not named by an address.
	Problem string
}

// Resting is an address that rests after its release (Config.Cooldown).
type Resting struct {
	Addr netip.Addr
	// Since is when it was released, and Until the moment from which it may be chosen
	// automatically again.
	Since, Until time.Time
}

// Usage is what Status found.
type Usage struct {
	// Dir is the directory of the pool.
	Dir string
	// Sets has one entry for each of Config.Sets.
	Sets []SetUsage
	// Problems counts files in the directory that are neither leases nor the
	// store's own; List names them.
	Problems int
}

// SetUsage counts the addresses of one set. Counts stop at the largest uint64.
type SetUsage struct {
	// Capacity is how many addresses can be chosen automatically: without
	// gateways, excluded and auxiliary addresses.
	Capacity uint64
	// Held is how many of those are leased, or barred by a file that is no
	// lease.
	Held uint64
	// Cooling is how many of those rest after their release.
	Cooling uint64
	// Warn is set when Held has reached Config.WarnAt percent of Capacity.
	Warn bool
}

// text names the holder, and what is known of it, in messages.
func (h Holder) text() string {
	out := h.Owner.text()
	if h.Workload != "" {
		out += ", workload " + h.Workload
	}
	if h.Netns != "" {
		out += ", namespace " + h.Netns
	}
	return out
}

// text returns "containerID/ifName", or the container ID if that is all.
func (o Owner) text() string {
	if o.IfName == "" {
		return o.ContainerID
	}
	return o.ContainerID + "/" + o.IfName
}

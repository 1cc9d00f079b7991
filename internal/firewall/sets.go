package firewall

import (
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Everything in sets.go and rules.go is the whole of our rules, and it never
// grows: networks, endpoints and published ports are elements of the sets. A
// new kind of rule is one more set and one more rule here, and its elements in
// plan.go. The exceptions are chain marks, see AcceptMark, and the chains of
// endpoints with conditions, see gate.go.
//
// Tried and dropped: a rule per endpoint (its cost grows with their number,
// per packet and per change), and maps from address to bridge (a rule cannot
// compare what a map gave with the packet, so two sets stand in for one map).

// The sets of networks. Each key has the bridge in it.
var (
	internal = set{unix.NFPROTO_INET, "internal", tuple{iifname}, nil, false}
	inside   = set{unix.NFPROTO_INET, "inside", tuple{iifname, oifname}, nil, false}
	noicc    = set{unix.NFPROTO_INET, "noicc", tuple{iifname, oifname}, nil, false}
	apart    = set{unix.NFPROTO_INET, "apart", tuple{iifname}, nil, false}
	closed   = set{unix.NFPROTO_INET, "closed", tuple{nfproto, oifname}, nil, false}
	routed   = set{unix.NFPROTO_INET, "routed", tuple{nfproto, oifname}, nil, false}
	trusted  = set{unix.NFPROTO_INET, "trusted", tuple{iifname, oifname}, nil, false}
	noHost   = set{unix.NFPROTO_INET, "nohost", tuple{oifname}, nil, false}
	// tunnels and vteps belong together.
	tunnels = set{unix.NFPROTO_INET, "tunnels", tuple{iifname}, nil, false}
	vteps   = set{unix.NFPROTO_INET, "vteps", tuple{iifname, etherSource}, nil, false}

	// vteps before tunnels: until an element of tunnels is there, nothing is refused.
	networkSets = []*set{&internal, &inside, &noicc, &apart, &closed, &routed, &trusted, &noHost, &vteps, &tunnels, &hosts4, &hosts6, &underlay}
)

// owners has an element for each owner of elements in the sets of ipv4 and ipv6,
// by the hash of its name, FNV-1a, in the clothes of an address: nft lists no
// numbers of 128 bits. No rule looks at it. It tells for the price of one
// question that an owner has nothing, where no record says what it might have.
var owners = set{unix.NFPROTO_INET, "owners", tuple{{typeIPv6, 16, nowhere, 0}}, nil, false}

// strict has both families while a network of the host has an element in one of
// strictSets: then no packet is let through before they are asked. Who puts the
// first there adds them, who takes the last away deletes them; they have no owner.
// A set of one byte is a bitmap, which is asked faster than sets of interfaces.
var (
	strict     = set{unix.NFPROTO_INET, "strict", tuple{nfproto}, nil, false}
	strictSets = []*set{&internal, &noicc, &apart, &tunnels}
)

// familySets are the sets of endpoints for one address family; other names and
// types, the same rules.
type familySets struct {
	family uint8
	bits   int
	saddr  field
	daddr  field
	// masq and home belong together: addresses by the interface they come in by,
	// and the interfaces by which the host reaches them. The interface is part of
	// each key, so that two bridges can have the same address. For iifname in
	// postrouting the kernel has to be Linux 5.7 or later.
	masq, home set
	// source gives masq a fixed address in place of the interface's.
	source set
	// hairpin and masqAll say for which addresses of containers, on which
	// interface, connections by a published port get another source: one for
	// endpoints, one for those that are Beside, so that neither takes what the
	// other one needs.
	hairpin, masqAll [2]set
	// The published ports of any host address and of a certain one; these
	// restricted to some clients; and ranges that keep their port numbers.
	anyPort, port, from, span set
	// open and openSpan are container ports that may be reached directly, by
	// everybody or by some clients and as ranges.
	open, openSpan set
	// Of the family's own table: the published ports of endpoints with
	// conditions. gate leads to the chain of the owner, and of what that lets
	// through the other two are as from and span.
	gate, gatedFrom, gatedSpan set
}

// zero is the address of the family that stands for any.
func (f *familySets) zero() netip.Addr {
	if f.family == unix.NFPROTO_IPV6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// gates returns the sets of the family's own table.
func (f *familySets) gates() []*set { return []*set{&f.gate, &f.gatedFrom, &f.gatedSpan} }

// all returns the sets of endpoints, those of published ports apart.
func (f *familySets) all() (plain, ports []*set) {
	return []*set{&f.masq, &f.home, &f.source},
		[]*set{&f.hairpin[0], &f.hairpin[1], &f.masqAll[0], &f.masqAll[1], &f.anyPort, &f.port, &f.from, &f.span, &f.open, &f.openSpan}
}

func setsOf(family uint8, suffix string, bits int, saddr, daddr field) familySets {
	named := func(name string, key, data tuple, interval bool) set {
		return set{unix.NFPROTO_INET, name + suffix, key, data, interval}
	}
	gated := func(name string, key, data tuple) set { return set{family, name, key, data, true} }
	target := tuple{daddr, dport}
	return familySets{
		family: family, bits: bits, saddr: saddr, daddr: daddr,
		masq:     named("masquerade", tuple{saddr, iifname}, nil, false),
		home:     named("home", tuple{saddr, oifname}, nil, false),
		source:   named("snat", tuple{saddr, iifname}, tuple{daddr}, false),
		hairpin:  [2]set{named("hairpin", tuple{daddr, oifname}, nil, false), named("besidehairpin", tuple{daddr, oifname}, nil, false)},
		masqAll:  [2]set{named("masqueradeall", tuple{daddr, oifname}, nil, false), named("besidemasqueradeall", tuple{daddr, oifname}, nil, false)},
		anyPort:  named("anyport", tuple{protocol, dport}, target, false),
		port:     named("port", tuple{daddr, protocol, dport}, target, false),
		from:     named("from", tuple{saddr, daddr, protocol, dport}, target, true),
		span:     named("span", tuple{saddr, daddr, protocol, dport}, tuple{daddr}, true),
		open:     named("open", tuple{daddr, protocol, dport}, nil, false),
		openSpan: named("openspan", tuple{saddr, daddr, protocol, dport}, nil, true),

		gate:      gated("gate", tuple{daddr, protocol, dport}, tuple{verdictField}),
		gatedFrom: gated("from", tuple{saddr, daddr, protocol, dport}, target),
		gatedSpan: gated("span", tuple{saddr, daddr, protocol, dport}, tuple{daddr}),
	}
}

// families are made for who first asks: most processes have no rules.
var families struct {
	once   sync.Once
	v4, v6 familySets
}

func ipv4() *familySets { return bothFamilies()[0] }
func ipv6() *familySets { return bothFamilies()[1] }

func bothFamilies() []*familySets {
	families.once.Do(func() {
		families.v4 = setsOf(unix.NFPROTO_IPV4, "4", 32, saddr4, daddr4)
		families.v6 = setsOf(unix.NFPROTO_IPV6, "6", 128, saddr6, daddr6)
	})
	return []*familySets{&families.v4, &families.v6}
}

// The sets of ports of the bridge. guarded and macs belong together.
var (
	guarded = set{unix.NFPROTO_BRIDGE, "guarded", tuple{iifname}, nil, false}
	macs    = set{unix.NFPROTO_BRIDGE, "macs", tuple{iifname, etherSource}, nil, false}
)

// table is one of our tables, as it has to be.
type table struct {
	family uint8
	sets   []*set
	chains []chain
}

// set is a named set; with data it is a map. The keys of an interval set are
// ranges in every field; it needs Linux 5.6.
type set struct {
	family   uint8
	name     string
	key      tuple
	data     tuple
	interval bool
}

// chain is a base chain with policy accept, or, without a kind, one that some
// rules jump to.
type chain struct {
	name, kind string
	hook       uint32
	priority   int32
	jumps      int // how many rules jump to it
	rules      []rule
}

// rule is what it is for, which is its comment, and what it does.
type rule struct {
	why  string
	does part
}

// Priorities, as nft names them: raw, dstnat, filter, srcnat, and dstnat of the
// bridge family. Our forward chain stands before filter, so that what we drop
// is never accepted into a flowtable or counted there; any place would drop it.
// Published ports come after dstnat, where kube-proxy has its Services
// (CVE-2019-9946).
const (
	priRaw           = -300
	priDestNAT       = -100
	priFilter        = 0
	priSourceNAT     = 100
	priBridgeDestNAT = -300
)

// Constants of linux/netfilter.h and linux/netfilter_bridge.h.
const (
	nfBridgePreRouting = 0 // NF_BR_PRE_ROUTING
	verdictDrop        = 0 // NF_DROP
	verdictAccept      = 1 // NF_ACCEPT
)

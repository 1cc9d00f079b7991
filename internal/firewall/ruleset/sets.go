package ruleset

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
	Internal = Set{unix.NFPROTO_INET, "internal", Tuple{IIFName}, nil, false}
	Inside   = Set{unix.NFPROTO_INET, "inside", Tuple{IIFName, OIFName}, nil, false}
	NoICC    = Set{unix.NFPROTO_INET, "noicc", Tuple{IIFName, OIFName}, nil, false}
	Apart    = Set{unix.NFPROTO_INET, "apart", Tuple{IIFName}, nil, false}
	Closed   = Set{unix.NFPROTO_INET, "closed", Tuple{NFProto, OIFName}, nil, false}
	Routed   = Set{unix.NFPROTO_INET, "routed", Tuple{NFProto, OIFName}, nil, false}
	Trusted  = Set{unix.NFPROTO_INET, "trusted", Tuple{IIFName, OIFName}, nil, false}
	NoHost   = Set{unix.NFPROTO_INET, "nohost", Tuple{OIFName}, nil, false}
	// Tunnels and VTEPs belong together.
	Tunnels = Set{unix.NFPROTO_INET, "tunnels", Tuple{IIFName}, nil, false}
	VTEPs   = Set{unix.NFPROTO_INET, "vteps", Tuple{IIFName, EtherSource}, nil, false}

	// Sealed4 and Sealed6 are the prefixes of encrypted networks, by bridge.
	Sealed4 = Set{unix.NFPROTO_INET, "sealed4", Tuple{IIFName, DAddr4}, nil, true}
	Sealed6 = Set{unix.NFPROTO_INET, "sealed6", Tuple{IIFName, DAddr6}, nil, true}

	// Beyond4 and Beyond6 say where packets may go without a tunnel: from an interface, to a block,
	// by an interface. Where the third one is the first again, the packet is for this host.
	Beyond4 = Set{unix.NFPROTO_INET, "beyond4", Tuple{IIFName, DAddr4, OIFName}, nil, true}
	Beyond6 = Set{unix.NFPROTO_INET, "beyond6", Tuple{IIFName, DAddr6, OIFName}, nil, true}
	// Senders4 and Senders6 say from where packets may come without a tunnel: by an interface, from
	// a MAC, out of a block, into an interface, with the same exception.
	Senders4 = Set{unix.NFPROTO_INET, "senders4", Tuple{IIFName, EtherSource, SAddr4, OIFName}, nil, true}
	Senders6 = Set{unix.NFPROTO_INET, "senders6", Tuple{IIFName, EtherSource, SAddr6, OIFName}, nil, true}
	// Far4 and Far6 are the blocks of Beyond: what gets there otherwise was translated.
	Far4 = Set{unix.NFPROTO_INET, "far4", Tuple{DAddr4, OIFName}, nil, true}
	Far6 = Set{unix.NFPROTO_INET, "far6", Tuple{DAddr6, OIFName}, nil, true}

	// NetworkSets has VTEPs before Tunnels: until an element of Tunnels is there, nothing is refused.
	NetworkSets = []*Set{&Internal, &Inside, &NoICC, &Apart, &Closed, &Routed, &Trusted, &NoHost, &VTEPs, &Tunnels, &hosts4, &hosts6, &underlay, &Sealed4, &Sealed6,
		&Senders4, &Senders6, &Beyond4, &Beyond6, &Far4, &Far6}
)

// Owners is an index: one element for each owner of elements in the sets of IPv4 and
// IPv6, keyed by a 128-bit hash of its name (FNV-1a). The key has the type of an IPv6
// address because nft cannot print 128-bit numbers. No rule looks at it. One question
// tells that an owner has nothing, where no record says what it might have.
var Owners = Set{unix.NFPROTO_INET, "owners", Tuple{{typeIPv6, 16, nowhere, 0}}, nil, false}

// Strict has both families while a network of the host has an element in one of
// StrictSets: then no packet is let through before they are asked. The process that
// adds the first such element adds them, the one that deletes the last deletes them;
// they have no owner.
// A set of one byte is a bitmap, which is asked faster than sets of interfaces.
var (
	Strict     = Set{unix.NFPROTO_INET, "strict", Tuple{NFProto}, nil, false}
	StrictSets = []*Set{&Internal, &NoICC, &Apart, &Tunnels}
)

// FamilySets are the sets of endpoints for one address family; other names and
// types, the same rules.
type FamilySets struct {
	Family uint8
	SAddr  Field
	DAddr  Field
	// Masq and Home belong together: addresses by the interface they come in by,
	// and the interfaces by which the host reaches them. The interface is part of
	// each key, so that two bridges can have the same address. For iifname in
	// postrouting the kernel has to be Linux 5.7 or later.
	Masq, Home Set
	// Source gives Masq a fixed address in place of the interface's.
	Source Set
	// Hairpin and MasqAll say for which addresses of containers, on which
	// interface, connections by a published port get another source: one for
	// endpoints, one for those that are Beside, so that neither takes what the
	// other one needs.
	Hairpin, MasqAll [2]Set
	// The published ports of any host address and of a certain one; these
	// restricted to some clients; and ranges that keep their port numbers.
	AnyPort, Port, From, Span Set
	// Open and OpenSpan are container ports that may be reached directly, by
	// all clients, or by some clients and as ranges.
	Open, OpenSpan Set
	// Of the family's own table: the published ports of endpoints with
	// conditions. Gate leads to the chain of the owner, and of what that lets
	// through the other two are as From and Span.
	Gate, GatedFrom, GatedSpan Set
}

// zero is the address of the family that stands for any.
func (f *FamilySets) zero() netip.Addr {
	if f.Family == unix.NFPROTO_IPV6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// Gates returns the sets of the family's own table.
func (f *FamilySets) Gates() []*Set { return []*Set{&f.Gate, &f.GatedFrom, &f.GatedSpan} }

// all returns the sets of endpoints, those of published ports apart.
func (f *FamilySets) all() (plain, ports []*Set) {
	return []*Set{&f.Masq, &f.Home, &f.Source},
		[]*Set{&f.Hairpin[0], &f.Hairpin[1], &f.MasqAll[0], &f.MasqAll[1], &f.AnyPort, &f.Port, &f.From, &f.Span, &f.Open, &f.OpenSpan}
}

func setsOf(family uint8, suffix string, saddr, daddr Field) FamilySets {
	named := func(name string, key, data Tuple, interval bool) Set {
		return Set{unix.NFPROTO_INET, name + suffix, key, data, interval}
	}
	gated := func(name string, key, data Tuple) Set { return Set{family, name, key, data, true} }
	target := Tuple{daddr, DPort}
	return FamilySets{
		Family: family, SAddr: saddr, DAddr: daddr,
		Masq:     named("masquerade", Tuple{saddr, IIFName}, nil, false),
		Home:     named("home", Tuple{saddr, OIFName}, nil, false),
		Source:   named("snat", Tuple{saddr, IIFName}, Tuple{daddr}, false),
		Hairpin:  [2]Set{named("hairpin", Tuple{daddr, OIFName}, nil, false), named("besidehairpin", Tuple{daddr, OIFName}, nil, false)},
		MasqAll:  [2]Set{named("masqueradeall", Tuple{daddr, OIFName}, nil, false), named("besidemasqueradeall", Tuple{daddr, OIFName}, nil, false)},
		AnyPort:  named("anyport", Tuple{L4Proto, DPort}, target, false),
		Port:     named("port", Tuple{daddr, L4Proto, DPort}, target, false),
		From:     named("from", Tuple{saddr, daddr, L4Proto, DPort}, target, true),
		Span:     named("span", Tuple{saddr, daddr, L4Proto, DPort}, Tuple{daddr}, true),
		Open:     named("open", Tuple{daddr, L4Proto, DPort}, nil, false),
		OpenSpan: named("openspan", Tuple{saddr, daddr, L4Proto, DPort}, nil, true),

		Gate:      gated("gate", Tuple{daddr, L4Proto, DPort}, Tuple{verdictField}),
		GatedFrom: gated("from", Tuple{saddr, daddr, L4Proto, DPort}, target),
		GatedSpan: gated("span", Tuple{saddr, daddr, L4Proto, DPort}, Tuple{daddr}),
	}
}

// families are made at the first call: most processes have no rules.
var families struct {
	once   sync.Once
	v4, v6 FamilySets
}

// IPv4 returns the sets of that family.
func IPv4() *FamilySets { return BothFamilies()[0] }

// IPv6 returns the sets of that family.
func IPv6() *FamilySets { return BothFamilies()[1] }

// BothFamilies returns the sets of IPv4 and those of IPv6; always the same two.
func BothFamilies() []*FamilySets {
	families.once.Do(func() {
		families.v4 = setsOf(unix.NFPROTO_IPV4, "4", SAddr4, DAddr4)
		families.v6 = setsOf(unix.NFPROTO_IPV6, "6", SAddr6, DAddr6)
	})
	return []*FamilySets{&families.v4, &families.v6}
}

// The sets of ports of the bridge. Guarded and MACs belong together.
var (
	Guarded = Set{unix.NFPROTO_BRIDGE, "guarded", Tuple{IIFName}, nil, false}
	MACs    = Set{unix.NFPROTO_BRIDGE, "macs", Tuple{IIFName, EtherSource}, nil, false}
)

// Table is one of our tables, as it has to be.
type Table struct {
	Family uint8
	Sets   []*Set
	Chains []Chain
}

// Set is a named set; with data it is a map. The keys of an interval set are
// ranges in every field; it needs Linux 5.6.
type Set struct {
	Family   uint8
	Name     string
	Key      Tuple
	Data     Tuple
	Interval bool
}

// Chain is a base chain with policy accept, or, without a kind, one that some
// rules jump to.
type Chain struct {
	Name, Kind string
	Hook       uint32
	Priority   int32
	Jumps      int // how many rules jump to it
	Rules      []Rule
}

// Rule is what it is for, which is its comment, and what it does.
type Rule struct {
	Why  string
	Does Part
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
	VerdictDrop        = 0 // NF_DROP
	VerdictAccept      = 1 // NF_ACCEPT
)

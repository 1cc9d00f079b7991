package firewall

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Everything below is the whole of our rules, and it never grows: networks
// and endpoints are elements of the sets. A new kind of rule (published ports)
// is one more set and one more rule here, and its elements in plan.go.
//
// Tried and dropped: a rule per endpoint (its cost grows with their number,
// per packet and per change), and maps from address to bridge (a rule cannot
// compare what a map gave with the packet, so two sets stand in for one map).

// tableName is the name of all our tables.
const tableName = "libnet"

// The sets. masq and home belong together, internal and inside do, guarded
// and macs do.
var (
	masq4    = set{unix.NFPROTO_INET, "masq4", []field{saddr4}}
	home4    = set{unix.NFPROTO_INET, "home4", []field{saddr4, oifname}}
	masq6    = set{unix.NFPROTO_INET, "masq6", []field{saddr6}}
	home6    = set{unix.NFPROTO_INET, "home6", []field{saddr6, oifname}}
	internal = set{unix.NFPROTO_INET, "internal", []field{iifname}}
	inside   = set{unix.NFPROTO_INET, "inside", []field{iifname, oifname}}
	noicc    = set{unix.NFPROTO_INET, "noicc", []field{iifname, oifname}}
	guarded  = set{unix.NFPROTO_BRIDGE, "guarded", []field{iifname}}
	macs     = set{unix.NFPROTO_BRIDGE, "macs", []field{iifname, etherSource}}
)

// inetTable holds what concerns packets.
func inetTable() table {
	return table{unix.NFPROTO_INET, []*set{&masq4, &home4, &masq6, &home6, &internal, &inside, &noicc}, []chain{
		{"forward", "filter", unix.NF_INET_FORWARD, priFilter - 1, []rule{
			{"no traffic between containers", // iifname . oifname @noicc drop
				exprs(in(&noicc), drop)},
			{"nothing out of an internal network", // iifname @internal iifname . oifname != @inside drop
				exprs(in(&internal), notIn(&inside), drop)},
			{"nothing into an internal network", // oifname @internal iifname . oifname != @inside drop
				exprs(in(&internal, oifname), notIn(&inside), drop)},
		}},
		{"postrouting", "nat", unix.NF_INET_POST_ROUTING, priSourceNAT, []rule{
			{"masquerade what leaves the bridge, ipv4", // ip saddr @masq4 ip saddr . oifname != @home4 ip daddr != 224.0.0.0/4 masquerade
				exprs(isIPv4, in(&masq4), notIn(&home4), notMulticast4, masquerade)},
			{"masquerade what leaves the bridge, ipv6", // ip6 saddr @masq6 ip6 saddr . oifname != @home6 ip6 daddr != ff00::/8 masquerade
				exprs(isIPv6, in(&masq6), notIn(&home6), notMulticast6, masquerade)},
		}},
	}}
}

// bridgeTable holds what concerns frames. It exists only once an endpoint has a MAC.
func bridgeTable() table {
	return table{unix.NFPROTO_BRIDGE, []*set{&guarded, &macs}, []chain{
		{"prerouting", "filter", nfBridgePreRouting, priBridgeDestNAT, []rule{
			{"no other source MAC than the container's", // iifname @guarded iifname . ether saddr != @macs drop
				exprs(in(&guarded), notIn(&macs), drop)},
		}},
	}}
}

// Priorities, as nft names them: filter, srcnat, and dstnat of the bridge
// family. Our forward chain stands before filter, so that what we drop is
// never accepted into a flowtable or counted there; any place would drop it.
const (
	priFilter        = 0
	priSourceNAT     = 100
	priBridgeDestNAT = -300

	nfBridgePreRouting = 0 // NF_BR_PRE_ROUTING of linux/netfilter_bridge.h
	nfAccept           = 1 // NF_ACCEPT of linux/netfilter.h
)

type table struct {
	family uint8
	sets   []*set
	chains []chain
}

// set is a named set whose key is one field, or several one after the other.
type set struct {
	family uint8
	name   string
	fields []field
}

// chain is a base chain with policy accept.
type chain struct {
	name, kind string
	hook       uint32
	priority   int32
	rules      []rule
}

// rule is what it is for, which is its comment, and what it does.
type rule struct {
	why   string
	exprs []expr.Any
}

func exprs(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// in matches packets whose fields are an element of s. The fields are those
// of s, unless others are given.
func in(s *set, fields ...field) []expr.Any { return lookup(s, false, fields) }

func notIn(s *set) []expr.Any { return lookup(s, true, nil) }

func lookup(s *set, invert bool, fields []field) []expr.Any {
	if fields == nil {
		fields = s.fields
	}
	var all []expr.Any
	reg := uint32(unix.NFT_REG32_00)
	for _, f := range fields {
		all = append(all, f.load(reg))
		reg += f.padded() / 4
	}
	return append(all, &expr.Lookup{SourceRegister: unix.NFT_REG32_00, SetName: s.name, Invert: invert})
}

// The other parts of rules.
var (
	drop       = []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	masquerade = []expr.Any{&expr.Masq{}}

	isIPv4 = []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Register: unix.NFT_REG_1, Data: []byte{unix.NFPROTO_IPV4}},
	}
	isIPv6 = []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Register: unix.NFT_REG_1, Data: []byte{unix.NFPROTO_IPV6}},
	}
	// ip daddr != 224.0.0.0/4
	notMulticast4 = []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: []byte{0xf0, 0, 0, 0}, Xor: []byte{0, 0, 0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: []byte{0xe0, 0, 0, 0}},
	}
	// ip6 daddr != ff00::/8
	notMulticast6 = []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: []byte{0xff}},
	}
)

package ruleset

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Part is some of what a rule does. It is made when the rule is written, which
// is seldom: mostly rules are only counted.
type Part func() []Expr

// Rules joins the parts of one rule.
func Rules(parts ...Part) Part {
	return func() []Expr {
		var all []Expr
		for _, p := range parts {
			all = append(all, p()...)
		}
		return all
	}
}

// Just is a part of these expressions alone.
func Just(exprs ...Expr) Part { return func() []Expr { return exprs } }

// In matches packets whose fields are an element of s. The fields are those
// of s, unless others are given.
func In(s *Set, fields ...Field) Part { return lookup(s, false, fields) }

// NotIn matches packets whose fields are no element of s.
func NotIn(s *Set) Part { return lookup(s, true, nil) }

func lookup(s *Set, invert bool, fields Tuple) Part {
	if fields == nil {
		fields = s.Key
	}
	return func() []Expr { return append(fields.load(), lookupExpr(s, invert)) }
}

// Bits of ct state (NFT_CT_STATE_BIT) and ct status (linux/netfilter/nf_conntrack_common.h).
const (
	ctEstablished = 1 << 1
	ctRelated     = 1 << 2
	ctNew         = 1 << 3
	ctConfirmed   = 1 << 3
	ctDNAT        = 1 << 5
)

// metaIIFKind is NFT_META_IIFKIND, which golang.org/x/sys/unix lacks.
const metaIIFKind = 26

func ctHas(key, bits uint32) Part {
	return func() []Expr { return []Expr{CT(key), Mask(Host32(bits)), Compare(unix.NFT_CMP_NEQ, Host32(0))} }
}

// IsFamily matches packets of unix.NFPROTO_IPV4 or unix.NFPROTO_IPV6.
func IsFamily(family uint8) Part {
	return func() []Expr {
		return []Expr{Meta(unix.NFT_META_NFPROTO, RegKey), Compare(unix.NFT_CMP_EQ, []byte{family})}
	}
}

// IsProtocol matches packets of unix.IPPROTO_*.
func IsProtocol(p byte) Part {
	return func() []Expr { return []Expr{Meta(unix.NFT_META_L4PROTO, RegKey), Compare(unix.NFT_CMP_EQ, []byte{p})} }
}

// Jump goes to a chain, and comes back.
func Jump(chain string) Part { return func() []Expr { return []Expr{Verdict(unix.NFT_JUMP, chain)} } }

// prefix matches a field against a prefix; size is that of the prefix in bytes.
func prefix(f Field, op uint32, want, mask []byte) []Expr {
	all := []Expr{f.load(RegKey)}
	if mask != nil {
		all = append(all, Mask(mask))
	}
	return append(all, Compare(op, want))
}

// firstByte returns the first byte of the field.
func (f Field) firstByte() Field {
	f.Size = 1
	return f
}

// Drop ends the way of a packet.
func Drop() []Expr { return []Expr{Verdict(VerdictDrop, "")} }

// Accept ends the chain of a hook; those of others follow.
func Accept() []Expr { return []Expr{Verdict(VerdictAccept, "")} }

// Return goes back to where the chain was jumped to.
func Return() []Expr { return []Expr{Verdict(unix.NFT_RETURN, "")} }

func masquerade() []Expr { return []Expr{masqExpr()} }
func isIPv4() []Expr     { return IsFamily(unix.NFPROTO_IPV4)() }
func isIPv6() []Expr     { return IsFamily(unix.NFPROTO_IPV6)() }

// IsLocal matches what is for an address of the host: fib daddr type local.
func IsLocal() []Expr {
	return []Expr{addrType(), Compare(unix.NFT_CMP_EQ, Host32(unix.RTN_LOCAL))}
}

// fib saddr type local
func fromLocal() []Expr {
	return []Expr{sourceType(), Compare(unix.NFT_CMP_EQ, Host32(unix.RTN_LOCAL))}
}

// fib saddr type anycast. While a link forwards IPv6 the first address of its
// subnet is anycast, also where it is the host's own on another link.
func fromAnycast() []Expr {
	return []Expr{sourceType(), Compare(unix.NFT_CMP_EQ, Host32(unix.RTN_ANYCAST))}
}

// IsVXLAN matches what came by a device of VXLAN: meta iifkind "vxlan".
func IsVXLAN() []Expr {
	return []Expr{Meta(metaIIFKind, RegKey), Compare(unix.NFT_CMP_EQ, IIFName.bytes("vxlan"))}
}

// IsEthernet is meta iiftype ether: nft does not say "ether saddr" without it. VXLAN always is.
func IsEthernet() []Expr {
	return []Expr{Meta(unix.NFT_META_IIFTYPE, RegKey), Compare(unix.NFT_CMP_EQ, binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER))}
}

// ToNeighbour matches frames to another station than the bridge, and not to several.
func ToNeighbour() []Expr {
	return []Expr{Meta(unix.NFT_META_PKTTYPE, RegKey), Compare(unix.NFT_CMP_EQ, []byte{unix.PACKET_OTHERHOST})}
}

// ToHost has the host take a frame that was for another station.
func ToHost() []Expr {
	return []Expr{Constant(RegKey, []byte{unix.PACKET_HOST}), SetMeta(unix.NFT_META_PKTTYPE, RegKey)}
}

// meta mark set mark | 0x2000, meta mark & 0x2000 != 0
func addMark() []Expr {
	return []Expr{Meta(unix.NFT_META_MARK, RegKey), setBits(masqMark), setMark()}
}
func hasMark() []Expr {
	return []Expr{Meta(unix.NFT_META_MARK, RegKey), Mask(Host32(masqMark)), Compare(unix.NFT_CMP_NEQ, Host32(0))}
}

// translate is NAT to what the map s gave.
func translate(typ uint32, s *Set) Part {
	family := uint8(unix.NFPROTO_IPV4)
	if s.Data[0].Datatype == typeIPv6 {
		family = unix.NFPROTO_IPV6
	}
	return func() []Expr { return []Expr{nat(typ, family, s)} }
}

func notLo() []Expr {
	return []Expr{Meta(unix.NFT_META_IIFNAME, RegKey), Compare(unix.NFT_CMP_NEQ, IIFName.bytes("lo"))}
}

// SourceLocalhost4 matches ip saddr 127.0.0.0/8.
func SourceLocalhost4() []Expr {
	return prefix(SAddr4.firstByte(), unix.NFT_CMP_EQ, []byte{127}, nil)
}

// ip saddr 0.0.0.0/8
func sourceNone4() []Expr {
	return prefix(SAddr4.firstByte(), unix.NFT_CMP_EQ, []byte{0}, nil)
}

// ip daddr 127.0.0.0/8
func destLocalhost4() []Expr {
	return prefix(DAddr4.firstByte(), unix.NFT_CMP_EQ, []byte{127}, nil)
}

// ip daddr != 224.0.0.0/4, ip6 daddr != ff00::/8
func notMulticast(f *FamilySets) Part {
	return func() []Expr {
		if f.Family == unix.NFPROTO_IPV6 {
			return prefix(DAddr6.firstByte(), unix.NFT_CMP_NEQ, []byte{0xff}, nil)
		}
		return prefix(DAddr4, unix.NFT_CMP_NEQ, []byte{224, 0, 0, 0}, []byte{0xf0, 0, 0, 0})
	}
}

// ip6 saddr fe80::/10
func sourceLinkLocal6() []Expr {
	return prefix(SAddr6, unix.NFT_CMP_EQ, first16(0xfe, 0x80), first16(0xff, 0xc0))
}

// ip6 daddr ::1
func destLocalhost6() []Expr {
	return prefix(DAddr6, unix.NFT_CMP_EQ, append(make([]byte, 15), 1), nil)
}

func first16(b ...byte) []byte { return append(b, make([]byte, 16-len(b))...) }

// bytes returns a name as the field has it, filled up with NULs.
func (f Field) bytes(s string) []byte {
	b := make([]byte, f.Size)
	copy(b, s)
	return b
}

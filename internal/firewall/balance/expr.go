package balance

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

func load(fields ruleset.Tuple) (all []ruleset.Expr, next uint32) {
	reg := uint32(ruleset.RegKey)
	for _, f := range fields {
		all = append(all, f.Load(reg))
		reg += f.Padded() / 4
	}
	return all, reg
}

// in matches packets whose fields, those of s unless others are given, are in s.
func in(s *ruleset.Set, fields ...ruleset.Field) ruleset.Part {
	if fields == nil {
		fields = s.Key
	}
	return func() []ruleset.Expr {
		all, _ := load(fields)
		return append(all, ruleset.Lookup(s))
	}
}

// toPort looks up in s by the packet's destination and a number; nil: without one.
func (f *Family) toPort(s *ruleset.Set, number func(reg uint32) []ruleset.Expr) ruleset.Part {
	return func() []ruleset.Expr {
		all, reg := load(ruleset.Tuple{f.daddr, ruleset.L4Proto, ruleset.DPort})
		if number != nil {
			all = append(all, number(reg)...)
		}
		return append(all, ruleset.Lookup(s))
	}
}

// toAnyPort is toPort with the unspecified address in place of the packet's. A constant in its
// place nft(8) could not list.
func (f *Family) toAnyPort(s *ruleset.Set, number func(reg uint32) []ruleset.Expr) ruleset.Part {
	return func() []ruleset.Expr {
		all := f.toPort(s, number)()
		return append([]ruleset.Expr{all[0], ruleset.Mask(make([]byte, f.daddr.Size))}, all[1:]...) // ip daddr & 0.0.0.0
	}
}

// random draws a number below n.
func random(n uint32) func(uint32) []ruleset.Expr {
	return func(reg uint32) []ruleset.Expr {
		return []ruleset.Expr{{Name: "numgen", Put: func(a *nfnl.Attrs) {
			a.Uint32(unix.NFTA_NG_DREG, reg)
			a.Uint32(unix.NFTA_NG_MODULUS, n)
			a.Uint32(unix.NFTA_NG_TYPE, unix.NFT_NG_RANDOM)
			a.Uint32(unix.NFTA_NG_OFFSET, 0)
		}}}
	}
}

// hashed is a number below n that depends on a field.
func hashed(f ruleset.Field, n uint32) func(uint32) []ruleset.Expr {
	return func(reg uint32) []ruleset.Expr {
		return []ruleset.Expr{f.Load(reg), {Name: "hash", Put: func(a *nfnl.Attrs) {
			a.Uint32(unix.NFTA_HASH_SREG, reg)
			a.Uint32(unix.NFTA_HASH_DREG, reg)
			a.Uint32(unix.NFTA_HASH_LEN, f.Size)
			a.Uint32(unix.NFTA_HASH_MODULUS, n)
			a.Uint32(unix.NFTA_HASH_SEED, clientSeed)
			a.Uint32(unix.NFTA_HASH_OFFSET, 0)
			a.Uint32(unix.NFTA_HASH_TYPE, unix.NFT_HASH_JENKINS)
		}}}
	}
}

func translate(family uint8, s *ruleset.Set) ruleset.Part {
	return ruleset.Just(ruleset.Expr{Name: "nat", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		a.Uint32(unix.NFTA_NAT_FAMILY, uint32(family))
		a.Uint32(unix.NFTA_NAT_REG_ADDR_MIN, ruleset.RegData)
		a.Uint32(unix.NFTA_NAT_REG_PROTO_MIN, ruleset.RegData+s.Data[0].Padded()/4)
	}})
}

// stay has the destination as it is, for good: no rule of a later chain is asked.
func (f *Family) stay() []ruleset.Expr {
	return []ruleset.Expr{f.daddr.Load(ruleset.RegKey), {Name: "nat", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		a.Uint32(unix.NFTA_NAT_FAMILY, uint32(f.family))
		a.Uint32(unix.NFTA_NAT_REG_ADDR_MIN, ruleset.RegKey)
	}}}
}

func masquerade() []ruleset.Expr {
	return []ruleset.Expr{{Name: "masq", Put: func(*nfnl.Attrs) {}}}
}

// isEther is isFamily for frames.
func isEther(family uint8) ruleset.Part {
	kind := uint16(unix.ETH_P_IP)
	if family == unix.NFPROTO_IPV6 {
		kind = unix.ETH_P_IPV6
	}
	return ruleset.Just(ruleset.Meta(unix.NFT_META_PROTOCOL, ruleset.RegKey), ruleset.Compare(unix.NFT_CMP_EQ, binary.BigEndian.AppendUint16(nil, kind)))
}

func isNot(p byte) ruleset.Part {
	return ruleset.Just(ruleset.Meta(unix.NFT_META_L4PROTO, ruleset.RegKey), ruleset.Compare(unix.NFT_CMP_NEQ, []byte{p}))
}

// IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h, and NF_CT_STATE_BIT(IP_CT_NEW).
const (
	ctDNAT = 1 << 5
	ctNew  = 1 << 3
)

// isTranslated says that the destination of the packet's connection was translated.
func isTranslated() []ruleset.Expr {
	return []ruleset.Expr{ruleset.CT(unix.NFT_CT_STATUS), ruleset.Mask(ruleset.Host32(ctDNAT)), ruleset.Compare(unix.NFT_CMP_NEQ, ruleset.Host32(0))}
}

// isNew says that the packet is of a connection that had no answer.
func isNew() []ruleset.Expr {
	return []ruleset.Expr{ruleset.CT(unix.NFT_CT_STATE), ruleset.Mask(ruleset.Host32(ctNew)), ruleset.Compare(unix.NFT_CMP_NEQ, ruleset.Host32(0))}
}

// isOriginal says that the packet is of the end that began its connection.
func isOriginal() []ruleset.Expr {
	return []ruleset.Expr{ruleset.CT(unix.NFT_CT_DIRECTION), ruleset.Compare(unix.NFT_CMP_EQ, []byte{0})} // IP_CT_DIR_ORIGINAL
}

func reject(kind uint32, code uint8) []ruleset.Expr {
	return []ruleset.Expr{{Name: "reject", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_REJECT_TYPE, kind)
		a.Uint8(unix.NFTA_REJECT_ICMP_CODE, code)
	}}}
}

func rejectReset() []ruleset.Expr { return reject(unix.NFT_REJECT_TCP_RST, 0) }
func rejectPort() []ruleset.Expr {
	return reject(unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_PORT_UNREACH)
}

// Keys of ct that golang.org/x/sys lacks (linux/netfilter/nf_tables.h, Linux 4.17).
const (
	ctDestination4 = 20 // NFT_CT_DST_IP
	ctDestination6 = 22 // NFT_CT_DST_IP6
)

// original loads what the first packet of the connection had: NFT_CT_* of its original direction.
func original(key, reg uint32) ruleset.Expr {
	const direction = 0 // IP_CT_DIR_ORIGINAL
	return ruleset.Expr{Name: "ct", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_CT_KEY, key)
		a.Uint32(unix.NFTA_CT_DREG, reg)
		a.Uint8(unix.NFTA_CT_DIRECTION, direction)
	}}
}

func (f *Family) originalDestination() uint32 {
	if f.family == unix.NFPROTO_IPV6 {
		return ctDestination6
	}
	return ctDestination4
}

// ledFrom looks up in Led which port was asked, of that address or, by the unspecified one in its
// place, of any of the host, and which backend it is led to.
func (f *Family) ledFrom(ofAny bool) ruleset.Part {
	return func() []ruleset.Expr {
		reg := uint32(ruleset.RegKey)
		all := []ruleset.Expr{original(f.originalDestination(), reg)}
		if ofAny {
			all = append(all, ruleset.Mask(make([]byte, f.daddr.Size)))
		}
		reg += f.daddr.Padded() / 4
		all = append(all, ruleset.L4Proto.Load(reg))
		reg += ruleset.L4Proto.Padded() / 4
		all = append(all, original(unix.NFT_CT_PROTO_DST, reg))
		reg += ruleset.DPort.Padded() / 4
		return append(all, f.daddr.Load(reg), ruleset.Lookup(&f.Led))
	}
}

// notToService matches connections that were not begun to the address of a service.
func (f *Family) notToService() []ruleset.Expr {
	return []ruleset.Expr{original(f.originalDestination(), ruleset.RegKey), {Name: "lookup", Put: func(a *nfnl.Attrs) {
		a.String(unix.NFTA_LOOKUP_SET, f.Host.Name)
		a.Uint32(unix.NFTA_LOOKUP_SREG, ruleset.RegKey)
		a.Uint32(unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
	}}}
}

package balance

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Registers of four bytes: keys begin at the first, what a map gives is behind the longest.
const (
	regKey  = unix.NFT_REG32_00
	regData = unix.NFT_REG32_00 + 11
)

func just(exprs ...ruleset.Expr) ruleset.Part { return func() []ruleset.Expr { return exprs } }

func load(fields ruleset.Tuple) (all []ruleset.Expr, next uint32) {
	reg := uint32(regKey)
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
		return append(all, lookup(s))
	}
}

func lookup(s *ruleset.Set) ruleset.Expr {
	return ruleset.Expr{Name: "lookup", Put: func(a *nfnl.Attrs) {
		a.String(unix.NFTA_LOOKUP_SET, s.Name)
		a.Uint32(unix.NFTA_LOOKUP_SREG, regKey)
		if s.Data != nil {
			a.Uint32(unix.NFTA_LOOKUP_DREG, regData)
		}
	}}
}

// toPort looks up in s by the packet's destination and a number; nil: without one.
func (f *Family) toPort(s *ruleset.Set, number func(reg uint32) []ruleset.Expr) ruleset.Part {
	return func() []ruleset.Expr {
		all, reg := load(ruleset.Tuple{f.daddr, ruleset.L4Proto, ruleset.DPort})
		if number != nil {
			all = append(all, number(reg)...)
		}
		return append(all, lookup(s))
	}
}

// toAnyPort is toPort with the unspecified address in place of the packet's. A constant in its
// place nft(8) could not list.
func (f *Family) toAnyPort(s *ruleset.Set, number func(reg uint32) []ruleset.Expr) ruleset.Part {
	return func() []ruleset.Expr {
		all := f.toPort(s, number)()
		return append([]ruleset.Expr{all[0], mask(make([]byte, f.daddr.Size))}, all[1:]...) // ip daddr & 0.0.0.0
	}
}

// mask leaves bits of the first register, or of several, as they are where b has them.
func mask(b []byte) ruleset.Expr {
	return ruleset.Expr{Name: "bitwise", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_BITWISE_SREG, regKey)
		a.Uint32(unix.NFTA_BITWISE_DREG, regKey)
		a.Uint32(unix.NFTA_BITWISE_LEN, uint32(len(b)))
		a.Nest(unix.NFTA_BITWISE_MASK, value(b))
		a.Nest(unix.NFTA_BITWISE_XOR, value(make([]byte, len(b))))
	}}
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
	return just(ruleset.Expr{Name: "nat", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		a.Uint32(unix.NFTA_NAT_FAMILY, uint32(family))
		a.Uint32(unix.NFTA_NAT_REG_ADDR_MIN, regData)
		a.Uint32(unix.NFTA_NAT_REG_PROTO_MIN, regData+s.Data[0].Padded()/4)
	}})
}

// stay has the destination as it is, for good: no rule of a later chain is asked.
func (f *Family) stay() []ruleset.Expr {
	return []ruleset.Expr{f.daddr.Load(regKey), {Name: "nat", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		a.Uint32(unix.NFTA_NAT_FAMILY, uint32(f.family))
		a.Uint32(unix.NFTA_NAT_REG_ADDR_MIN, regKey)
	}}}
}

func masquerade() []ruleset.Expr {
	return []ruleset.Expr{{Name: "masq", Put: func(*nfnl.Attrs) {}}}
}

func meta(key uint32) ruleset.Expr {
	return ruleset.Expr{Name: "meta", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_META_KEY, key)
		a.Uint32(unix.NFTA_META_DREG, regKey)
	}}
}

func compare(op uint32, want ...byte) ruleset.Expr {
	return ruleset.Expr{Name: "cmp", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_CMP_SREG, regKey)
		a.Uint32(unix.NFTA_CMP_OP, op)
		a.Nest(unix.NFTA_CMP_DATA, value(want))
	}}
}

func value(b []byte) func(*nfnl.Attrs) {
	return func(a *nfnl.Attrs) { a.Bytes(unix.NFTA_DATA_VALUE, b) }
}

func isFamily(family uint8) ruleset.Part {
	return just(meta(unix.NFT_META_NFPROTO), compare(unix.NFT_CMP_EQ, family))
}

// isEther is isFamily for frames.
func isEther(family uint8) ruleset.Part {
	kind := uint16(unix.ETH_P_IP)
	if family == unix.NFPROTO_IPV6 {
		kind = unix.ETH_P_IPV6
	}
	return just(meta(unix.NFT_META_PROTOCOL), compare(unix.NFT_CMP_EQ, binary.BigEndian.AppendUint16(nil, kind)...))
}

func isProtocol(p byte) ruleset.Part {
	return just(meta(unix.NFT_META_L4PROTO), compare(unix.NFT_CMP_EQ, p))
}

func isNot(p byte) ruleset.Part {
	return just(meta(unix.NFT_META_L4PROTO), compare(unix.NFT_CMP_NEQ, p))
}

func host32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h, and NF_CT_STATE_BIT(IP_CT_NEW).
const (
	ctDNAT = 1 << 5
	ctNew  = 1 << 3
)

// isTranslated says that the destination of the packet's connection was translated.
func isTranslated() []ruleset.Expr {
	return []ruleset.Expr{ct(unix.NFT_CT_STATUS), mask(host32(ctDNAT)), compare(unix.NFT_CMP_NEQ, host32(0)...)}
}

// isNew says that the packet is of a connection that had no answer.
func isNew() []ruleset.Expr {
	return []ruleset.Expr{ct(unix.NFT_CT_STATE), mask(host32(ctNew)), compare(unix.NFT_CMP_NEQ, host32(0)...)}
}

// isOriginal says that the packet is of the end that began its connection.
func isOriginal() []ruleset.Expr {
	return []ruleset.Expr{ct(unix.NFT_CT_DIRECTION), compare(unix.NFT_CMP_EQ, 0)} // IP_CT_DIR_ORIGINAL
}

func ct(key uint32) ruleset.Expr {
	return ruleset.Expr{Name: "ct", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_CT_KEY, key)
		a.Uint32(unix.NFTA_CT_DREG, regKey)
	}}
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

// toNeighbour matches frames to another station than the bridge, and not to several.
func toNeighbour() []ruleset.Expr {
	return []ruleset.Expr{meta(unix.NFT_META_PKTTYPE), compare(unix.NFT_CMP_EQ, unix.PACKET_OTHERHOST)}
}

// setEtherDestination sends the frame to what the map gave.
func setEtherDestination() []ruleset.Expr {
	return []ruleset.Expr{{Name: "payload", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_PAYLOAD_SREG, regData)
		a.Uint32(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_LL_HEADER)
		a.Uint32(unix.NFTA_PAYLOAD_OFFSET, 0)
		a.Uint32(unix.NFTA_PAYLOAD_LEN, 6)
		a.Uint32(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_NONE)
		a.Uint32(unix.NFTA_PAYLOAD_CSUM_OFFSET, 0)
	}}}
}

// setToHost has the host take the frame, which had another address until now.
func setToHost() []ruleset.Expr {
	return []ruleset.Expr{{Name: "immediate", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_IMMEDIATE_DREG, regKey)
		a.Nest(unix.NFTA_IMMEDIATE_DATA, value([]byte{unix.PACKET_HOST}))
	}}, {Name: "meta", Put: func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_META_KEY, unix.NFT_META_PKTTYPE)
		a.Uint32(unix.NFTA_META_SREG, regKey)
	}}}
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
		reg := uint32(regKey)
		all := []ruleset.Expr{original(f.originalDestination(), reg)}
		if ofAny {
			all = append(all, mask(make([]byte, f.daddr.Size)))
		}
		reg += f.daddr.Padded() / 4
		all = append(all, ruleset.L4Proto.Load(reg))
		reg += ruleset.L4Proto.Padded() / 4
		all = append(all, original(unix.NFT_CT_PROTO_DST, reg))
		reg += ruleset.DPort.Padded() / 4
		return append(all, f.daddr.Load(reg), lookup(&f.Led))
	}
}

// notToService matches connections that were not begun to the address of a service.
func (f *Family) notToService() []ruleset.Expr {
	return []ruleset.Expr{original(f.originalDestination(), regKey), {Name: "lookup", Put: func(a *nfnl.Attrs) {
		a.String(unix.NFTA_LOOKUP_SET, f.Host.Name)
		a.Uint32(unix.NFTA_LOOKUP_SREG, regKey)
		a.Uint32(unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
	}}}
}

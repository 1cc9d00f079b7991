package admit

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

// Bits of ct state.
const (
	stateInvalid   = 1 << 0
	stateRelated   = 1 << 2
	stateNew       = 1 << 3
	stateUntracked = 1 << 6
)

func expr(name string, put func(*nfnl.Attrs)) ruleset.Expr { return ruleset.Expr{Name: name, Put: put} }

func just(exprs ...ruleset.Expr) ruleset.Part { return func() []ruleset.Expr { return exprs } }

func meta(key, reg uint32) ruleset.Expr {
	return expr("meta", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_META_KEY, key)
		a.Uint32(unix.NFTA_META_DREG, reg)
	})
}

func ct(key, reg uint32) ruleset.Expr {
	return expr("ct", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_CT_KEY, key)
		a.Uint32(unix.NFTA_CT_DREG, reg)
	})
}

func compare(op uint32, want ...byte) ruleset.Expr {
	return expr("cmp", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_CMP_SREG, regKey)
		a.Uint32(unix.NFTA_CMP_OP, op)
		a.Nest(unix.NFTA_CMP_DATA, func(a *nfnl.Attrs) { a.Bytes(unix.NFTA_DATA_VALUE, want) })
	})
}

// mask leaves the bits of a register that b has.
func mask(reg uint32, b []byte) ruleset.Expr {
	value := func(b []byte) func(*nfnl.Attrs) {
		return func(a *nfnl.Attrs) { a.Bytes(unix.NFTA_DATA_VALUE, b) }
	}
	return expr("bitwise", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_BITWISE_SREG, reg)
		a.Uint32(unix.NFTA_BITWISE_DREG, reg)
		a.Uint32(unix.NFTA_BITWISE_LEN, uint32(len(b)))
		a.Nest(unix.NFTA_BITWISE_MASK, value(b))
		a.Nest(unix.NFTA_BITWISE_XOR, value(make([]byte, len(b))))
	})
}

// look looks for a key in a set; what a map gives goes to regData.
func look(s *ruleset.Set) ruleset.Expr {
	return expr("lookup", func(a *nfnl.Attrs) {
		a.String(unix.NFTA_LOOKUP_SET, s.Name)
		a.Uint32(unix.NFTA_LOOKUP_SREG, regKey)
		if s.Data != nil {
			a.Uint32(unix.NFTA_LOOKUP_DREG, regData)
		}
	})
}

func host32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func isFamily(family uint8) ruleset.Part {
	return just(meta(unix.NFT_META_NFPROTO, regKey), compare(unix.NFT_CMP_EQ, family))
}

func isProtocol(p byte) ruleset.Part {
	return just(meta(unix.NFT_META_L4PROTO, regKey), compare(unix.NFT_CMP_EQ, p))
}

// isState matches packets whose connection is in one of these states.
func isState(states uint32) ruleset.Part {
	return just(ct(unix.NFT_CT_STATE, regKey), mask(regKey, host32(states)), compare(unix.NFT_CMP_NEQ, host32(0)...))
}

// isDirection matches packets of one direction of a connection.
func isDirection(direction byte) ruleset.Part {
	return just(ct(unix.NFT_CT_DIRECTION, regKey), compare(unix.NFT_CMP_EQ, direction))
}

// noSYN matches packets of TCP that begin no connection: tcp flags & syn == 0.
func noSYN() []ruleset.Expr {
	const flags, syn = 13, 2
	return []ruleset.Expr{transport(flags), mask(regKey, []byte{syn}), compare(unix.NFT_CMP_EQ, 0)}
}

// transport and network load a byte of a header.
func transport(offset uint32) ruleset.Expr { return header(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset) }
func network(offset uint32) ruleset.Expr   { return header(unix.NFT_PAYLOAD_NETWORK_HEADER, offset) }

func header(base, offset uint32) ruleset.Expr {
	return expr("payload", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_PAYLOAD_DREG, regKey)
		a.Uint32(unix.NFTA_PAYLOAD_BASE, base)
		a.Uint32(unix.NFTA_PAYLOAD_OFFSET, offset)
		a.Uint32(unix.NFTA_PAYLOAD_LEN, 1)
	})
}

// isNeighbourDiscovery matches ICMPv6 of types 133 to 137.
func isNeighbourDiscovery() []ruleset.Expr {
	const solicitRouter, redirect = 133, 137
	return append(isProtocol(unix.IPPROTO_ICMPV6)(), transport(0), compare(unix.NFT_CMP_GTE, solicitRouter), compare(unix.NFT_CMP_LTE, redirect))
}

// isEther matches frames of a protocol, or all others: by unix.NFT_CMP_EQ or unix.NFT_CMP_NEQ.
func isEther(op uint32, protocol uint16) ruleset.Part {
	return just(meta(unix.NFT_META_PROTOCOL, regKey), compare(op, binary.BigEndian.AppendUint16(nil, protocol)...))
}

// toNeighbour matches frames to another station than the bridge, and not to several.
func toNeighbour() []ruleset.Expr {
	return []ruleset.Expr{meta(unix.NFT_META_PKTTYPE, regKey), compare(unix.NFT_CMP_EQ, unix.PACKET_OTHERHOST)}
}

// toHost has the host take the frame, by the MAC address that a map gave to a register.
func toHost(reg uint32) []ruleset.Expr {
	return []ruleset.Expr{expr("payload", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_PAYLOAD_SREG, reg)
		a.Uint32(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_LL_HEADER)
		a.Uint32(unix.NFTA_PAYLOAD_OFFSET, 0)
		a.Uint32(unix.NFTA_PAYLOAD_LEN, 6)
		a.Uint32(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_NONE)
		a.Uint32(unix.NFTA_PAYLOAD_CSUM_OFFSET, 0)
	}), constant(regKey, []byte{unix.PACKET_HOST}), setMeta(unix.NFT_META_PKTTYPE, regKey)}
}

func constant(reg uint32, b []byte) ruleset.Expr {
	return expr("immediate", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_IMMEDIATE_DREG, reg)
		a.Nest(unix.NFTA_IMMEDIATE_DATA, func(a *nfnl.Attrs) { a.Bytes(unix.NFTA_DATA_VALUE, b) })
	})
}

func setMeta(key, reg uint32) ruleset.Expr {
	return expr("meta", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_META_KEY, key)
		a.Uint32(unix.NFTA_META_SREG, reg)
	})
}

func setPriority() ruleset.Expr { return setMeta(unix.NFT_META_PRIORITY, regData) }

// goTo goes to a chain; what comes to its end is accepted.
func goTo(chain string) ruleset.Part {
	return just(expr("immediate", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		a.Nest(unix.NFTA_IMMEDIATE_DATA, func(a *nfnl.Attrs) {
			a.Nest(unix.NFTA_DATA_VERDICT, func(a *nfnl.Attrs) {
				goTo := int32(unix.NFT_GOTO)
				a.Uint32(unix.NFTA_VERDICT_CODE, uint32(goTo))
				a.String(unix.NFTA_VERDICT_CHAIN, chain)
			})
		})
	}))
}

// isPriority compares the priority of the packet.
func isPriority(op, want uint32) ruleset.Part {
	return just(meta(unix.NFT_META_PRIORITY, regKey), compare(op, host32(want)...))
}

func rejectHost() []ruleset.Expr {
	const unreachable = 2 // NFT_REJECT_ICMPX_HOST_UNREACH
	return []ruleset.Expr{expr("reject", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMPX_UNREACH)
		a.Uint8(unix.NFTA_REJECT_ICMP_CODE, unreachable)
	})}
}

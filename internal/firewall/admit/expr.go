package admit

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Bits of ct state.
const (
	stateInvalid   = 1 << 0
	stateRelated   = 1 << 2
	stateNew       = 1 << 3
	stateUntracked = 1 << 6
)

func expr(name string, put func(*nfnl.Attrs)) ruleset.Expr { return ruleset.Expr{Name: name, Put: put} }

// isState matches packets whose connection is in one of these states.
func isState(states uint32) ruleset.Part {
	return ruleset.Just(ruleset.CT(unix.NFT_CT_STATE), ruleset.Mask(ruleset.Host32(states)), ruleset.Compare(unix.NFT_CMP_NEQ, ruleset.Host32(0)))
}

// isReply matches packets of the end of a connection that did not begin it.
func isReply() []ruleset.Expr {
	const reply = 1 // IP_CT_DIR_REPLY
	return []ruleset.Expr{ruleset.CT(unix.NFT_CT_DIRECTION), ruleset.Compare(unix.NFT_CMP_EQ, []byte{reply})}
}

// noSYN matches packets of TCP that begin no connection: tcp flags & syn == 0.
func noSYN() []ruleset.Expr {
	const flags, syn = 13, 2
	return []ruleset.Expr{transport(flags), ruleset.Mask([]byte{syn}), ruleset.Compare(unix.NFT_CMP_EQ, []byte{0})}
}

// transport and network load a byte of a header.
func transport(offset uint32) ruleset.Expr {
	return ruleset.Payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, 1, ruleset.RegKey)
}
func network(offset uint32) ruleset.Expr {
	return ruleset.Payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, 1, ruleset.RegKey)
}

// isNeighbourDiscovery matches ICMPv6 of types 133 to 137.
func isNeighbourDiscovery() []ruleset.Expr {
	const solicitRouter, redirect = 133, 137
	return append(ruleset.IsProtocol(unix.IPPROTO_ICMPV6)(), transport(0), ruleset.Compare(unix.NFT_CMP_GTE, []byte{solicitRouter}), ruleset.Compare(unix.NFT_CMP_LTE, []byte{redirect}))
}

// isEther matches frames of a protocol, or all others: by unix.NFT_CMP_EQ or unix.NFT_CMP_NEQ.
func isEther(op uint32, protocol uint16) ruleset.Part {
	return ruleset.Just(ruleset.Meta(unix.NFT_META_PROTOCOL, ruleset.RegKey), ruleset.Compare(op, binary.BigEndian.AppendUint16(nil, protocol)))
}

// isTwice matches frames with a tag of a VLAN, and behind it one of none: protocol is what the first tag,
// which the kernel has taken off, is followed by. The receiver of such a frame takes all tags of no VLAN
// off, so that a packet is behind them that no rule for packets has seen. The protocol is asked last,
// as nft(8) 1.0.6 ends when it lists it first.
func isTwice(protocol uint16) ruleset.Part {
	const id = 0x0fff
	tag := []ruleset.Expr{ruleset.Payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 0, 2, ruleset.RegKey), ruleset.Mask(binary.BigEndian.AppendUint16(nil, id)), ruleset.Compare(unix.NFT_CMP_EQ, []byte{0, 0})}
	return ruleset.Just(append(tag, isEther(unix.NFT_CMP_EQ, protocol)()...)...)
}

// isShown matches frames that br_netfilter has shown to the rules of prerouting, and will show to those
// of forward: only these have a route on a bridge, made up by it. No frame that a pod sends has.
func isShown() []ruleset.Expr {
	return []ruleset.Expr{ruleset.Meta(unix.NFT_META_RTCLASSID, ruleset.RegKey), ruleset.Compare(unix.NFT_CMP_EQ, ruleset.Host32(0))}
}

// notToHost matches frames that are not for the bridge itself: for one station or, whatever the address
// of the packet, for all.
func notToHost() []ruleset.Expr {
	return []ruleset.Expr{ruleset.Meta(unix.NFT_META_PKTTYPE, ruleset.RegKey), ruleset.Compare(unix.NFT_CMP_NEQ, []byte{unix.PACKET_HOST})}
}

func setPriority() ruleset.Expr { return ruleset.SetMeta(unix.NFT_META_PRIORITY, ruleset.RegData) }

// isPriority compares the priority of the packet.
func isPriority(op, want uint32) ruleset.Part {
	return ruleset.Just(ruleset.Meta(unix.NFT_META_PRIORITY, ruleset.RegKey), ruleset.Compare(op, ruleset.Host32(want)))
}

func rejectHost() []ruleset.Expr {
	const unreachable = 2 // NFT_REJECT_ICMPX_HOST_UNREACH
	return []ruleset.Expr{expr("reject", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMPX_UNREACH)
		a.Uint8(unix.NFTA_REJECT_ICMP_CODE, unreachable)
	})}
}

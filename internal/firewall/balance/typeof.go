package balance

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
)

// nft(8) has no name for the type of a number that is drawn. Without more it lists such a key as a
// mark, and refuses its own list: the rule looks up another type. It says "typeof ip daddr . … .
// numgen random mod 64" if the set has user data of these expressions, and reads that back.

// Numbers of nft's user data: NFTNL_UDATA_SET_* and, inside of them, what an expression is, and
// what is known of it.
const (
	udataKeyTypeof  = 3
	udataDataTypeof = 4
	udataExpr       = 0
	udataOf         = 1

	exprPayload = 7
	exprMeta    = 9
	exprConcat  = 13
	exprNumgen  = 23
)

// Numbers of nft's descriptions of protocols, and of their fields.
const (
	protoTransport, transportDestination = 11, 2
	protoIPv4, ipv4Destination           = 12, 12
	protoIPv6, ipv6Destination           = 13, 9
)

// typeOf is the user data of a map that is looked up with a number below n.
func typeOf(s *ruleset.Set, n uint32) []byte {
	return slices.Concat(udata(udataKeyTypeof, concatOf(s.Key, n)), udata(udataDataTypeof, concatOf(s.Data, n)))
}

func concatOf(fields ruleset.Tuple, n uint32) []byte {
	var parts []byte
	for i, f := range fields {
		parts = append(parts, udata(byte(i), exprOf(f, n))...)
	}
	return expression(exprConcat, parts)
}

func exprOf(f ruleset.Field, n uint32) []byte {
	switch f {
	case ruleset.Bucket:
		return expression(exprNumgen, numbers(unix.NFT_NG_RANDOM, n, 0))
	case ruleset.L4Proto:
		return expression(exprMeta, numbers(unix.NFT_META_L4PROTO))
	case ruleset.DPort:
		return expression(exprPayload, numbers(protoTransport, transportDestination))
	case ruleset.DAddr6:
		return expression(exprPayload, numbers(protoIPv6, ipv6Destination))
	}
	return expression(exprPayload, numbers(protoIPv4, ipv4Destination))
}

func expression(kind uint32, of []byte) []byte {
	return slices.Concat(udata(udataExpr, host32(kind)), udata(udataOf, of))
}

// numbers are what is known of an expression, in nft's order.
func numbers(all ...uint32) (b []byte) {
	for i, v := range all {
		b = append(b, udata(byte(i), host32(v))...)
	}
	return b
}

// udata is one piece of user data: its kind, its length, and its content.
func udata(kind byte, content []byte) []byte {
	return append([]byte{kind, byte(len(content))}, content...)
}

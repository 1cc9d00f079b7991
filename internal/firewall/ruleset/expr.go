package ruleset

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Expr is an expression of a rule: its name and what writes its data
// (linux/netfilter/nf_tables.h).
type Expr struct {
	Name string
	Put  func(*nfnl.Attrs)
}

// Encode writes the expression as one of a list.
func (x Expr) Encode(a *nfnl.Attrs) {
	a.Nest(unix.NFTA_LIST_ELEM, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_EXPR_NAME, x.Name)
		a.Nest(unix.NFTA_EXPR_DATA, x.Put)
	})
}

// RegKey and RegData are registers of four bytes: keys are loaded from the first on, what a map gives
// goes behind the longest key.
const (
	RegKey  = unix.NFT_REG32_00
	RegData = unix.NFT_REG32_00 + 11
)

// Meta loads a property of the packet (unix.NFT_META_*) into a register.
func Meta(key, reg uint32) Expr {
	return Expr{"meta", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_META_KEY, key)
		a.Uint32(unix.NFTA_META_DREG, reg)
	}}
}

// Payload loads bytes of a header (unix.NFT_PAYLOAD_*_HEADER) into a register.
func Payload(base, offset, size, reg uint32) Expr {
	return Expr{"payload", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_PAYLOAD_DREG, reg)
		a.Uint32(unix.NFTA_PAYLOAD_BASE, base)
		a.Uint32(unix.NFTA_PAYLOAD_OFFSET, offset)
		a.Uint32(unix.NFTA_PAYLOAD_LEN, size)
	}}
}

// CT loads a property of the connection (unix.NFT_CT_*).
func CT(key uint32) Expr {
	return Expr{"ct", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_CT_KEY, key)
		a.Uint32(unix.NFTA_CT_DREG, RegKey)
	}}
}

// addrType loads what the host's routing table says of the destination: RTN_*.
func addrType() Expr { return fibType(unix.NFTA_FIB_F_DADDR) }

// sourceType is addrType of the source.
func sourceType() Expr { return fibType(unix.NFTA_FIB_F_SADDR) }

func fibType(flags uint32) Expr {
	return Expr{"fib", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_FIB_DREG, RegKey)
		a.Uint32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
		a.Uint32(unix.NFTA_FIB_FLAGS, flags)
	}}
}

func setMark() Expr { return SetMeta(unix.NFT_META_MARK, RegKey) }

// SetMeta sets a property of the packet (unix.NFT_META_*) from a register.
func SetMeta(key, reg uint32) Expr {
	return Expr{"meta", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_META_KEY, key)
		a.Uint32(unix.NFTA_META_SREG, reg)
	}}
}

// Constant writes bytes to a register.
func Constant(reg uint32, b []byte) Expr {
	return Expr{"immediate", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_IMMEDIATE_DREG, reg)
		a.Nest(unix.NFTA_IMMEDIATE_DATA, value(b))
	}}
}

// SetEtherDestination sends a frame to the MAC address in a register.
func SetEtherDestination(reg uint32) Expr {
	return Expr{"payload", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_PAYLOAD_SREG, reg)
		a.Uint32(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_LL_HEADER)
		a.Uint32(unix.NFTA_PAYLOAD_OFFSET, 0)
		a.Uint32(unix.NFTA_PAYLOAD_LEN, 6)
		a.Uint32(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_NONE)
		a.Uint32(unix.NFTA_PAYLOAD_CSUM_OFFSET, 0)
	}}
}

// Mask leaves bits as they are where mask has them.
func Mask(mask []byte) Expr { return maskXor(mask, make([]byte, len(mask))) }

// setBits sets bits of a number in host byte order.
func setBits(bits uint32) Expr { return maskXor(Host32(^bits), Host32(bits)) }

func maskXor(mask, xor []byte) Expr {
	return Expr{"bitwise", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_BITWISE_SREG, RegKey)
		a.Uint32(unix.NFTA_BITWISE_DREG, RegKey)
		a.Uint32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		a.Nest(unix.NFTA_BITWISE_MASK, value(mask))
		a.Nest(unix.NFTA_BITWISE_XOR, value(xor))
	}}
}

// Compare is with unix.NFT_CMP_EQ or unix.NFT_CMP_NEQ.
func Compare(op uint32, want []byte) Expr {
	return Expr{"cmp", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_CMP_SREG, RegKey)
		a.Uint32(unix.NFTA_CMP_OP, op)
		a.Nest(unix.NFTA_CMP_DATA, value(want))
	}}
}

func value(b []byte) func(*nfnl.Attrs) {
	return func(a *nfnl.Attrs) { a.Bytes(unix.NFTA_DATA_VALUE, b) }
}

// Lookup looks for a key in a set; what a map gives goes to RegData.
func Lookup(s *Set) Expr { return lookupExpr(s, false) }

func lookupExpr(s *Set, invert bool) Expr {
	return Expr{"lookup", func(a *nfnl.Attrs) {
		a.String(unix.NFTA_LOOKUP_SET, s.Name)
		a.Uint32(unix.NFTA_LOOKUP_SREG, RegKey)
		switch {
		case s.LeadsToChains():
			a.Uint32(unix.NFTA_LOOKUP_DREG, unix.NFT_REG_VERDICT)
		case s.Data != nil:
			a.Uint32(unix.NFTA_LOOKUP_DREG, RegData)
		}
		if invert {
			a.Uint32(unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
		}
	}}
}

// Verdict is one of unix.NFT_JUMP, unix.NFT_GOTO, unix.NFT_RETURN, verdictDrop, VerdictAccept.
func Verdict(code int32, chain string) Expr {
	return Expr{"immediate", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		a.Nest(unix.NFTA_IMMEDIATE_DATA, verdictValue(code, chain))
	}}
}

func verdictValue(code int32, chain string) func(*nfnl.Attrs) {
	return func(a *nfnl.Attrs) {
		a.Nest(unix.NFTA_DATA_VERDICT, func(a *nfnl.Attrs) {
			a.Uint32(unix.NFTA_VERDICT_CODE, uint32(code))
			if chain != "" {
				a.String(unix.NFTA_VERDICT_CHAIN, chain)
			}
		})
	}
}

func masqExpr() Expr { return Expr{"masq", func(*nfnl.Attrs) {}} }

// nat translates to what a map gave: an address, or an address and a port.
func nat(typ uint32, family uint8, s *Set) Expr {
	return Expr{"nat", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_NAT_TYPE, typ)
		a.Uint32(unix.NFTA_NAT_FAMILY, uint32(family))
		a.Uint32(unix.NFTA_NAT_REG_ADDR_MIN, RegData)
		if len(s.Data) > 1 {
			a.Uint32(unix.NFTA_NAT_REG_PROTO_MIN, RegData+s.Data[0].padded()/4)
		}
	}}
}

// Host32 is a number as nf_tables has it in registers: in the order of this machine.
func Host32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

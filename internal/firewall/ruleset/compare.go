package ruleset

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Encoded is what a rule does, as it is sent.
func (r Rule) Encoded() []byte {
	var a nfnl.Attrs
	for _, x := range r.Does() {
		x.Encode(&a)
	}
	return a
}

// SameExprs says that the kernel has the expressions that we sent. It writes
// them in its own way: registers of 16 bytes by their older numbers, attributes
// that we left to its defaults.
func SameExprs(sent, held []byte) bool {
	a, b := attributes(sent), attributes(held)
	return slices.EqualFunc(a, b, func(x, y attribute) bool {
		name := nfnl.Text(x.value, unix.NFTA_EXPR_NAME)
		return name == nfnl.Text(y.value, unix.NFTA_EXPR_NAME) &&
			sameData(name, nfnl.Find(x.value, unix.NFTA_EXPR_DATA), nfnl.Find(y.value, unix.NFTA_EXPR_DATA))
	})
}

// attribute is one of a list of netlink attributes.
type attribute struct {
	typ   uint16
	value []byte
}

func attributes(b []byte) []attribute {
	var all []attribute
	_ = nfnl.Each(b, func(typ uint16, value []byte) error {
		all = append(all, attribute{typ, value})
		return nil
	})
	return all
}

// isRegister says whether an attribute of an expression names a register.
func isRegister(expr string, attr uint16) bool {
	switch expr {
	case "meta":
		return attr == unix.NFTA_META_DREG || attr == unix.NFTA_META_SREG
	case "payload":
		return attr == unix.NFTA_PAYLOAD_DREG
	case "ct":
		return attr == unix.NFTA_CT_DREG
	case "fib":
		return attr == unix.NFTA_FIB_DREG
	case "bitwise":
		return attr == unix.NFTA_BITWISE_SREG || attr == unix.NFTA_BITWISE_DREG
	case "cmp":
		return attr == unix.NFTA_CMP_SREG
	case "lookup":
		return attr == unix.NFTA_LOOKUP_SREG || attr == unix.NFTA_LOOKUP_DREG
	case "immediate":
		return attr == unix.NFTA_IMMEDIATE_DREG
	case "nat":
		return attr >= unix.NFTA_NAT_REG_ADDR_MIN && attr <= unix.NFTA_NAT_REG_PROTO_MAX
	}
	return false
}

func sameData(name string, sent, held []byte) bool {
	read := func(b []byte, typ uint16) []byte {
		v := nfnl.Find(b, typ)
		switch {
		case isRegister(name, typ):
			return register(v)
		case name == "immediate" && typ == unix.NFTA_IMMEDIATE_DATA: // the kernel does not mark what is nested
			v = nfnl.Find(v, unix.NFTA_DATA_VERDICT)
			return append(bytes.Clone(nfnl.Find(v, unix.NFTA_VERDICT_CODE)), nfnl.Find(v, unix.NFTA_VERDICT_CHAIN)...)
		}
		return v
	}
	for _, a := range attributes(sent) {
		if !bytes.Equal(read(sent, a.typ), read(held, a.typ)) {
			return false
		}
	}
	for _, a := range attributes(held) {
		if nfnl.Find(sent, a.typ) == nil && !isDefault(name, a, sent, read) {
			return false
		}
	}
	return true
}

// isDefault says that an attribute that we did not send is what the kernel makes
// of what we sent: nothing, or the end of a range that has only a beginning.
func isDefault(name string, a attribute, sent []byte, read func([]byte, uint16) []byte) bool {
	if name == "nat" {
		switch a.typ {
		case unix.NFTA_NAT_REG_ADDR_MAX:
			return bytes.Equal(register(a.value), read(sent, unix.NFTA_NAT_REG_ADDR_MIN))
		case unix.NFTA_NAT_REG_PROTO_MAX:
			return bytes.Equal(register(a.value), read(sent, unix.NFTA_NAT_REG_PROTO_MIN))
		case nftaNATFlags:
			return nfnl.Uint32(a.value) == natFlags(sent)
		}
	}
	return len(bytes.Trim(a.value, "\x00")) == 0
}

// nftaNATFlags is NFTA_NAT_FLAGS, and what it says of itself: NF_NAT_RANGE_MAP_IPS
// and NF_NAT_RANGE_PROTO_SPECIFIED (linux/netfilter/nf_nat.h).
const (
	nftaNATFlags = 7
	natAddrs     = 1
	natPorts     = 2
)

// register is the number of a register of four bytes for that of the one of 16
// bytes that begins with it.
func register(b []byte) []byte {
	if len(b) != 4 {
		return b
	}
	return binary.BigEndian.AppendUint32(nil, registerNumber(nfnl.Uint32(b)))
}

func registerNumber(n uint32) uint32 {
	if n < unix.NFT_REG_1 || n > unix.NFT_REG_4 {
		return n
	}
	return unix.NFT_REG32_00 + (n-unix.NFT_REG_1)*4
}

// natFlags is what the kernel says of a translation to these registers.
func natFlags(data []byte) uint32 {
	if nfnl.Find(data, unix.NFTA_NAT_REG_PROTO_MIN) != nil {
		return natAddrs | natPorts
	}
	return natAddrs
}

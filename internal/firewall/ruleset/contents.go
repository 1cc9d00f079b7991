package ruleset

import (
	"bytes"
	"encoding/binary"
	"hash"
	"hash/fnv"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// The rules of a table have a hash: the sum of those of its chains, as a table of an
// earlier release has its chains in another order. If that of what the kernel has is ours,
// no rule needs to be compared with what we write, and ours need not even be made
// (BenchmarkRules). It is over what both ways of writing an expression have in common, see
// SameExprs. If it differs, the rules are compared one by one: that says what differs, or
// that nothing does.

// Digest gathers the hash of rules as they come, those of a chain together.
type Digest struct {
	chain []byte
	h     hash.Hash64
	sum   uint64
	buf   []byte
}

// Add takes the next rule: its chain, its user data and its expressions.
func (c *Digest) Add(chain, why, exprs []byte) {
	if c.h == nil {
		c.h = fnv.New64a()
	}
	if !bytes.Equal(chain, c.chain) {
		c.Finish()
		c.chain = append(c.chain[:0], chain...)
		c.buf = appendField(c.buf, 0, chain)
	}
	c.buf = appendField(c.buf, 0, why)
	_ = nfnl.Each(exprs, func(_ uint16, x []byte) error {
		c.buf = common(c.buf, bytes.TrimRight(nfnl.Find(x, unix.NFTA_EXPR_NAME), "\x00"), nfnl.Find(x, unix.NFTA_EXPR_DATA))
		return nil
	})
	_, _ = c.h.Write(c.buf)
	c.buf = c.buf[:0]
}

// Finish ends a chain, and returns the sum of all until now.
func (c *Digest) Finish() uint64 {
	if c.chain != nil {
		c.sum += c.h.Sum64()
		c.h.Reset()
		c.chain = nil
	}
	return c.sum
}

// appendField appends a value with its type and length.
func appendField(buf []byte, typ uint16, v []byte) []byte {
	buf = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(buf, typ), uint16(len(v)))
	return append(buf, v...)
}

// maxAttr is above the types of attributes that expressions of ours have.
const maxAttr = 16

// common appends what an expression says, in the order of types, without what the
// kernel adds to what was sent: attributes that are 0, and what follows from others.
func common(buf, name, data []byte) []byte {
	var attrs [maxAttr][]byte
	_ = nfnl.Each(data, func(typ uint16, v []byte) error {
		if typ < maxAttr {
			attrs[typ] = v
		} else {
			buf = appendField(buf, typ, v)
		}
		return nil
	})
	buf = appendField(buf, 0, name)
	for i, v := range attrs {
		switch typ := uint16(i); {
		case isZero(v):
		case string(name) == "nat" && followsOfNAT(typ, v, data):
		case string(name) == "immediate" && typ == unix.NFTA_IMMEDIATE_DATA: // the kernel does not mark what is nested
			v = nfnl.Find(v, unix.NFTA_DATA_VERDICT)
			buf = appendField(appendField(buf, typ, nfnl.Find(v, unix.NFTA_VERDICT_CODE)), typ, nfnl.Find(v, unix.NFTA_VERDICT_CHAIN))
		case len(v) == 4 && isRegister(string(name), typ):
			buf = appendField(buf, typ, nil)
			buf = binary.BigEndian.AppendUint32(buf, registerNumber(nfnl.Uint32(v)))
		default:
			buf = appendField(buf, typ, v)
		}
	}
	return buf
}

func isZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// followsOfNAT says that an attribute of a translation follows from the others: the
// end of a range that has only a beginning, and what that says of itself.
func followsOfNAT(typ uint16, v, data []byte) bool {
	same := func(min uint16) bool {
		return registerNumber(nfnl.Uint32(v)) == registerNumber(nfnl.Uint32(nfnl.Find(data, min)))
	}
	switch typ {
	case unix.NFTA_NAT_REG_ADDR_MAX:
		return same(unix.NFTA_NAT_REG_ADDR_MIN)
	case unix.NFTA_NAT_REG_PROTO_MAX:
		return same(unix.NFTA_NAT_REG_PROTO_MIN)
	case nftaNATFlags:
		return nfnl.Uint32(v) == natFlags(data)
	}
	return false
}

// Content is the hash of the rules that we write.
func (t Table) Content() uint64 {
	var all Digest
	for _, ch := range t.Chains {
		for _, r := range ch.Rules {
			all.Add([]byte(ch.Name), FormatComment(r.Why), r.Encoded())
		}
	}
	return all.Finish()
}

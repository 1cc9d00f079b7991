// Package ipmath counts with IP addresses of both families.
package ipmath

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
)

// Within says whether first <= a <= last, all of one family.
func Within(a, first, last netip.Addr) bool {
	return a.BitLen() == first.BitLen() && first.Compare(a) <= 0 && a.Compare(last) <= 0
}

// Last returns the last address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	for i := p.Bits() + 128 - p.Addr().BitLen(); i < 128; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return like(p.Addr(), netip.AddrFrom16(b))
}

// like gives b the family of a.
func like(a, b netip.Addr) netip.Addr {
	if a.Is4() {
		return b.Unmap()
	}
	return b
}

// Add returns a + k. The caller knows that it does not overflow.
func Add(a netip.Addr, k uint64) netip.Addr {
	b := a.As16()
	lo, carry := bits.Add64(binary.BigEndian.Uint64(b[8:]), k, 0)
	hi := binary.BigEndian.Uint64(b[:8]) + carry
	binary.BigEndian.PutUint64(b[8:], lo)
	binary.BigEndian.PutUint64(b[:8], hi)
	return like(a, netip.AddrFrom16(b))
}

// Distance returns b - a, at most MaxUint64. a must not be greater than b.
func Distance(a, b netip.Addr) uint64 {
	x, y := a.As16(), b.As16()
	lo, borrow := bits.Sub64(binary.BigEndian.Uint64(y[8:]), binary.BigEndian.Uint64(x[8:]), 0)
	if hi, _ := bits.Sub64(binary.BigEndian.Uint64(y[:8]), binary.BigEndian.Uint64(x[:8]), borrow); hi != 0 {
		return math.MaxUint64
	}
	return lo
}

func SatAdd(a, b uint64) uint64 {
	if s, carry := bits.Add64(a, b, 0); carry == 0 {
		return s
	}
	return math.MaxUint64
}

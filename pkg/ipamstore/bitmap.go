package ipamstore

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math/bits"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/ipmath"
	"github.com/libnet-cni/libnet/internal/pooldir"
)

// The bitmap says which addresses are taken. It is cut into blocks of 65536
// addresses, one file each, so that neither a /8 nor a /64 costs anything until
// it is used, and one read tells all about a /16. It does not depend on the
// configured ranges. An IPv6 block without a taken address has no file, as
// there may be any number of blocks; those of IPv4 stay.
const (
	blockBits   = 16
	blockSize   = 1 << blockBits // addresses
	blockBytes  = blockSize / 8
	blockPrefix = "b."
	blocksKept  = 64 // in memory
)

// block is one file of the bitmap in memory.
type block struct {
	lo, hi int              // bytes changed since the last flush; none if lo >= hi
	data   [blockBytes]byte // last: most of it is never touched, so never mapped
}

// bitmap reads blocks as they are asked for, and writes back the changed ones
// on flush.
type bitmap struct {
	dir    pooldir.Dir
	blocks map[netip.Addr]*block
}

// split returns the first address of a's block, and a's place in it.
func split(a netip.Addr) (netip.Addr, int) {
	b := a.AsSlice()
	n := len(b)
	place := int(binary.BigEndian.Uint16(b[n-2:]))
	b[n-2], b[n-1] = 0, 0
	base, _ := netip.AddrFromSlice(b)
	return base, place
}

func blockFile(base netip.Addr) string { return blockPrefix + base.String() }

// parseBlockFile is the inverse of blockFile.
func parseBlockFile(name string) (netip.Addr, bool) {
	rest, ok := strings.CutPrefix(name, blockPrefix)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(rest)
	return a, err == nil
}

// load returns the block at base; a missing file is an empty block.
func (m *bitmap) load(base netip.Addr) (*block, error) {
	if b := m.blocks[base]; b != nil {
		return b, nil
	}
	if len(m.blocks) >= blocksKept {
		if err := m.flush(); err != nil {
			return nil, err
		}
		clear(m.blocks)
	}
	b := &block{lo: blockBytes}
	fd, err := pooldir.OpenAt(m.dir.Fd, blockFile(base), unix.O_RDONLY|unix.O_NOFOLLOW)
	if err == nil {
		_, err = pooldir.ReadAt(fd, b.data[:])
		_ = unix.Close(fd)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, m.dir.Fail("read", blockFile(base), err)
	}
	m.blocks[base] = b
	return b, nil
}

// mark records that a is taken.
func (m *bitmap) mark(a netip.Addr) error {
	return m.change(a, func(old, bit byte) byte { return old | bit })
}

// unmark records that a is free.
func (m *bitmap) unmark(a netip.Addr) error {
	return m.change(a, func(old, bit byte) byte { return old &^ bit })
}

func (m *bitmap) change(a netip.Addr, fn func(old, bit byte) byte) error {
	base, place := split(a)
	b, err := m.load(base)
	if err != nil {
		return err
	}
	i := place / 8
	if now := fn(b.data[i], 1<<(place%8)); now != b.data[i] {
		b.data[i], b.lo, b.hi = now, min(b.lo, i), max(b.hi, i+1)
	}
	return nil
}

// free returns the first free address of s, if there is one.
func (m *bitmap) free(s span) (netip.Addr, bool, error) {
	for a := s.first; ; {
		base, place := split(a)
		b, err := m.load(base)
		if err != nil {
			return a, false, err
		}
		end := ipmath.Add(base, blockSize-1)
		last := blockSize - 1
		if s.last.Less(end) {
			_, last = split(s.last)
		}
		if n, ok := b.next(place, last); ok {
			return ipmath.Add(base, uint64(n)), true, nil
		}
		if s.last.Compare(end) <= 0 {
			return a, false, nil
		}
		a = end.Next()
	}
}

// count returns how many addresses of s are taken. It reads every block.
func (m *bitmap) count(s span) (uint64, error) {
	var n uint64
	for a := s.first; ; {
		base, place := split(a)
		b, err := m.load(base)
		if err != nil {
			return 0, err
		}
		end := ipmath.Add(base, blockSize-1)
		last := blockSize - 1
		if s.last.Less(end) {
			_, last = split(s.last)
		}
		n += b.taken(place, last)
		if s.last.Compare(end) <= 0 {
			return n, nil
		}
		a = end.Next()
	}
}

// next returns the first clear bit from place to last, both included.
func (b *block) next(place, last int) (int, bool) {
	for w := place / 64; w <= last/64; w++ {
		free := ^b.word(w)
		if w == place/64 {
			free &= ^uint64(0) << (place % 64)
		}
		if free == 0 {
			continue
		}
		n := w*64 + bits.TrailingZeros64(free)
		return n, n <= last
	}
	return 0, false
}

// taken counts the set bits from place to last, both included.
func (b *block) taken(place, last int) uint64 {
	n := 0
	for w := place / 64; w <= last/64; w++ {
		x := b.word(w)
		if w == place/64 {
			x &= ^uint64(0) << (place % 64)
		}
		if w == last/64 {
			x &= ^uint64(0) >> (63 - last%64)
		}
		n += bits.OnesCount64(x)
	}
	return uint64(n)
}

func (b *block) word(w int) uint64 { return binary.LittleEndian.Uint64(b.data[w*8:]) }

// flush writes the changed blocks. Blocks that have become empty lose their
// file.
func (m *bitmap) flush() error {
	for base, b := range m.blocks {
		if b.lo >= b.hi {
			continue
		}
		var err error
		if base.Is6() && b.data == [blockBytes]byte{} {
			err = m.dir.Remove(blockFile(base))
		} else {
			err = m.dir.Update(blockFile(base), b.data[b.lo:b.hi], int64(b.lo))
		}
		if err != nil {
			return err
		}
		b.lo, b.hi = blockBytes, 0
	}
	return nil
}

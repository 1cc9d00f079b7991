package wggo

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

const (
	ipv6Header = 40
	udpHeader  = 8
	// allOnes stands for a checksum that comes to zero: zero says that there is none, which
	// IPv6 does not allow (RFC 8200, section 8.1).
	allOnes = 0xffff
)

// mangled is a TUN device whose UDP packets have allOnes where wireguard-go, which completes
// the checksums that the kernel left to the device, has zero: one of 65536 would be lost.
type mangled struct{ tun.Device }

// Read reads packets as tun.Device says.
func (m mangled) Read(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	n, err = m.Device.Read(bufs, sizes, offset)
	if err != nil && !errors.Is(err, tun.ErrTooManySegments) { // with which some packets come
		return n, err
	}
	for i := range n {
		mangle(bufs[i][offset : offset+sizes[i]])
	}
	return n, err
}

// mangle writes allOnes as the checksum of a UDP packet of IPv6 whose checksum is zero and
// comes to zero.
func mangle(p []byte) {
	if len(p) < ipv6Header+udpHeader || p[0]>>4 != 6 || p[6] != unix.IPPROTO_UDP {
		return
	}
	sum, udp := p[ipv6Header+6:ipv6Header+8], p[ipv6Header:]
	if sum[0] == 0 && sum[1] == 0 && fold(add(p[8:ipv6Header], uint32(len(udp))+unix.IPPROTO_UDP)+add(udp, 0)) == allOnes {
		binary.BigEndian.PutUint16(sum, allOnes)
	}
}

// add adds the 16 bit numbers of b.
func add(b []byte, sum uint32) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// fold adds the carries, as the Internet checksum does (RFC 1071).
func fold(sum uint32) uint32 {
	for sum > allOnes {
		sum = sum>>16 + sum&allOnes
	}
	return sum
}

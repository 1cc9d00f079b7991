package wggo

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// wholeSums is a TUN device whose packets have UDP checksums that IPv6 allows. The kernel leaves
// them to wireguard-go, which writes one that comes out as 0 as it is. By IPv6 that says that
// there is none, and receivers drop it: one packet in 65536 was lost.
type wholeSums struct{ tun.Device }

// Read is that of the device.
func (d wholeSums) Read(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	n, err = d.Device.Read(bufs, sizes, offset)
	for i := range n {
		mendSum(bufs[i][offset : offset+sizes[i]])
	}
	return n, err
}

// The header of IPv6, and in it the places of the next header and of the addresses (RFC 8200,
// section 3); behind it the place of UDP's checksum.
const (
	ipv6Header, ipv6Next, ipv6Addrs = 40, 6, 8
	udpHeader, udpSum               = 8, 6
)

// mendSum has a UDP checksum that comes out as 0 be all ones (RFC 8200, section 8.1). A packet that
// is to have none stays as it is.
func mendSum(p []byte) {
	if len(p) < ipv6Header+udpHeader || p[0]>>4 != 6 || p[ipv6Next] != unix.IPPROTO_UDP {
		return
	}
	sum := p[ipv6Header+udpSum : ipv6Header+udpHeader]
	if sum[0]|sum[1] != 0 {
		return
	}
	total := uint64(unix.IPPROTO_UDP) + uint64(len(p)-ipv6Header)
	rest := p[ipv6Addrs:]
	for ; len(rest) > 1; rest = rest[2:] {
		total += uint64(binary.BigEndian.Uint16(rest))
	}
	if len(rest) == 1 {
		total += uint64(rest[0]) << 8
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	if total == 0xffff {
		sum[0], sum[1] = 0xff, 0xff
	}
}

package capture

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	dnsPort      = 53
	ipv4Header   = 20
	ipv6Header   = 40
	udpHeader    = 8
	hopLimit     = 64
	dontFragment = 0x4000
)

// datagram is a packet of UDP.
type datagram struct {
	from, to netip.AddrPort
	data     []byte
}

// parse returns the datagram in a packet of IP; false if it is something else, or
// less than a whole one.
func parse(p []byte) (d datagram, ok bool) {
	if len(p) < ipv4Header {
		return d, false
	}
	var src, dst netip.Addr
	switch p[0] >> 4 {
	case 4:
		head, size := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
		fragment := binary.BigEndian.Uint16(p[6:]) &^ (dontFragment | 0x8000)
		if head < ipv4Header || size < head || size > len(p) || fragment != 0 || p[9] != unix.IPPROTO_UDP {
			return d, false
		}
		src, dst = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
		p = p[head:size]
	case 6:
		size := ipv6Header
		if len(p) >= ipv6Header {
			size += int(binary.BigEndian.Uint16(p[4:]))
		}
		if size > len(p) || p[6] != unix.IPPROTO_UDP { // extension headers are not for us
			return d, false
		}
		src, dst = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
		p = p[ipv6Header:size]
	default:
		return d, false
	}
	if len(p) < udpHeader || int(binary.BigEndian.Uint16(p[4:])) < udpHeader || int(binary.BigEndian.Uint16(p[4:])) > len(p) {
		return d, false
	}
	d.from = netip.AddrPortFrom(src, binary.BigEndian.Uint16(p))
	d.to = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(p[2:]))
	d.data = p[udpHeader:binary.BigEndian.Uint16(p[4:])]
	return d, true
}

// isTCP says that a packet of IP has a segment of TCP, without a header between.
func isTCP(p []byte) bool {
	if len(p) < ipv4Header {
		return false
	}
	return p[0]>>4 == 4 && p[9] == unix.IPPROTO_TCP || p[0]>>4 == 6 && p[6] == unix.IPPROTO_TCP
}

// build appends the packet that answers d to b.
func build(b []byte, d datagram, answer []byte) []byte {
	size := udpHeader + len(answer)
	start := len(b)
	if d.from.Addr().Is4() {
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(ipv4Header+size))
		b = append(b, 0, 0, dontFragment>>8, 0, hopLimit, unix.IPPROTO_UDP, 0, 0)
		b = append(append(b, d.to.Addr().AsSlice()...), d.from.Addr().AsSlice()...)
		binary.BigEndian.PutUint16(b[start+10:], ^fold(sum(b[start:], 0)))
	} else {
		b = append(b, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(size))
		b = append(b, unix.IPPROTO_UDP, hopLimit)
		b = append(append(b, d.to.Addr().AsSlice()...), d.from.Addr().AsSlice()...)
	}
	udp := len(b)
	b = binary.BigEndian.AppendUint16(b, d.to.Port())
	b = binary.BigEndian.AppendUint16(b, d.from.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = append(append(b, 0, 0), answer...)
	pseudo := sum(d.to.Addr().AsSlice(), sum(d.from.Addr().AsSlice(), uint32(unix.IPPROTO_UDP+size)))
	check := ^fold(sum(b[udp:], pseudo))
	if check == 0 { // 0 says that there is none (RFC 768)
		check = 0xffff
	}
	binary.BigEndian.PutUint16(b[udp+6:], check)
	return b
}

// sum adds b to a checksum of the internet (RFC 1071).
func sum(b []byte, s uint32) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

package integration

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// A datagram by IPv6 whose UDP checksum comes out as 0 arrives at a container of another host: it
// is to be all ones then, as 0 says that there is none.
func TestWireGuardZeroChecksum(t *testing.T) {
	t.Parallel()
	s := newSecure(t, 2, false)
	all := s.all()
	s.reachAll(all)
	const port, source = 7711, 7712
	from, to := all[0].addresses[1], all[1].addresses[1]
	var in net.PacketConn
	s.in(all[1].netns, func() {
		var err error
		in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port)))
		s.check(err)
	})
	t.Cleanup(func() { _ = in.Close() })
	sum := uint32(17 + 10 + source + port + 10) // protocol and length, ports and length again
	for _, a := range []netip.Addr{from, to} {
		for b := a.AsSlice(); len(b) > 0; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	s.in(all[0].netns, func() {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, source)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port)))
		s.check(err)
		_, err = c.Write(binary.BigEndian.AppendUint16(nil, ^uint16(sum)))
		s.check(err)
		s.check(c.Close())
	})
	s.check(in.SetReadDeadline(time.Now().Add(lntest.WaitForAnswer)))
	if _, _, err := in.ReadFrom(make([]byte, 16)); err != nil {
		t.Errorf("the datagram did not arrive: %v", err)
	}
}

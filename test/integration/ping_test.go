package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

const (
	pingWait   = lntest.WaitForAnswer
	noPingWait = 200 * time.Millisecond
)

// ping fails the test unless addr answers an ICMP echo from the namespace;
// from "" is the host.
func (h *host) ping(from string, addr netip.Addr) {
	h.t.Helper()
	if err := h.echo(from, addr, pingWait); err != nil {
		h.t.Errorf("ping %s from %q: %v", addr, from, err)
	}
}

// noPing fails the test if addr answers.
func (h *host) noPing(from string, addr netip.Addr) {
	h.t.Helper()
	if err := h.echo(from, addr, noPingWait); err == nil {
		h.t.Errorf("%s answers to %q, and must not", addr, from)
	}
}

func (h *host) echo(from string, addr netip.Addr, wait time.Duration) (err error) {
	h.t.Helper()
	if from == "" {
		return echo(addr, wait)
	}
	lntest.Enter(h.t, from, func() { err = echo(addr, wait) })
	return err
}

// echo sends ICMP echo requests (RFC 792, RFC 4443) until one is answered.
func echo(addr netip.Addr, wait time.Duration) error {
	network, request, response := "ip4:icmp", byte(8), byte(0)
	if addr.Is6() {
		network, request, response = "ip6:ipv6-icmp", 128, 129
	}
	conn, err := net.ListenPacket(network, "")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	msg := []byte{request, 0, 0, 0, 0x6c, 0x6e, 0, 0} // identifier "ln"
	if addr.Is4() {
		binary.BigEndian.PutUint16(msg[2:], checksum(msg)) // IPv6's is the kernel's work
	}
	var buf [1500]byte
	for end := time.Now().Add(wait); ; {
		if _, err := conn.WriteTo(msg, &net.IPAddr{IP: addr.AsSlice()}); err != nil && time.Now().After(end) {
			return err // before that, a link may only not be in use yet
		}
		if err := conn.SetReadDeadline(time.Now().Add(min(wait, 250*time.Millisecond))); err != nil {
			return err
		}
		for {
			n, peer, err := conn.ReadFrom(buf[:])
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			from, _ := netip.AddrFromSlice(peer.(*net.IPAddr).IP)
			if n >= 8 && buf[0] == response && from.Unmap() == addr {
				return nil
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("no answer in %s", wait)
		}
	}
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

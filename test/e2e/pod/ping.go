package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

const (
	requests = 3
	patience = 2 * time.Second // for each answer
)

// echo is the ICMP of one family.
type echo struct {
	network        string
	request, reply byte
}

// ping prints how long the fastest answer took.
func ping(to string, out io.Writer) error {
	addr, err := netip.ParseAddr(to)
	if err != nil {
		return err
	}
	icmp := echo{"ip4:icmp", 8, 0}
	if addr.Is6() {
		icmp = echo{"ip6:ipv6-icmp", 128, 129}
	}
	conn, err := net.ListenPacket(icmp.network, "")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	var best time.Duration
	for seq := range uint16(requests) {
		took, err := icmp.ask(conn, addr, seq)
		if err != nil {
			return fmt.Errorf("ping %s, request %d: %w", addr, seq+1, err)
		}
		if best == 0 || took < best {
			best = took
		}
	}
	_, err = fmt.Fprintln(out, best)
	return err
}

func (e echo) ask(conn net.PacketConn, addr netip.Addr, seq uint16) (time.Duration, error) {
	id := uint16(os.Getpid())
	msg := make([]byte, 64)
	msg[0] = e.request
	binary.BigEndian.PutUint16(msg[4:], id)
	binary.BigEndian.PutUint16(msg[6:], seq)
	binary.BigEndian.PutUint16(msg[2:], checksum(msg)) // of IPv6, the kernel's work
	start := time.Now()
	if err := conn.SetReadDeadline(start.Add(patience)); err != nil {
		return 0, err
	}
	if _, err := conn.WriteTo(msg, &net.IPAddr{IP: addr.AsSlice()}); err != nil {
		return 0, err
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		if n >= 8 && buf[0] == e.reply && from.String() == addr.String() &&
			binary.BigEndian.Uint16(buf[4:]) == id && binary.BigEndian.Uint16(buf[6:]) == seq {
			return time.Since(start), nil
		}
	}
}

// checksum is the Internet checksum of RFC 1071 over an even number of bytes.
func checksum(msg []byte) uint16 {
	var sum uint32
	for i := 0; i < len(msg); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(msg[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

package main

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

const pingTimeout = 2 * time.Second

// ping sends an ICMP echo request from one namespace to the address to in
// another. It returns how long the answer took and which source address the
// other side saw.
func ping(from, at string, to netip.Addr) (took time.Duration, seen netip.Addr, err error) {
	// Type, code, checksum, identifier, sequence number (RFC 792, RFC 4443);
	// the kernel fills in the checksum of ICMPv6.
	network, request, reply := "ip4:icmp", []byte{8, 0, 0x8b, 0x90, 'l', 'n', 0, 1}, byte(0)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", []byte{128, 0, 0, 0, 'l', 'n', 0, 1}, 129
	}
	near, err := listen(from, network)
	if err != nil {
		return 0, seen, err
	}
	defer func() { _ = near.Close() }()
	far, err := listen(at, network)
	if err != nil {
		return 0, seen, err
	}
	defer func() { _ = far.Close() }()
	start := time.Now()
	if _, err := near.WriteTo(request, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return 0, seen, err
	}
	if _, err := await(near, reply); err != nil {
		return 0, seen, fmt.Errorf("no answer: %w", err)
	}
	took = time.Since(start)
	seen, err = await(far, request[0])
	return took, seen, err
}

// listen opens a raw socket in the namespace at path.
func listen(path, network string) (conn net.PacketConn, err error) {
	err = within(path, func() error {
		conn, err = net.ListenPacket(network, "")
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(pingTimeout))
}

// await returns the sender of the next message of our identifier and this type.
func await(conn net.PacketConn, kind byte) (netip.Addr, error) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return netip.Addr{}, err
		}
		if n >= 8 && buf[0] == kind && buf[4] == 'l' && buf[5] == 'n' {
			return netip.ParseAddr(from.String())
		}
	}
}

package wggo

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// The kernel leaves the checksum of what goes into a TUN device to wireguard-go; whatever a
// datagram contains, its checksum is one that a receiver takes.
func TestChecksums(t *testing.T) {
	lntest.Isolate(t)
	dev, err := tun.CreateTUN("tun0", firstMTU)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	if err := errors.Join(lntest.NoDAD(), lntest.Sysctl("ipv6/conf/tun0/accept_dad", "0"), lntest.Up("tun0", "fd00::1/64")); err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[fd00::2]:53")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	go send(c)
	seen := readAll(t, mangled{dev})
	if !seen[allOnes] || seen[0] || len(seen) < allOnes/2 {
		t.Errorf("%d checksums, 0xffff %v, 0 %v: want many, 0xffff and never 0", len(seen), seen[allOnes], seen[0])
	}
}

// send sends datagrams of every checksum, for as long as the connection is open.
func send(c net.Conn) {
	for n := 0; ; n++ {
		if _, err := c.Write(binary.BigEndian.AppendUint16(nil, uint16(n))); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// readAll reads until the datagram with each content has come.
func readAll(t *testing.T, dev tun.Device) (sums map[uint16]bool) {
	t.Helper()
	sums = map[uint16]bool{}
	contents := map[uint16]bool{}
	bufs, sizes := make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	for end := time.Now().Add(lntest.WaitForAnswer); len(contents) <= allOnes; {
		n, err := dev.Read(bufs, sizes, 0)
		if err != nil || time.Now().After(end) {
			t.Fatalf("%d of %d datagrams: %v", len(contents), allOnes+1, err)
		}
		for i := range n {
			p := bufs[i][:sizes[i]]
			if len(p) != ipv6Header+udpHeader+2 || p[6] != 17 {
				continue
			}
			sum := binary.BigEndian.Uint16(p[ipv6Header+6:])
			sums[sum], contents[binary.BigEndian.Uint16(p[ipv6Header+udpHeader:])] = true, true
			if got := fold(add(p[8:ipv6Header], uint32(len(p)-ipv6Header)+17) + add(p[ipv6Header:], 0)); sum != 0 && got != allOnes {
				t.Fatalf("the checksum %x of %x does not fit", sum, p)
			}
		}
	}
	return sums
}

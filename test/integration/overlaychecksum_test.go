package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the network card leaves checksums to the kernel, those of every frame
// are right, outside and inside: also of connections by a published port that
// come and go through the tunnel, for which addresses are translated.
func TestOverlayChecksums(t *testing.T) {
	for _, is6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay6=%t", is6), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 2, 1500, is6)
			s := &script{host: c.host}
			near := c.add(0, "h1", map[string]any{"runtimeConfig": map[string]any{"portMappings": []any{map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}})
			c.add(0, "h2", nil)
			s.serve("h1-net0", "80")
			for _, host := range c.hosts {
				c.in(netnsPath(host), func() { c.txChecksumOff("eth0") })
			}
			var wire int
			c.in(netnsPath("h2"), func() { wire = c.wire("eth0") })
			defer func() { _ = unix.Close(wire) }()
			at := []string{"10.80.0.0:8080", "[fd80::]:8080"} // the other host, by its end of the tunnel
			for _, a := range near.addresses {
				at = append(at, net.JoinHostPort(a.String(), "80"))
			}
			for _, a := range at {
				s.dial("h2-net0", a, "h1-net0")
			}
			frames := c.verifySums(wire, false)
			if frames < 4*len(at) {
				t.Errorf("%d frames with VXLAN came, want %d at least: the test sees nothing", frames, 4*len(at))
			}
		})
	}
}

// txChecksumOff has the kernel compute what is left to a device otherwise, as of
// one that cannot.
func (c *cluster) txChecksumOff(dev string) {
	c.t.Helper()
	const stxcsum = 0x17 // ETHTOOL_STXCSUM
	value := struct{ cmd, data uint32 }{stxcsum, 0}
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(req.name[:], dev)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	c.check(err)
	defer func() { _ = unix.Close(fd) }()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		c.t.Fatalf("switch off checksums of %s: %v", dev, errno)
	}
}

// wire opens a socket that gets a copy of each frame of a device.
func (c *cluster) wire(dev string) int {
	c.t.Helper()
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
	c.check(err)
	c.check(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: c.link(dev).Attrs().Index}))
	return fd
}

// verifySums reads the frames that came in and returns how many were VXLAN. Those of the fast path
// have no checksum in the outer UDP header.
func (c *cluster) verifySums(fd int, fast bool) (frames int) {
	c.t.Helper()
	buf := make([]byte, 64<<10)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return frames
		}
		c.check(err)
		if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_HOST || n < 14 {
			continue
		}
		udp, ok := c.verifyPacket("outside", buf[14:n])
		if !ok || len(udp) < 30 || binary.BigEndian.Uint16(udp[2:]) != 4789 {
			continue
		}
		if binary.BigEndian.Uint16(udp[6:]) == 0 && !fast {
			c.t.Error("outside: no UDP checksum")
		}
		frames++
		_, _ = c.verifyPacket("inside", udp[8+8+14:])
	}
}

// verifyPacket verifies the checksums of an IP packet and of TCP or UDP in it,
// which it returns; false if it is something else.
func (c *cluster) verifyPacket(where string, b []byte) (transport []byte, ok bool) {
	c.t.Helper()
	if len(b) < 20 || b[0]>>4 == 6 && len(b) < 40 {
		return nil, false
	}
	var pseudo []byte
	var protocol byte
	if b[0]>>4 == 4 {
		header := b[:b[0]&15*4]
		if checksum(header) != 0 {
			c.t.Errorf("%s: wrong checksum of the IP header", where)
		}
		transport, protocol = b[len(header):binary.BigEndian.Uint16(b[2:])], b[9]
		pseudo = append(pseudo, b[12:20]...)
	} else {
		transport, protocol = b[40:40+binary.BigEndian.Uint16(b[4:])], b[6]
		pseudo = append(pseudo, b[8:40]...)
	}
	if protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_UDP {
		return nil, false
	}
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(transport)))
	pseudo = append(append(pseudo, 0, 0, 0, protocol), transport...)
	if len(pseudo)%2 == 1 {
		pseudo = append(pseudo, 0)
	}
	none := protocol == unix.IPPROTO_UDP && transport[6] == 0 && transport[7] == 0
	if !none && checksum(pseudo) != 0 {
		c.t.Errorf("%s: wrong checksum of protocol %d", where, protocol)
	}
	return transport, true
}

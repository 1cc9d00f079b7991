package trace

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// answer is what came back for a packet.
type answer struct {
	came bool
	text string
	err  error // of the socket; nil: an answer came
}

// sender is a socket in the namespace of the sender. It is there before the trace begins:
// port and ident tell its packets from others between the same hosts.
type sender struct {
	fd       int
	protocol string
	to       netip.AddrPort
	port     uint16 // of TCP and UDP, its own
	ident    uint16 // of an echo
	data     string // that a datagram or an echo begins with
	rest     int    // bytes of zeros behind it
}

// open opens the socket by which the probe is sent.
func (p probe) open() (s sender, err error) {
	s = sender{fd: -1, protocol: p.protocol, to: p.dest}
	if p.protocol != "tcp" {
		s.data = fmt.Sprintf("ln%06x", rand.Uint32()&0xffffff)
	}
	kind, number := unix.SOCK_STREAM, 0
	switch p.protocol {
	case "udp":
		kind = unix.SOCK_DGRAM
	case "icmp": // a raw socket: others need a group of the sysctl ping_group_range
		kind, number, s.ident = unix.SOCK_RAW, unix.IPPROTO_ICMP, uint16(rand.Uint32()|1)
		if p.dest.Addr().Is6() {
			number = unix.IPPROTO_ICMPV6
		}
	}
	family, any := unix.AF_INET, netip.IPv4Unspecified()
	if p.dest.Addr().Is6() {
		family, any = unix.AF_INET6, netip.IPv6Unspecified()
	}
	err = p.ns.Do(func() (err error) {
		if s.fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, number); err != nil {
			return err
		}
		if p.size > 0 {
			s.rest = p.size - p.smallest()
			if err := whole(s.fd, p.dest.Addr().Is6()); err != nil {
				return errors.Join(err, unix.Close(s.fd))
			}
		}
		if s.ident != 0 {
			return nil
		}
		if err := unix.Bind(s.fd, sockaddr(netip.AddrPortFrom(any, 0))); err != nil {
			return errors.Join(err, unix.Close(s.fd))
		}
		switch own, err := unix.Getsockname(s.fd); own := own.(type) {
		case *unix.SockaddrInet4:
			s.port = uint16(own.Port)
		case *unix.SockaddrInet6:
			s.port = uint16(own.Port)
		default:
			return errors.Join(err, unix.Close(s.fd))
		}
		return nil
	})
	if err != nil {
		return s, fmt.Errorf("socket of %s: %w", p.protocol, err)
	}
	return s, nil
}

// dataSize is of the data by which a packet is known, headerSize of the header of UDP or ICMP.
const (
	dataSize   = 8
	headerSize = 8
)

// smallest is how large a datagram or an echo is at least, with all headers, in bytes.
func (p probe) smallest() int {
	if p.dest.Addr().Is6() {
		return 40 + headerSize + dataSize
	}
	return 20 + headerSize + dataSize
}

// whole has packets of a socket not be sent in fragments.
func whole(fd int, is6 bool) error {
	if is6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
}

func (s sender) close() { _ = unix.Close(s.fd) }

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	to := &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	if i, err := net.InterfaceByName(a.Addr().Zone()); err == nil {
		to.ZoneId = uint32(i.Index)
	}
	return to
}

// send sends the packet, and waits for what comes back.
func (s sender) send(wait time.Duration) answer {
	end := time.Now().Add(wait)
	err := unix.Connect(s.fd, sockaddr(s.to))
	if errors.Is(err, unix.EINPROGRESS) {
		err = s.await(unix.POLLOUT, end)
	}
	if err == nil && s.protocol == "tcp" {
		return answer{came: true, text: "the connection was accepted"}
	}
	data := append([]byte(s.data), make([]byte, s.rest)...)
	if s.protocol == "icmp" {
		data = s.echo()
	}
	if err == nil {
		err = unix.Send(s.fd, data, 0)
	}
	buf := make([]byte, 1500)
	for err == nil {
		if err = s.await(unix.POLLIN, end); err != nil {
			break
		}
		n, readErr := unix.Read(s.fd, buf)
		switch {
		case readErr != nil:
			err = readErr
		case s.protocol == "udp":
			return answer{came: true, text: "an answer came"}
		case s.isReply(buf[:n]):
			return answer{came: true, text: fmt.Sprintf("%s answers the echo", s.to.Addr())}
		}
	}
	return failed(err)
}

// await waits for an event of the socket, and returns what it knows as an error.
func (s sender) await(event int16, end time.Time) error {
	for {
		left := time.Until(end)
		if left <= 0 {
			return unix.ETIMEDOUT
		}
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: event}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		switch {
		case errors.Is(err, unix.EINTR), err == nil && n == 0:
			continue
		case err != nil:
			return err
		}
		code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		return err
	}
}

// failed says what an error of the socket tells: that a connection is refused is an answer.
func failed(err error) answer {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return answer{true, "the port is closed: nothing listens there", err}
	case errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EAGAIN):
		return answer{false, "silence", err}
	}
	return answer{false, err.Error(), err}
}

// echo is a request (RFC 792, RFC 4443).
func (s sender) echo() []byte {
	request := byte(8)
	if s.to.Addr().Is6() {
		request = 128
	}
	packet := append([]byte{request, 0, 0, 0, byte(s.ident >> 8), byte(s.ident), 0, 1}, s.data...)
	packet = append(packet, make([]byte, s.rest)...)
	if sum := checksum(packet); s.to.Addr().Is4() { // of ICMPv6 the kernel makes it
		packet[2], packet[3] = byte(sum>>8), byte(sum)
	}
	return packet
}

// isReply says that a packet is the answer to the echo. Those of IPv4 come with their header.
func (s sender) isReply(got []byte) bool {
	reply := byte(129)
	if s.to.Addr().Is4() {
		reply = 0
		if len(got) < 20 {
			return false
		}
		got = got[min(len(got), 4*int(got[0]&15)):]
	}
	return len(got) >= 8 && got[0] == reply && got[4] == byte(s.ident>>8) && got[5] == byte(s.ident)
}

// checksum is that of the internet (RFC 1071).
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	return ^uint16(sum>>16 + sum&0xffff)
}

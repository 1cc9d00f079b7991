package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// answer is what came back for a packet.
type answer struct {
	came bool
	text string
}

// send sends the packet out of its namespace, and waits for what comes back.
func (p probe) send() (a answer) {
	err := p.ns.Do(func() error {
		if p.protocol == "icmp" {
			a = p.echo()
			return nil
		}
		c, err := net.DialTimeout(p.protocol, p.dest.String(), p.wait)
		if err == nil && p.protocol == "udp" {
			err = p.datagram(c)
		}
		a = answered(p.protocol, err)
		if c != nil {
			err = c.Close()
		}
		return err
	})
	if err != nil && a.text == "" {
		a.text = err.Error()
	}
	return a
}

func (p probe) datagram(c net.Conn) error {
	err := c.SetDeadline(time.Now().Add(p.wait))
	if _, writeErr := c.Write([]byte("libnet\n")); err == nil {
		err = writeErr
	}
	if err == nil {
		_, err = c.Read(make([]byte, 512))
	}
	return err
}

// answered says what the error of a connection tells: that one is refused is an answer.
func answered(protocol string, err error) answer {
	switch {
	case err == nil && protocol == "udp":
		return answer{true, "an answer came"}
	case err == nil:
		return answer{true, "the connection was accepted"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return answer{true, "the port is closed: nothing listens there"}
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return answer{false, "silence"}
	}
	var sys syscall.Errno
	if errors.As(err, &sys) {
		return answer{false, sys.Error()}
	}
	return answer{false, err.Error()}
}

// echo pings by a raw socket: others need a group of the sysctl ping_group_range.
func (p probe) echo() answer {
	family, protocol, request, reply := unix.AF_INET, unix.IPPROTO_ICMP, byte(8), byte(0)
	if p.dest.Addr().Is6() {
		family, protocol, request, reply = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128, 129
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return answer{false, err.Error()}
	}
	defer func() { _ = unix.Close(fd) }()
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(p.dest.Addr().AsSlice()[:4])}
	if p.dest.Addr().Is6() {
		to = &unix.SockaddrInet6{Addr: p.dest.Addr().As16()}
	}
	id := uint16(os.Getpid())
	packet := []byte{request, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}
	if sum := checksum(packet); family == unix.AF_INET { // of ICMPv6 the kernel makes it
		packet[2], packet[3] = byte(sum>>8), byte(sum)
	}
	end := time.Now().Add(p.wait)
	if err := errors.Join(unix.Connect(fd, to), unix.Send(fd, packet, 0)); err != nil {
		return answered("icmp", err)
	}
	buf := make([]byte, 1500)
	for left := p.wait; left > 0; left = time.Until(end) {
		tv := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return answer{false, err.Error()}
		}
		n, err := unix.Read(fd, buf)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			return answer{false, err.Error()}
		}
		got := buf[:n]
		if family == unix.AF_INET && n > 20 {
			got = got[4*int(got[0]&15):]
		}
		if len(got) >= 8 && got[0] == reply && got[4] == packet[4] && got[5] == packet[5] {
			return answer{true, fmt.Sprintf("%s answers the echo", p.dest.Addr())}
		}
	}
	return answer{false, "silence"}
}

// checksum is that of the internet (RFC 1071).
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	return ^uint16(sum>>16 + sum&0xffff)
}

package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Echo is an ICMP echo request (RFC 792, RFC 4443).
type Echo struct {
	To netip.Addr
	// Size of the IP packet in bytes, at least MinEcho.
	Size int
}

// MinEcho is the smallest Echo of both families.
const MinEcho = 64

// Echoed is what came of an Echo.
type Echoed struct {
	// Sent is how often it was sent, and RTT the time to the first answer; 0:
	// there was none.
	Sent int
	RTT  time.Duration
	// Err is why it could not be sent; nil: it could.
	Err error
}

const (
	echoTries = 3
	// echoBurst is how many are sent before answers are taken: these must fit
	// into the receive buffer.
	echoBurst   = 64
	echoReceive = 4 << 20
	echoToken   = 8 // bytes by which our own answers are known, and then four of the number
)

// EchoAll sends every Echo, three times if no answer comes, and waits for all
// the answers together, no longer than wait. None is sent or answered in
// fragments, as far as this host decides that, and what is known of a path's MTU
// is not looked at. With dev they go by that device whatever the routes say, and
// only answers by it count. It works in the calling thread's network namespace
// and needs CAP_NET_RAW.
func EchoAll(ctx context.Context, dev string, all []Echo, wait time.Duration) ([]Echoed, error) {
	e := echoes{wanted: all, out: make([]Echoed, len(all)), sentAt: make([]time.Time, len(all)), fds: map[int]int{}}
	binary.NativeEndian.PutUint64(e.token[:], rand.Uint64())
	defer e.close()
	for _, w := range all {
		if err := e.open(netlink.Family(w.To), dev); err != nil {
			return nil, fmt.Errorf("open ICMP socket: %w", err)
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline))
	}
	end := time.Now().Add(wait)
	for try := range echoTries {
		until := end.Add(-wait * time.Duration(echoTries-1-try) / echoTries)
		for part := range slices.Chunk(e.unanswered(), echoBurst) {
			for _, i := range part {
				e.send(i)
			}
			if err := e.receive(ctx, time.Now()); err != nil {
				return nil, err
			}
		}
		if err := e.receive(ctx, until); err != nil {
			return nil, err
		}
	}
	return e.out, nil
}

// echoes are those under way.
type echoes struct {
	wanted []Echo
	out    []Echoed
	sentAt []time.Time
	token  [echoToken]byte
	fds    map[int]int // by family
}

func (e *echoes) close() {
	for _, fd := range e.fds {
		_ = unix.Close(fd)
	}
}

func (e *echoes) open(fam int, dev string) error {
	if _, ok := e.fds[fam]; ok {
		return nil
	}
	protocol := unix.IPPROTO_ICMP
	if fam == unix.AF_INET6 {
		protocol = unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(fam, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return err
	}
	e.fds[fam] = fd
	if dev != "" {
		if err := unix.BindToDevice(fd, dev); err != nil {
			return fmt.Errorf("device %s: %w", dev, err)
		}
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, echoReceive) // or what there is
	if fam == unix.AF_INET6 {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1))
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
}

// unanswered are those to be sent, or sent again.
func (e *echoes) unanswered() []int {
	var all []int
	for i, o := range e.out {
		if o.RTT == 0 {
			all = append(all, i)
		}
	}
	return all
}

func (e *echoes) send(i int) {
	w := e.wanted[i]
	header, typ := 20, byte(8)
	if w.To.Is6() {
		header, typ = 40, 128
	}
	b := make([]byte, max(w.Size, MinEcho)-header)
	b[0] = typ
	binary.BigEndian.PutUint16(b[4:], uint16(i>>16))
	binary.BigEndian.PutUint16(b[6:], uint16(i))
	copy(b[8:], e.token[:])
	binary.BigEndian.PutUint32(b[8+echoToken:], uint32(i))
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: w.To.As16()}
	if w.To.Is4() {
		binary.BigEndian.PutUint16(b[2:], onesComplement(b)) // IPv6's is the kernel's work
		to = &unix.SockaddrInet4{Addr: w.To.As4()}
	}
	e.sentAt[i] = time.Now()
	err := unix.Sendto(e.fds[netlink.Family(w.To)], b, 0, to)
	if e.out[i].Err = err; err == nil {
		e.out[i].Sent++
	}
}

// onesComplement is the checksum of RFC 1071.
func onesComplement(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// receive takes answers until all are there, or the time is up; what is there
// already it takes in any case.
func (e *echoes) receive(ctx context.Context, until time.Time) error {
	var polled []unix.PollFd
	for _, fd := range e.fds {
		polled = append(polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	buf := make([]byte, 64<<10)
	for {
		for fam, fd := range e.fds {
			e.take(fam, fd, buf)
		}
		left := time.Until(until)
		if left <= 0 || len(e.unanswered()) == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := unix.Poll(polled, int((left + time.Millisecond - 1).Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// take reads what has come to a socket.
func (e *echoes) take(fam, fd int, buf []byte) {
	for {
		n, from, err := syscall.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		b, typ := buf[:n], byte(129)
		var addr netip.Addr
		switch from := from.(type) {
		case *syscall.SockaddrInet4: // with the IP header
			addr, typ = netip.AddrFrom4(from.Addr), 0
			b = b[min(len(b), int(b[0]&15)*4):]
		case *syscall.SockaddrInet6:
			addr = netip.AddrFrom16(from.Addr)
		}
		if len(b) < 8+echoToken+4 || b[0] != typ || [echoToken]byte(b[8:]) != e.token {
			continue
		}
		i := int(binary.BigEndian.Uint32(b[8+echoToken:]))
		if i < len(e.out) && e.wanted[i].To == addr && netlink.Family(addr) == fam && e.out[i].RTT == 0 {
			e.out[i].RTT = max(time.Since(e.sentAt[i]), 1)
		}
	}
}

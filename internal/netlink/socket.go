package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/aside"
	"github.com/libnet-cni/libnet/internal/netns"
)

const (
	// ReceiveSize holds what the kernel sends at once: at most 32 KiB less the
	// 320 bytes of its skb_shared_info. Buffers above 32 KiB less 8 bytes Go allocates
	// another way, at the price of three page faults.
	ReceiveSize = 32<<10 - 256
	// maxIdle bounds the sockets and the buffers that are kept between requests.
	maxIdle = 8
	// smallSize is NLMSG_GOODSIZE.
	smallSize = 8 << 10
)

// Conn is rtnetlink in the namespace of the thread that opened it, whatever
// thread uses it. Many goroutines may use it at once: each request has a socket
// of its own, so that one which the kernel keeps waiting, as the removal of a
// link for some 16 ms, holds up no other. One goroutine needs one socket.
type Conn struct {
	mu    sync.Mutex
	first int       // the first socket, by which the namespace is found again; -1: closed
	idle  []*socket // sockets that no request uses
	rooms *rooms

	endsSoon bool
	aside    []*aside.Process // that may be at work
	threads  sync.WaitGroup   // that the kernel keeps
	kept     atomic.Int32     // how many these are
}

// Open opens rtnetlink in the calling thread's namespace.
func Open() (*Conn, error) { return openConnOver(newRooms(ReceiveSize)) }

// openConnOver is Open with the buffers of another Conn: of two that one
// goroutine uses in turn a page less for the kernel to map.
func openConnOver(r *rooms) (*Conn, error) {
	fd, err := openSocket()
	if err != nil {
		return nil, err
	}
	return connOf(fd, r), nil
}

func openSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, fmt.Errorf("open rtnetlink: %w", err)
	}
	return fd, nil
}

// connOf makes a Conn of a rtnetlink socket.
func connOf(fd int, r *rooms) *Conn {
	return &Conn{first: fd, idle: []*socket{newSocket(fd)}, rooms: r}
}

// OpenSmall is Open for one short answer: its buffer holds what the kernel
// sends at once to a socket that has received nothing yet (NLMSG_GOODSIZE).
func OpenSmall() (*Conn, error) { return openConnOver(newRooms(smallSize)) }

// OpenWith opens rtnetlink in the calling thread's namespace with the buffers of c.
func (c *Conn) OpenWith() (*Conn, error) { return openConnOver(c.rooms) }

// Adopt makes a Conn of a rtnetlink socket, with the buffers of c.
func (c *Conn) Adopt(fd int) *Conn { return connOf(fd, c.rooms) }

// Close closes the sockets; one in use is closed when its request ends. It waits until
// the kernel is done with the links that were removed.
func (c *Conn) Close() {
	c.threads.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.idle {
		s.close()
	}
	c.first, c.idle = -1, nil
}

// Requests is how many requests were sent by the sockets that none uses now.
func (c *Conn) Requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := 0
	for _, s := range c.idle {
		sum += int(s.seq)
	}
	return sum
}

// take returns a socket that no other request uses.
func (c *Conn) take() (*socket, error) {
	c.mu.Lock()
	first := c.first
	if n := len(c.idle); n > 0 {
		s := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return s, nil
	}
	c.mu.Unlock()
	if first < 0 {
		return nil, fmt.Errorf("rtnetlink: %w", net.ErrClosed)
	}
	return openBeside(first)
}

// give takes a socket back from a request.
func (c *Conn) give(s *socket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The first one stays: it tells the namespace.
	if c.first < 0 || len(c.idle) >= maxIdle && s.fd != c.first {
		s.close()
		return
	}
	c.idle = append(c.idle, s)
}

// openBeside opens a socket in the namespace of another one.
func openBeside(fd int) (*socket, error) {
	n, err := netns.OfSocket(fd)
	if err != nil {
		return nil, err
	}
	defer func() { _ = n.Close() }()
	if fd, err = openSocketOf(n); err != nil {
		return nil, err
	}
	return newSocket(fd), nil
}

// rooms are buffers for what the kernel sends, each for one request at a time.
type rooms struct {
	mu   sync.Mutex
	idle []*room
	size int // of each, in bytes
}

// room is a buffer and the messages that the last receive found in it.
type room struct {
	buf  []byte
	msgs []syscall.NetlinkMessage
}

func newRooms(size int) *rooms { return &rooms{size: size} }

func (r *rooms) take() *room {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.idle)
	if n == 0 {
		return &room{buf: make([]byte, r.size)}
	}
	last := r.idle[n-1]
	r.idle = r.idle[:n-1]
	return last
}

func (r *rooms) give(used *room) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.idle) < maxIdle {
		r.idle = append(r.idle, used)
	}
}

// socket is a rtnetlink socket, for one request at a time. nl's own socket was
// tried and dropped: it takes 64 KiB afresh for each answer, which in a
// short-lived process are page faults, and v1.3.1 panics on the error text of a
// dump.
type socket struct {
	fd  int
	seq uint32 // of the last request
}

func newSocket(fd int) *socket {
	// These only improve what we get: error texts (kernel 4.12), short errors
	// (4.3) and dumps filtered by the kernel (4.20), which we filter as well.
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1)
	}
	// The kernel has answered when send returns; this is for an answer it lost.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	return &socket{fd: fd}
}

func (s *socket) close() { _ = unix.Close(s.fd) }

func (s *socket) send(req *nl.NetlinkRequest) error {
	s.seq++
	req.Seq = s.seq
	if err := unix.Sendto(s.fd, req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to rtnetlink: %w", err)
	}
	return nil
}

// receive reads the next messages from the kernel into r, where they stay until
// its next use.
func (s *socket) receive(r *room) ([]syscall.NetlinkMessage, error) {
	for try := 0; ; try++ {
		// Package unix would link the addresses of all families that it knows: 20 KB.
		n, _, flags, from, err := syscall.Recvmsg(s.fd, r.buf, nil, 0)
		// The answer tells whether there is something to undo.
		if errors.Is(err, unix.EINTR) || err != nil && try == 0 && !errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err == nil && flags&unix.MSG_TRUNC != 0 {
			err = unix.EMSGSIZE
		}
		if err != nil {
			return nil, fmt.Errorf("receive from rtnetlink: %w", err)
		}
		if sa, ok := from.(*syscall.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not the kernel
		}
		err = r.split(n)
		return r.msgs, err
	}
}

// split is syscall.ParseNetlinkMessage, but for that it fills the same slice
// each time: a dump of a thousand entries has as many messages.
func (r *room) split(n int) error {
	r.msgs = r.msgs[:0]
	for b := r.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
		h := syscall.NlMsghdr{
			Len: binary.NativeEndian.Uint32(b), Type: binary.NativeEndian.Uint16(b[4:]), Flags: binary.NativeEndian.Uint16(b[6:]),
			Seq: binary.NativeEndian.Uint32(b[8:]), Pid: binary.NativeEndian.Uint32(b[12:]),
		}
		if h.Len < unix.NLMSG_HDRLEN || int(h.Len) > len(b) {
			return ErrShort
		}
		r.msgs = append(r.msgs, syscall.NetlinkMessage{Header: h, Data: b[unix.NLMSG_HDRLEN:h.Len]})
		b = b[min(len(b), (int(h.Len)+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return nil
}

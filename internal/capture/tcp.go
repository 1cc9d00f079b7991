package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// mostConns at once, of all containers and of one.
	mostConns     = 1024
	mostConnsEach = 32
	// idle is how long a connection may be silent (RFC 7766, section 6.2.3, has
	// clients close sooner).
	idle = 10 * time.Second
	// acceptAgain is how soon accept is tried again that failed for want of descriptors.
	acceptAgain = 50 * time.Millisecond
)

// listener takes redirected connections.
type listener struct {
	conf   Config
	v4, v6 *net.TCPListener // nil: the host has none of this family

	mu    sync.Mutex
	conns map[net.Conn]netip.Addr
	each  map[netip.Addr]int
	wg    sync.WaitGroup
}

func listen(c Config) (*listener, error) {
	l := &listener{conf: c, conns: map[net.Conn]netip.Addr{}, each: map[netip.Addr]int{}}
	v4, err := net.ListenTCP("tcp4", &net.TCPAddr{})
	if err != nil {
		return nil, fmt.Errorf("listen for DNS queries: %w", err)
	}
	l.v4 = v4
	if v6, err := net.ListenTCP("tcp6", &net.TCPAddr{}); err == nil { // IPv6 may be off
		l.v6 = v6
	}
	return l, nil
}

// port returns that of a listener; 0: there is none.
func (l *listener) port(of *net.TCPListener) uint16 {
	if of == nil {
		return 0
	}
	return uint16(of.Addr().(*net.TCPAddr).Port)
}

func (l *listener) close() error {
	var errs []error
	for _, one := range []*net.TCPListener{l.v4, l.v6} {
		if one != nil {
			if err := one.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// serve accepts connections until ctx ends, and then ends them.
func (l *listener) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		_ = l.close()
		l.mu.Lock()
		defer l.mu.Unlock()
		for c := range l.conns {
			_ = c.Close()
		}
	})
	defer stop()
	errs := make(chan error, 2)
	for _, one := range []*net.TCPListener{l.v4, l.v6} {
		if one == nil {
			errs <- nil
			continue
		}
		go func() { errs <- l.accept(ctx, one) }()
	}
	err := errors.Join(<-errs, <-errs)
	l.wg.Wait()
	return err
}

func (l *listener) accept(ctx context.Context, one *net.TCPListener) error {
	for {
		c, err := one.AcceptTCP()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() { // as without descriptors
				select {
				case <-ctx.Done():
				case <-time.After(acceptAgain):
				}
				continue
			}
			return fmt.Errorf("listen for DNS queries: %w", err)
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !l.enter(ctx, c, from) {
			_ = c.Close()
			continue
		}
		l.wg.Go(func() {
			defer l.leave(c, from)
			l.talk(ctx, c, from)
		})
	}
}

// enter counts a connection; false: there are too many.
func (l *listener) enter(ctx context.Context, c net.Conn, from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil || len(l.conns) >= mostConns || l.each[from] >= mostConnsEach {
		return false
	}
	l.conns[c] = from
	l.each[from]++
	return true
}

func (l *listener) leave(c net.Conn, from netip.Addr) {
	_ = c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	if l.each[from]--; l.each[from] <= 0 {
		delete(l.each, from)
	}
}

// talk answers the queries of a connection, one after the other.
func (l *listener) talk(ctx context.Context, c *net.TCPConn, from netip.Addr) {
	to, err := originalDestination(c)
	if err != nil || to.Port() != dnsPort {
		return
	}
	t := &talk{client: c}
	defer t.end()
	for {
		_ = c.SetReadDeadline(time.Now().Add(idle))
		query, err := readMessage(c)
		if err != nil {
			return
		}
		if l.conf.Look != nil {
			l.conf.Look()
		}
		if answer := l.conf.Respond(Query{From: from, To: to, TCP: true, Message: query}); answer != nil {
			if t.write(c, answer) != nil {
				return
			}
			continue
		}
		if t.server == nil {
			if t.server, err = dial(ctx, l.conf.Inside, from, to); err != nil {
				return
			}
			t.back.Go(t.copyBack)
		}
		if t.write(t.server, query) != nil {
			return
		}
	}
}

// talk is a connection of a container, with one to the server that it is for if
// there was need.
type talk struct {
	client, server net.Conn
	back           sync.WaitGroup
	mu             sync.Mutex // held while a message is written
}

func (t *talk) end() {
	if t.server != nil {
		_ = t.server.Close()
	}
	t.back.Wait()
}

// copyBack brings what the server says to the container, message by message.
func (t *talk) copyBack() {
	for {
		_ = t.server.SetReadDeadline(time.Now().Add(2 * idle))
		m, err := readMessage(t.server)
		if err != nil || t.write(t.client, m) != nil {
			_ = t.client.Close()
			return
		}
	}
}

func (t *talk) write(to net.Conn, message []byte) error {
	if to == t.client {
		t.mu.Lock()
		defer t.mu.Unlock()
	}
	_ = to.SetWriteDeadline(time.Now().Add(idle))
	_, err := to.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, len(message)+2), uint16(len(message))), message...))
	return err
}

// readMessage reads a message with its length before it. One without a head of
// DNS ends the connection.
func readMessage(c net.Conn) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(size[:])
	if n < 12 {
		return nil, fmt.Errorf("message of %d bytes", n)
	}
	m := make([]byte, n)
	_, err := io.ReadFull(c, m)
	return m, err
}

// soOriginalDst is SO_ORIGINAL_DST, and IP6T_SO_ORIGINAL_DST.
const soOriginalDst = 80

// originalDestination asks conntrack where a redirected connection was to go.
func originalDestination(c *net.TCPConn) (to netip.AddrPort, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return to, err
	}
	is4 := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().Is4()
	fail := raw.Control(func(fd uintptr) {
		if is4 {
			var sa unix.RawSockaddrInet4
			err = getsockopt(fd, unix.SOL_IP, soOriginalDst, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
			to = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), hostOrder(sa.Port))
			return
		}
		var sa unix.RawSockaddrInet6
		err = getsockopt(fd, unix.SOL_IPV6, soOriginalDst, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
		to = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), hostOrder(sa.Port))
	})
	return to, errors.Join(err, fail)
}

func getsockopt(fd uintptr, level, option int, value unsafe.Pointer, size uintptr) error {
	length := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(level), uintptr(option), uintptr(value), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// hostOrder turns a port in network byte order, as the kernel wrote it.
func hostOrder(port uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, port))
}

package capture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// dialFor is how long the server that a query is for may take to accept.
const dialFor = 5 * time.Second

// ownPorts are the ports from which a query goes on to the server that it is for:
// such a connection is not redirected. No program gets one of these by chance
// (net.ipv4.ip_local_port_range ends below).
var ownPorts = [2]uint16{61440, 61951}

// dial connects to the server that a query is for, out of the container's network
// namespace: it is the container that connects, as far as routes and rules can tell.
func dial(ctx context.Context, inside func(netip.Addr, func() error) error, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	var fd int
	if err := inside(from, func() (err error) { fd, err = begin(from, to); return err }); err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "tcp") // its descriptor does not block, so a wait can be bounded
	defer func() { _ = f.Close() }()
	_ = f.SetWriteDeadline(time.Now().Add(dialFor))
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(past) })
	defer stop()
	if err := connected(f); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	return net.FileConn(f)
}

// begin begins to connect from one of ownPorts, in the thread's network namespace.
func begin(from netip.Addr, to netip.AddrPort) (fd int, err error) {
	count := int(ownPorts[1]-ownPorts[0]) + 1
	for try, first := 0, rand.IntN(count); try < count; try++ {
		fd, err = beginFrom(netip.AddrPortFrom(from, ownPorts[0]+uint16((first+try)%count)), to)
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			break
		}
	}
	return fd, err
}

func beginFrom(from, to netip.AddrPort) (int, error) {
	domain := unix.AF_INET6
	if to.Addr().Is4() {
		domain = unix.AF_INET
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // a port in TIME_WAIT is as good
	if err = unix.Bind(fd, sockaddr(from)); err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// connected waits until a socket is, or cannot be.
func connected(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	fail := raw.Write(func(fd uintptr) bool {
		if _, err := unix.Getpeername(int(fd)); err == nil {
			return true
		}
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		result = err
		return err != nil
	})
	return errors.Join(result, fail)
}

package netlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Subscription receives events of a netlink family in the network namespace of the
// thread that opened it, for as long as a program runs. It is for one goroutine.
type Subscription struct {
	name string
	file *os.File
}

// eventSize is room for what the kernel sends at once.
const eventSize = 64 << 10

// Subscribe opens a socket of a protocol, NETLINK_ROUTE or another one, for the events of
// groups, a bit for each. name stands in errors. buffer is how many bytes wait in the
// kernel, if it allows that: less only means that more is lost, which Run tells; 0 leaves
// it to the kernel.
func Subscribe(name string, protocol int, groups uint32, buffer int) (*Subscription, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err == nil && buffer > 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	}
	if err != nil {
		_ = unix.Close(fd) // -1, which is refused, if there was no socket
		return nil, fmt.Errorf("subscribe to %s events: %w", name, err)
	}
	return &Subscription{name, os.NewFile(uintptr(fd), name)}, nil
}

// Run calls changed once for all events that come at once if one of them matters, until
// ctx ends; it asks as far as the first that does. Lost events, and those too long to be
// read, matter, too.
func (s *Subscription) Run(ctx context.Context, matters func(syscall.NetlinkMessage) bool, changed func()) error {
	defer context.AfterFunc(ctx, func() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, eventSize)
	for {
		n, err := s.file.Read(buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			changed()
			continue
		case err != nil:
			return fmt.Errorf("receive %s events: %w", s.name, err)
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil || slices.ContainsFunc(msgs, matters) {
			changed()
		}
	}
}

// Close ends the subscription.
func (s *Subscription) Close() { _ = s.file.Close() }

package netlink

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// waitBound is how long we wait for the kernel to do what it promised.
const waitBound = 5 * time.Second

// Await calls check until it has nothing left to wait for: now, and after each
// event of ev. A nil ev is opened here, in the calling thread's namespace, once
// the first look was not enough. No change is missed: events that came before
// a look are drained before it, and a lost event (ENOBUFS) is an event too. It
// ends by waitBound or ctx's deadline; a ctx cancelled early is seen at the
// next event.
func Await(ctx context.Context, ev *Events, check func() (waitFor string, err error)) error {
	end := time.Now().Add(waitBound)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	for {
		ev.drain()
		waitFor, err := check()
		if err != nil || waitFor == "" {
			return err
		}
		if ev == nil {
			if ev, err = OpenEvents(); err != nil {
				return err
			}
			defer ev.Close()
			continue
		}
		if err := errors.Join(ctx.Err(), ev.wait(time.Until(end))); err != nil {
			return fmt.Errorf("wait for %s: %w", waitFor, err)
		}
	}
}

// Events is a socket that receives link and IPv6 address events of the
// namespace of the thread that opened it.
type Events struct{ fd int }

// OpenEvents subscribes in the calling thread's namespace.
func OpenEvents() (*Events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to netlink events: %w", err)
	}
	return EventsOf(fd)
}

// EventsOf subscribes a rtnetlink socket, and closes it if that fails.
func EventsOf(fd int) (*Events, error) {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV6_IFADDR}); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to netlink events: %w", err), unix.Close(fd))
	}
	return &Events{fd}, nil
}

// wait returns after the next event, whatever it says, or when d has passed.
func (e *Events) wait(d time.Duration) error {
	if d <= 0 {
		return context.DeadlineExceeded
	}
	tv := unix.NsecToTimeval(d.Nanoseconds())
	if err := unix.SetsockoptTimeval(e.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("bound netlink events: %w", err)
	}
	var rest [1]byte // of a message only the first byte is kept
	_, err := unix.Read(e.fd, rest[:])
	switch {
	case err == nil, errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR):
		return nil
	case errors.Is(err, unix.EAGAIN):
		return context.DeadlineExceeded
	}
	return fmt.Errorf("receive netlink events: %w", err)
}

// drain reads what is there already.
func (e *Events) drain() {
	for e != nil {
		var rest [1]byte
		if _, _, err := syscall.Recvfrom(e.fd, rest[:], unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}

// Close ends the subscription; of nil there is none.
func (e *Events) Close() {
	if e != nil {
		_ = unix.Close(e.fd)
	}
}

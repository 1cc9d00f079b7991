package nfnl

import (
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a netfilter socket in the network namespace of the thread that
// opened it. It is not for several goroutines at once.
type Conn struct {
	fd  int
	buf []byte
	out Buffer
}

// The sizes of the buffer that answers are received into, in bytes. The kernel fills it when it sends
// a list, and each page that it fills must be mapped first: a list of rules filled all pages of 32 KiB.
// A longer list takes less time with the larger one: for each part of it the kernel walks a set from
// its beginning. Every answer about an object of ours is smaller than 8 KiB.
const (
	receiveBuffer = 8 << 10
	largeBuffer   = 32 << 10
	// longList is after how many parts of a list, each of which fills more than half of the buffer, it
	// becomes large. Answers about single objects are far smaller.
	longList = 8
)

// groupBuffer holds what a group is told before it is read, in bytes.
const groupBuffer = 4 << 20

// Open returns a new socket.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	return &Conn{fd: fd}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// SetTimeout bounds each wait for an answer; 0 waits for ever. The kernel
// answers while it is asked, so this is for kernels that hang.
func (c *Conn) SetTimeout(d time.Duration) error {
	tv := unix.NsecToTimeval(max(d, 0).Nanoseconds())
	return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// Join has the socket receive what the kernel tells a group, as NFNLGRP_NFTRACE. What comes
// faster than it is read is lost, and is no error.
func (c *Conn) Join(group int) error {
	// A socket without an address counts as the kernel's own, which is told nothing.
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, groupBuffer) // more is lost without it
	return errors.Join(
		unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1),
		unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group))
}

// Port returns the port ID of the socket. The kernel puts it into the events of a change that was made
// through this socket; 0 is the kernel itself.
func (c *Conn) Port() (uint32, error) {
	for bound := false; ; bound = true {
		a, err := unix.Getsockname(c.fd)
		if err != nil {
			return 0, err
		}
		if at, is := a.(*unix.SockaddrNetlink); is && at.Pid != 0 || bound {
			return at.Pid, nil
		}
		if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return 0, err
		}
	}
}

// Buffer returns an empty buffer for the next Send; that of an earlier call is used again, so no
// request may be made while the answers of another one are received.
func (c *Conn) Buffer() *Buffer {
	c.out = Buffer{data: c.out.data[:0]}
	return &c.out
}

// Send sends the buffer in one system call.
func (c *Conn) Send(b *Buffer) error {
	// The kernel takes a message only if it fits into the send buffer.
	if need := len(b.data) + len(b.data)/4 + 4096; need > 128<<10 {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, need); err != nil {
			return err
		}
	}
	for {
		err := unix.Sendto(c.fd, b.data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Enlarge has the socket receive 32 KiB at once, as is needed for rules of others: the kernel ends a
// list, without an error, at a rule that does not fit.
func (c *Conn) Enlarge() {
	if len(c.buf) < largeBuffer {
		c.buf = make([]byte, largeBuffer)
	}
}

// Receive calls fn for every message that comes until it says done. An answer
// that is an error or an acknowledgement has an errno, which may be 0. Answers
// are good until fn returns.
func (c *Conn) Receive(fn func(a Answer, isErr bool, errno unix.Errno) (done bool, err error)) error {
	if c.buf == nil {
		c.buf = make([]byte, receiveBuffer)
	}
	parts := 0
	for try := 0; ; try++ {
		n, err := unix.Read(c.fd, c.buf)
		// The answer tells whether there is something to undo.
		if errors.Is(err, unix.EINTR) || err != nil && try == 0 && !errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return err
		}
		done, err := split(c.buf[:n], fn)
		if done || err != nil {
			return err
		}
		if n > len(c.buf)/2 {
			if parts++; parts == longList {
				c.Enlarge()
			}
		}
	}
}

// Dump sends m, which lists objects, and calls fn with each until the list ends. A
// list that others changed meanwhile may be incomplete: that is unix.ERESTART.
func (c *Conn) Dump(m Message, fn func(Answer) error) error {
	buf := c.Buffer()
	m.Flags |= unix.NLM_F_DUMP
	buf.Add(m)
	if err := c.Send(buf); err != nil {
		return err
	}
	interrupted := false
	err := c.Receive(func(a Answer, isErr bool, errno unix.Errno) (bool, error) {
		interrupted = interrupted || a.Flags&unix.NLM_F_DUMP_INTR != 0
		if isErr && errno != 0 {
			return true, errno
		}
		if isErr {
			return true, nil
		}
		return false, fn(a)
	})
	if err == nil && interrupted {
		return unix.ERESTART
	}
	return err
}

func split(b []byte, fn func(Answer, bool, unix.Errno) (bool, error)) (done bool, err error) {
	for len(b) >= msgHeader && !done && err == nil {
		size := int(binary.NativeEndian.Uint32(b))
		typ := binary.NativeEndian.Uint16(b[4:])
		if typ == unix.NLMSG_ERROR {
			size = min(size, len(b)) // the request follows its errno; the buffer may hold only a part of it
		}
		if size < msgHeader || size > len(b) {
			return false, errShort
		}
		a := Answer{Seq: binary.NativeEndian.Uint32(b[8:]), Type: uint8(typ), Flags: binary.NativeEndian.Uint16(b[6:])}
		body := b[msgHeader:size]
		switch {
		case (typ == unix.NLMSG_ERROR || typ == unix.NLMSG_DONE) && len(body) >= 4:
			done, err = fn(a, true, unix.Errno(-int32(binary.NativeEndian.Uint32(body))))
		case typ >= unix.NLMSG_MIN_TYPE && len(body) >= genHeader:
			a.Attrs = body[genHeader:]
			done, err = fn(a, false, 0)
		}
		b = b[min(align(size), len(b)):]
	}
	return done, err
}

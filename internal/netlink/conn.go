package netlink

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/sentinel"
)

const (
	// dumpTries bounds how often an interrupted dump is read again: each time
	// another program has changed something meanwhile.
	dumpTries = 1000
	// nlmsgerrAttrMsg is NLMSGERR_ATTR_MSG (linux/netlink.h).
	nlmsgerrAttrMsg = 1
)

// errInterrupted is a dump during which the table changed (NLM_F_DUMP_INTR):
// what it gave may be incomplete.
var errInterrupted error = &sentinel.Error{Text: "dump interrupted"}

// Request starts a message of typ.
func Request(typ, flags int, data ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(typ, flags)
	for _, d := range data {
		req.AddData(d)
	}
	return req
}

// Change sends a request that changes something and waits for its acknowledgement.
func (c *Conn) Change(req *nl.NetlinkRequest) error {
	req.Flags |= unix.NLM_F_ACK
	_, err := c.Execute(req, 0)
	return Translate(err)
}

// Get sends a request that asks for one object.
func (c *Conn) Get(req *nl.NetlinkRequest, reply uint16) ([]byte, error) {
	msgs, err := c.Execute(req, reply)
	if err != nil {
		return nil, Translate(err)
	}
	if len(msgs) == 0 {
		return nil, ErrNotFound
	}
	return msgs[0], nil
}

// Dump asks for all objects; build makes the request anew for each try.
func (c *Conn) Dump(build func() *nl.NetlinkRequest, reply uint16) ([][]byte, error) {
	return retry(func() ([][]byte, error) {
		req := build()
		req.Flags |= unix.NLM_F_DUMP
		return c.Execute(req, reply)
	})
}

// retry calls fn again while its dump was interrupted.
func retry[T any](fn func() (T, error)) (T, error) {
	for try := 1; ; try++ {
		v, err := fn()
		interrupted := errors.Is(err, errInterrupted) || errors.Is(err, unix.EINTR)
		if !interrupted || try == dumpTries {
			return v, Translate(err)
		}
	}
}

// DumpEach is dump for what may be many objects: fn gets each, good until it
// returns. start is called before each try.
func (c *Conn) DumpEach(build func() *nl.NetlinkRequest, reply uint16, start func(), fn func(b []byte) error) error {
	_, err := retry(func() (struct{}, error) {
		start()
		req := build()
		req.Flags |= unix.NLM_F_DUMP
		return struct{}{}, c.stream(req, reply, fn)
	})
	return err
}

// Execute sends req and returns the payload of the answers of type reply.
func (c *Conn) Execute(req *nl.NetlinkRequest, reply uint16) ([][]byte, error) {
	var out [][]byte
	err := c.stream(req, reply, func(b []byte) error {
		out = append(out, bytes.Clone(b))
		return nil
	})
	return out, err
}

// stream sends req and calls fn with the payload of each answer of type reply,
// which is valid until fn returns. After an error of fn the rest is read and
// dropped.
func (c *Conn) stream(req *nl.NetlinkRequest, reply uint16, fn func(b []byte) error) error {
	s, err := c.take()
	if err != nil {
		return err
	}
	defer c.give(s)
	r := c.rooms.take()
	defer c.rooms.give(r)
	if err := s.send(req); err != nil {
		return err
	}
	interrupted := false
	var failed error
	for {
		msgs, err := s.receive(r)
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if m.Header.Seq != s.seq {
				continue
			}
			interrupted = interrupted || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Header.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				err := answerError(m)
				if err == nil && interrupted {
					err = errInterrupted
				}
				if err == nil {
					err = failed
				}
				return err
			case reply:
				if failed == nil {
					failed = fn(m.Data)
				}
				if (m.Header.Flags|req.Flags)&(unix.NLM_F_MULTI|unix.NLM_F_ACK) == 0 {
					return failed
				}
			}
		}
	}
}

// DumpSome is a dump that fn may end by asking for no more: it has a socket of
// its own, with which the rest goes. It reports false for one that ended so, or
// during which the table changed.
func (c *Conn) DumpSome(req *nl.NetlinkRequest, reply uint16, fn func(b []byte) (more bool, err error)) (whole bool, err error) {
	s, err := openBeside(c.first)
	if err != nil {
		return false, err
	}
	defer s.close()
	r := c.rooms.take()
	defer c.rooms.give(r)
	req.Flags |= unix.NLM_F_DUMP
	if err := s.send(req); err != nil {
		return false, err
	}
	for {
		msgs, err := s.receive(r)
		if err != nil {
			return false, err
		}
		for _, m := range msgs {
			interrupted := m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			if m.Header.Type != reply {
				return m.Header.Type == unix.NLMSG_DONE && !interrupted, nil
			}
			if interrupted {
				return false, nil
			}
			if more, err := fn(m.Data); err != nil || !more {
				return false, err
			}
		}
	}
}

// kernelError is an errno with the kernel's text. Of many answers only the errno matters: the
// message is put together when it is read.
type kernelError struct {
	errno unix.Errno
	text  string
}

func (e *kernelError) Error() string { return e.errno.Error() + ": " + e.text }
func (e *kernelError) Unwrap() error { return e.errno }

// answerError reads the errno that ends an answer, with the kernel's text.
func answerError(m syscall.NetlinkMessage) error {
	if len(m.Data) < 4 {
		return nil // a plain end
	}
	errno := -Number(m.Data)
	if errno == 0 {
		return nil
	}
	err := error(unix.Errno(errno))
	rest := m.Data[4:]
	if m.Header.Type == unix.NLMSG_ERROR {
		if m.Header.Flags&unix.NLM_F_CAPPED == 0 || len(rest) < unix.SizeofNlMsghdr {
			return err // before 4.3 the whole request comes first, and no text
		}
		rest = rest[unix.SizeofNlMsghdr:]
	}
	if m.Header.Flags&unix.NLM_F_ACK_TLVS == 0 {
		return err
	}
	_ = EachAttr(rest, func(typ uint16, v []byte) error {
		if typ == nlmsgerrAttrMsg {
			err = &kernelError{unix.Errno(errno), Text(v)}
		}
		return nil
	})
	return err
}

// Translate gives an errno our sentinel.
func Translate(err error) error {
	var sentinel error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT):
		sentinel = ErrNotFound
	case errors.Is(err, unix.EEXIST):
		sentinel = ErrExists
	case errors.Is(err, unix.EXFULL):
		sentinel = ErrBridgeFull
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		sentinel = ErrUnsupported
	default:
		return err
	}
	return fmt.Errorf("%w: %w", sentinel, err)
}

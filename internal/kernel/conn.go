package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// dumpTries bounds how often an interrupted dump is read again: each time
	// somebody else has changed something meanwhile.
	dumpTries = 1000
	// receiveSize holds what the kernel sends at once: at most 32 KiB less the
	// 320 bytes of its skb_shared_info. What is above 32 KiB less 8 bytes Go
	// allocates another way, at the price of three page faults.
	receiveSize = 32<<10 - 256
	// nlmsgerrAttrMsg is NLMSGERR_ATTR_MSG (linux/netlink.h).
	nlmsgerrAttrMsg = 1
)

// errInterrupted is a dump during which the table changed (NLM_F_DUMP_INTR):
// what it gave may be incomplete.
var errInterrupted = errors.New("dump interrupted")

// conn is a rtnetlink socket. It stays in the namespace of the thread that
// opened it, whatever thread uses it. nl's own socket was tried and dropped:
// it takes 64 KiB afresh for each answer, which in a short-lived process are
// page faults, and v1.3.1 panics on the error text of a dump.
type conn struct {
	fd  int
	seq uint32
	buf []byte

	msgs []syscall.NetlinkMessage // of the last receive
}

func openConn() (*conn, error) { return openConnOver(make([]byte, receiveSize)) }

// openConnOver is openConn with the buffer of another conn that is not used at
// the same time: a page less for the kernel to map.
func openConnOver(buf []byte) (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return connOf(fd, buf), nil
}

// connOf makes a conn of a rtnetlink socket.
func connOf(fd int, buf []byte) *conn {
	// These only improve what we get: error texts (kernel 4.12), short errors
	// (4.3) and dumps filtered by the kernel (4.20), which we filter as well.
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1)
	}
	// The kernel has answered when send returns; this is for an answer it lost.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	return &conn{fd: fd, buf: buf}
}

func (c *conn) close() { _ = unix.Close(c.fd) }

// request starts a message of typ.
func request(typ, flags int, data ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(typ, flags)
	for _, d := range data {
		req.AddData(d)
	}
	return req
}

// change sends a request that changes something and waits for its acknowledgement.
func (c *conn) change(req *nl.NetlinkRequest) error {
	req.Flags |= unix.NLM_F_ACK
	_, err := c.execute(req, 0)
	return translate(err)
}

// get sends a request that asks for one object. The answer is valid until the
// next request.
func (c *conn) get(req *nl.NetlinkRequest, reply uint16) ([]byte, error) {
	msgs, err := c.execute(req, reply)
	if err != nil {
		return nil, translate(err)
	}
	if len(msgs) == 0 {
		return nil, ErrNotFound
	}
	return msgs[0], nil
}

// dump asks for all objects; build makes the request anew for each try.
func (c *conn) dump(build func() *nl.NetlinkRequest, reply uint16) ([][]byte, error) {
	return retry(func() ([][]byte, error) {
		req := build()
		req.Flags |= unix.NLM_F_DUMP
		return c.execute(req, reply)
	})
}

// retry calls fn again while its dump was interrupted.
func retry[T any](fn func() (T, error)) (T, error) {
	for try := 1; ; try++ {
		v, err := fn()
		interrupted := errors.Is(err, errInterrupted) || errors.Is(err, unix.EINTR)
		if !interrupted || try == dumpTries {
			return v, translate(err)
		}
	}
}

// dumpEach is dump for what may be many objects: fn gets each, good until it
// returns. start is called before each try.
func (c *conn) dumpEach(build func() *nl.NetlinkRequest, reply uint16, start func(), fn func(b []byte) error) error {
	_, err := retry(func() (struct{}, error) {
		start()
		req := build()
		req.Flags |= unix.NLM_F_DUMP
		return struct{}{}, c.stream(req, reply, fn)
	})
	return err
}

// execute sends req and returns the payload of the answers of type reply. They
// are valid until the next request, those of a dump for ever.
func (c *conn) execute(req *nl.NetlinkRequest, reply uint16) ([][]byte, error) {
	var out [][]byte
	err := c.stream(req, reply, func(b []byte) error {
		if req.Flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP {
			b = bytes.Clone(b)
		}
		out = append(out, b)
		return nil
	})
	return out, err
}

// stream sends req and calls fn with the payload of each answer of type reply,
// which is valid until the next request, that of a dump until fn returns. After
// an error of fn the rest is read and dropped.
func (c *conn) stream(req *nl.NetlinkRequest, reply uint16, fn func(b []byte) error) error {
	c.seq++
	req.Seq = c.seq
	if err := unix.Sendto(c.fd, req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to rtnetlink: %w", err)
	}
	dump := req.Flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	interrupted := false
	var failed error
	for room := c.buf; ; {
		msgs, n, err := c.receive(room)
		if err != nil {
			return err
		}
		if !dump { // one answer and an acknowledgement
			room = room[n:]
		}
		for _, m := range msgs {
			if m.Header.Seq != c.seq {
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

// receive reads the next messages from the kernel into buf, and returns how
// many bytes of it they take.
func (c *conn) receive(buf []byte) ([]syscall.NetlinkMessage, int, error) {
	for try := 0; ; try++ {
		n, _, flags, from, err := unix.Recvmsg(c.fd, buf, nil, 0)
		// The answer tells whether there is something to undo.
		if errors.Is(err, unix.EINTR) || err != nil && try == 0 && !errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err == nil && flags&unix.MSG_TRUNC != 0 {
			err = unix.EMSGSIZE
		}
		if err != nil {
			return nil, 0, fmt.Errorf("receive from rtnetlink: %w", err)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not the kernel
		}
		err = c.split(buf[:n])
		return c.msgs, n, err
	}
}

// split is syscall.ParseNetlinkMessage, but for that it fills the same slice
// each time: a dump of a thousand entries has as many messages.
func (c *conn) split(b []byte) error {
	c.msgs = c.msgs[:0]
	for len(b) >= unix.NLMSG_HDRLEN {
		h := syscall.NlMsghdr{
			Len: binary.NativeEndian.Uint32(b), Type: binary.NativeEndian.Uint16(b[4:]), Flags: binary.NativeEndian.Uint16(b[6:]),
			Seq: binary.NativeEndian.Uint32(b[8:]), Pid: binary.NativeEndian.Uint32(b[12:]),
		}
		if h.Len < unix.NLMSG_HDRLEN || int(h.Len) > len(b) {
			return errShort
		}
		c.msgs = append(c.msgs, syscall.NetlinkMessage{Header: h, Data: b[unix.NLMSG_HDRLEN:h.Len]})
		b = b[min(len(b), (int(h.Len)+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return nil
}

// answerError reads the errno that ends an answer, with the kernel's text.
func answerError(m syscall.NetlinkMessage) error {
	if len(m.Data) < 4 {
		return nil // a plain end
	}
	errno := -number(m.Data)
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
	_ = eachAttr(rest, func(typ uint16, v []byte) error {
		if typ == nlmsgerrAttrMsg {
			err = fmt.Errorf("%w: %s", err, text(v))
		}
		return nil
	})
	return err
}

// translate gives an errno our sentinel.
func translate(err error) error {
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

package netlink

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netns"
)

// Enter brings the calling goroutine's thread into the namespace of the sockets and
// keeps the goroutine on it, until leave is called, once. A thread that is there
// already stays as it is. Goroutines that are started meanwhile run elsewhere,
// processes in the namespace. A leave that fails keeps the goroutine on the
// thread, which ends with it.
func (c *Conn) Enter() (leave func() error, err error) {
	n, err := c.namespace()
	if err != nil {
		return nil, err
	}
	defer func() { _ = n.Close() }()
	runtime.LockOSThread()
	here, err := n.IsCurrent()
	if err == nil && here {
		return func() error { runtime.UnlockOSThread(); return nil }, nil
	}
	defer runtime.UnlockOSThread()
	if err != nil {
		return nil, err
	}
	return n.Enter()
}

// namespace opens the namespace of the sockets.
func (c *Conn) namespace() (*netns.Namespace, error) { return netns.OfSocket(c.first) }

// In runs fn with rtnetlink of n, on a thread in n.
func In(n *netns.Namespace, fn func(*Conn) error) error {
	return n.Do(func() error {
		c, err := Open()
		if err != nil {
			return err
		}
		defer c.Close()
		return fn(c)
	})
}

// Of runs fn with rtnetlink of n. The thread stays where it is: what fn opens is not of n.
func Of(n *netns.Namespace, fn func(*Conn) error) error { return of(n, newRooms(ReceiveSize), fn) }

// Of is as the function Of, with the buffers of c.
func (c *Conn) Of(n *netns.Namespace, fn func(*Conn) error) error { return of(n, c.rooms, fn) }

func of(n *netns.Namespace, r *rooms, fn func(*Conn) error) error {
	fd, err := openSocketOf(n)
	if err != nil {
		return err
	}
	c := connOf(fd, r)
	defer c.Close()
	return fn(c)
}

func openSocketOf(n *netns.Namespace) (fd int, err error) {
	if fds, ok := n.OpenInside(nil, ""); ok {
		return fds[0], nil
	}
	err = n.Do(func() (err error) { // for its error
		fd, err = openSocket()
		return err
	})
	return fd, err
}

// DeviceIn reads a link inside n.
func DeviceIn(n *netns.Namespace, name string) (d *Device, err error) {
	err = Of(n, func(c *Conn) error {
		d, err = c.Device(name)
		return err
	})
	return d, err
}

// NSID returns the number under which c's namespace knows n, -1 for none. The
// kernel gives one when a veth pair first spans the two.
func (c *Conn) NSID(n *netns.Namespace) (int, error) {
	req := Request(unix.RTM_GETNSID, 0, &rtgenmsg{}, AttrUint32(unix.NETNSA_FD, uint32(n.FD())))
	b, err := c.Get(req, unix.RTM_NEWNSID)
	if err != nil {
		return -1, fmt.Errorf("read nsid of %q: %w", n.Path(), err)
	}
	id := -1
	err = EachAttr(b[min(len(b), (&rtgenmsg{}).Len()):], func(typ uint16, v []byte) error {
		if typ == unix.NETNSA_NSID {
			id = Number(v)
		}
		return nil
	})
	return id, err
}

// rtgenmsg is struct rtgenmsg for AF_UNSPEC, padded.
type rtgenmsg struct{}

func (*rtgenmsg) Len() int          { return 4 }
func (*rtgenmsg) Serialize() []byte { return make([]byte, 4) }

// HasDevice says whether a namespace has an interface of that name.
func HasDevice(n *netns.Namespace, name string) (has bool, err error) {
	err = In(n, func(c *Conn) error {
		_, err := c.Device(name)
		if has = err == nil; errors.Is(err, ErrNotFound) {
			err = nil
		}
		return err
	})
	return has, err
}

package kernel

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Enter brings the calling goroutine's thread into the namespace of the sockets and
// keeps the goroutine on it, until leave is called, once. A thread that is there
// already stays as it is. Goroutines that are started meanwhile run elsewhere,
// processes in the namespace. A leave that fails keeps the goroutine on the
// thread, which ends with it.
func (c *conn) Enter() (leave func() error, err error) {
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
	return n.enter()
}

// namespace opens the namespace of the sockets.
func (c *conn) namespace() (*Netns, error) { return OfSocket(c.first) }

// withConn runs fn with rtnetlink of n, on a thread in n.
func withConn(n *Netns, fn func(*conn) error) error {
	return n.Do(func() error {
		c, err := openConn()
		if err != nil {
			return err
		}
		defer c.close()
		return fn(c)
	})
}

// deviceIn reads a link inside n.
func deviceIn(n *Netns, name string) (d *device, err error) {
	err = withConn(n, func(c *conn) error {
		d, err = c.device(name)
		return err
	})
	return d, err
}

// nsid returns the number under which c's namespace knows n, -1 for none. The
// kernel gives one when a veth pair first spans the two.
func (c *conn) nsid(n *Netns) (int, error) {
	req := request(unix.RTM_GETNSID, 0, &rtgenmsg{}, attrUint32(unix.NETNSA_FD, uint32(n.FD())))
	b, err := c.get(req, unix.RTM_NEWNSID)
	if err != nil {
		return -1, fmt.Errorf("read nsid of %q: %w", n.Path(), err)
	}
	id := -1
	err = eachAttr(b[min(len(b), (&rtgenmsg{}).Len()):], func(typ uint16, v []byte) error {
		if typ == unix.NETNSA_NSID {
			id = number(v)
		}
		return nil
	})
	return id, err
}

// rtgenmsg is struct rtgenmsg for AF_UNSPEC, padded.
type rtgenmsg struct{}

func (*rtgenmsg) Len() int          { return 4 }
func (*rtgenmsg) Serialize() []byte { return make([]byte, 4) }

package link

import (
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// TestReuse gives the address of a container that is gone to a new one, with
// another MAC. The host still has the old MAC in its neighbour table; it must
// learn of the new one at once, not after the seconds its own probing takes.
func TestReuse(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	n := newNetns(t)
	mustBridge(t, h, testBridge())
	l := testLink(n)
	// A bridge without ports has no carrier and forgets its neighbours.
	mustAttach(t, h, Link{Owner: "x", HostName: "vethx", Bridge: "br0", Netns: newNetns(t), IfName: "eth0"})
	here := func(fn func() error) error { return fn() }
	for _, addr := range []string{"10.1.0.2:80", "[fd00:1::2]:80"} {
		for i := range 2 {
			mustAttach(t, h, l)
			if err := reach(n.Do, here, addr); err != nil {
				t.Errorf("%s, attachment %d: %v", addr, i, err)
			}
			mustDetach(t, h, l)
		}
	}
}

// TestReach sends bytes between two containers and from one to the gateway.
func TestReach(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	b := testBridge()
	mustBridge(t, h, b)
	n1, n2 := newNetns(t), newNetns(t)
	mustAttach(t, h, testLink(n1))
	l2 := testLink(n2)
	l2.HostName, l2.Owner, l2.Addrs = "vethc2", "libnet:net1/c2/eth0", lntest.Prefixes("10.1.0.3/24", "fd00:1::3/64")
	mustAttach(t, h, l2)
	here := func(fn func() error) error { return fn() }
	for _, tt := range []struct {
		name, addr string
		server     func(func() error) error
	}{
		{"container v4", "10.1.0.3:80", n2.Do}, {"container v6", "[fd00:1::3]:80", n2.Do},
		{"gateway v4", "10.1.0.1:80", here}, {"gateway v6", "[fd00:1::1]:80", here},
	} {
		if err := reach(tt.server, n1.Do, tt.addr); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// reach connects from one namespace to another over TCP.
func reach(server, client func(func() error) error, addr string) error {
	var l net.Listener
	if err := server(func() (err error) { l, err = net.Listen("tcp", addr); return err }); err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()
	return client(func() error {
		// An address may wait for a kernel worker, and the next SYN for seconds.
		c, err := lntest.Dial("tcp", addr, lntest.WaitForAnswer)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		b, err := io.ReadAll(c)
		if err == nil && string(b) != "hello" {
			err = fmt.Errorf("got %q", b)
		}
		return err
	})
}

package netlink

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Many goroutines use one Conn at once: each gets its own answers, and all that
// they make is in its namespace, though their threads are not.
func TestConnShared(t *testing.T) {
	t.Parallel()
	c := newConn(t)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 10 {
				if err := vethOnce(c, fmt.Sprintf("p%d", i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := lntest.LinkNames(t); got != "lo" {
		t.Errorf("links are %q", got)
	}
	if n := len(c.idle); n < 2 || n > maxIdle+1 {
		t.Errorf("%d sockets are kept, want from 2 to %d", n, maxIdle+1)
	}
	c.Close()
	if _, err := c.Device("lo"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: got %v, want %v", err, net.ErrClosed)
	}
}

func vethOnce(c *Conn, name string) error {
	mac := RandomMAC()
	err := c.Change(Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC),
		AttrString(unix.IFLA_IFNAME, name), Attr(unix.IFLA_ADDRESS, mac),
		Nest(unix.IFLA_LINKINFO, Attr(nl.IFLA_INFO_KIND, []byte("veth")))))
	if err != nil {
		return err
	}
	d, err := c.Device(name)
	if err != nil {
		return err
	}
	if d.Name != name || d.MAC.String() != mac.String() {
		return fmt.Errorf("asked for %s (%s), got %s (%s)", name, mac, d.Name, d.MAC)
	}
	return c.DeleteLink(d.Index)
}

package link

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// TestVerify changes one thing by hand at a time, in this order, and expects it to be named.
func TestVerify(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	n := newNetns(t)
	mustBridge(t, h, testBridge())
	l := testLink(n)
	l.MTU = 1400
	a := mustAttach(t, h, l)
	l.MAC = a.MAC
	host := func(set, mask uint32, attrs ...*nl.RtAttr) func() error {
		return func() error { return h.conn.SetLink(a.HostIndex, set, mask, attrs...) }
	}
	cont := func(fn func(c *netlink.Conn) error) func() error {
		return func() error { return netlink.In(n, fn) }
	}
	mtu := netlink.AttrUint32(unix.IFLA_MTU, 1300)
	for _, tt := range []struct {
		want   string
		change func() error
	}{
		{"host interface vethc1: alias is \"x\"", host(0, 0, netlink.Attr(unix.IFLA_IFALIAS, []byte("x")))},
		{"host interface vethc1: MTU is 1300, want 1400", host(0, 0, mtu)},
		{"interface eth0: MTU is 1300, want 1400", cont(func(c *netlink.Conn) error { return c.SetLink(a.Index, 0, 0, mtu) })},
		{"interface eth0: address 10.1.0.2/24 is missing", cont(func(c *netlink.Conn) error { return c.RemoveAddr(a.Index, l.Addrs[0]) })},
		{"interface eth0: address fd00:1::2/64 is missing", cont(func(c *netlink.Conn) error { return c.RemoveAddr(a.Index, l.Addrs[1]) })},
		{"interface eth0: MAC is 02:00:00:00:00:07", cont(func(c *netlink.Conn) error {
			return c.SetLink(a.Index, 0, 0, netlink.Attr(unix.IFLA_ADDRESS, []byte{2, 0, 0, 0, 0, 7}))
		})},
		{"interface eth0 is down", cont(func(c *netlink.Conn) error { return c.SetLink(a.Index, 0, unix.IFF_UP) })},
		{"interface eth0: route 0.0.0.0/0 via 10.1.0.1 is missing", func() error { return nil }},
		{"interface eth0: route ::/0 via fd00:1::1 is missing", func() error { return nil }},
		{"isolated is true, want false", host(0, 0, portFlag(nl.IFLA_BRPORT_ISOLATED))},
		{"host interface vethc1 is down", host(0, unix.IFF_UP)},
		{"is not a port of br0", host(0, 0, netlink.AttrUint32(unix.IFLA_MASTER, 0))},
	} {
		if err := h.Verify(t.Context(), l); strings.Contains(fmt.Sprint(err), tt.want) && !strings.Contains(tt.want, "route") {
			t.Errorf("%q before the change", tt.want)
		}
		if err := tt.change(); err != nil {
			t.Fatalf("%s: %v", tt.want, err)
		}
		if err := h.Verify(t.Context(), l); !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
	l.Bridge = "br1"
	if err := h.Verify(t.Context(), l); !strings.Contains(fmt.Sprint(err), "bridge br1: not found") {
		t.Errorf("got %v", err)
	}
	mustDetach(t, h, Link{Owner: "x", HostName: l.HostName})
	err := h.Verify(t.Context(), l)
	if !errors.Is(err, netlink.ErrNotFound) || !strings.Contains(err.Error(), "vethc1") || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("got %v", err)
	}
}

func portFlag(typ int) *nl.RtAttr {
	return netlink.Nest(unix.IFLA_LINKINFO, netlink.Attr(nl.IFLA_INFO_SLAVE_KIND, []byte("bridge")),
		netlink.Nest(nl.IFLA_INFO_SLAVE_DATA, netlink.AttrBool(typ, true)))
}

// TestVerifyPeer swaps the container's interface for a stranger's.
func TestVerifyPeer(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	n, m := newNetns(t), newNetns(t)
	mustBridge(t, h, testBridge())
	l := testLink(n)
	l.Addrs, l.Routes = nil, nil
	mustAttach(t, h, l)
	other := l
	other.Netns, other.HostName, other.Owner = m, "vethc2", "x"
	mustAttach(t, h, other)
	l.Netns = m
	if err := h.Verify(t.Context(), l); !strings.Contains(fmt.Sprint(err), "not the other end") {
		t.Errorf("got %v", err)
	}
}

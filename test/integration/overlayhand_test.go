package integration

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// CHECK reports what the operator changed of a tunnel by hand, and the next
// STATUS of the network mends it.
func TestOverlayByHand(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(c *cluster, vx netlink.Link)
		want string // in CHECK's message
	}{
		"device deleted": {func(c *cluster, vx netlink.Link) { c.check(netlink.LinkDel(vx)) }, "not found"},
		"device down":    {func(c *cluster, vx netlink.Link) { c.check(netlink.LinkSetDown(vx)) }, "is down"},
		"route deleted": {func(c *cluster, vx netlink.Link) {
			c.check(netlink.RouteDel(&netlink.Route{Dst: ipNet(c, "10.80.1.0/24"), LinkIndex: vx.Attrs().Index}))
		}, "route 10.80.1.0/24"},
		"IPv6 route deleted": {func(c *cluster, vx netlink.Link) {
			c.check(netlink.RouteDel(&netlink.Route{Dst: ipNet(c, "fd80:0:0:1::/64"), LinkIndex: vx.Attrs().Index}))
		}, "route fd80:0:0:1::/64"},
		"neighbour deleted": {func(c *cluster, vx netlink.Link) {
			c.check(netlink.NeighDel(&netlink.Neigh{LinkIndex: vx.Attrs().Index, IP: netip.MustParseAddr("10.80.1.0").AsSlice()}))
		}, "neighbour 10.80.1.0"},
		"forwarding entry deleted": {func(c *cluster, vx netlink.Link) {
			all, err := netlink.NeighList(vx.Attrs().Index, unix.AF_BRIDGE)
			c.check(err)
			for _, n := range all {
				n.Flags, n.Family = unix.NTF_SELF, unix.AF_BRIDGE
				c.check(netlink.NeighDel(&n))
			}
		}, "forwarding entry"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 2, 1500, false)
			near, far := c.add(0, "h1", nil), c.add(0, "h2", nil)
			status := call{plugin: "overlay-ln", command: "STATUS", stdin: near.call.stdin}
			c.mustOn("h1", status)
			check := near.call.as("CHECK")
			check.stdin = edit(t, check.stdin, map[string]any{"prevResult": decode(t, c.mustOn("h1", near.call.as("ADD")).stdout)})
			c.mustOn("h1", check)
			vx := c.tunnelOf("h1")
			c.in(netnsPath("h1"), func() {
				l, err := netlink.LinkByName(vx)
				c.check(err)
				tt.do(c, l)
			})
			if r := c.try(check); r.code != 103 || !strings.Contains(r.msg, tt.want) {
				t.Errorf("CHECK: code %d, %q, want 103 and %q", r.code, r.msg, tt.want)
			}
			c.mustOn("h1", status) // mends
			c.mustOn("h1", check)
			next := near.call
			next.cid, next.netns = "next", c.netns("next")
			c.mustOn("h1", next.as("ADD"))
			c.mustOn("h1", status)
			c.mustOn("h1", check)
			for _, a := range far.addresses {
				c.ping(near.netns, a)
				c.ping(next.netns, a)
			}
		})
	}
}

func ipNet(c *cluster, s string) *net.IPNet {
	to, err := netlink.ParseIPNet(s)
	c.check(err)
	return to
}

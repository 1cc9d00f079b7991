package integration

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// An ADD goes through a list of hosts that one before it has seen to where what tells has
// changed since: it then puts back all that packets to the other hosts need.
func TestOverlaySeen(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(c *cluster, vx netlink.Link)
		goesOn bool // what was noted counts
	}{
		"nothing":        {func(*cluster, netlink.Link) {}, true},
		"device deleted": {func(c *cluster, vx netlink.Link) { c.check(netlink.LinkDel(vx)) }, false},
		"device down":    {func(c *cluster, vx netlink.Link) { c.check(netlink.LinkSetDown(vx)) }, false},
		"routes flushed": {func(c *cluster, vx netlink.Link) {
			c.check(netlink.LinkSetDown(vx))
			c.check(netlink.LinkSetUp(vx))
		}, false},
		"rules flushed": {func(c *cluster, _ netlink.Link) {
			c.check(exec.Command("nft", "flush", "ruleset").Run())
		}, true},
		"record lost": {func(c *cluster, vx netlink.Link) {
			c.check(exec.Command("rm", "/run/libnet-h1/networks/net0/network.json").Run())
			c.check(netlink.NeighDel(&netlink.Neigh{LinkIndex: vx.Attrs().Index, IP: netip.MustParseAddr("10.80.1.0").AsSlice()}))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 2, 1500, false)
			near, far := c.add(0, "h1", nil), c.add(0, "h2", nil)
			noted := func() string {
				out, err := exec.Command("stat", "-c", "%i %Y", "/run/libnet-h1/networks/net0/hosts").CombinedOutput()
				c.check(err)
				return string(out)
			}
			before := noted()
			c.in(netnsPath("h1"), func() {
				vx, err := netlink.LinkByName(c.tunnelOf("h1"))
				c.check(err)
				tt.change(c, vx)
			})
			next := near.call
			next.cid, next.netns = "next", c.netns("next")
			c.mustOn("h1", next.as("ADD"))
			if same := noted() == before; same != tt.goesOn {
				t.Errorf("what was noted still counts: %v, want %v", same, tt.goesOn)
			}
			for _, a := range far.addresses {
				c.ping(near.netns, a)
				c.ping(next.netns, a)
			}
			check := next.as("CHECK")
			status := call{plugin: "overlay-ln", command: "STATUS", stdin: near.call.stdin}
			c.mustOn("h1", status)
			c.mustOn("h1", next.as("DEL"))
			check.stdin = edit(t, near.call.stdin, map[string]any{"prevResult": decode(t, c.mustOn("h1", near.call.as("ADD")).stdout)})
			check.cid, check.netns = near.call.cid, near.call.netns
			c.mustOn("h1", check)
		})
	}
}

// Another list is another list, and the configuration is edited back and forth: the tunnel
// leads to the hosts of the last one.
func TestOverlaySeenEdited(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, 1500, false)
	near := c.add(0, "h1", nil)
	nodes := func(n int) keys {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf("192.0.2.%d", i+1))
		}
		return keys{"nodes": all}
	}
	for i, n := range []int{2, 200, 2, 2, 200, 200, 3} {
		next := near.call
		next.cid, next.netns = fmt.Sprint("c", i), c.netns(fmt.Sprint("c", i))
		next.stdin = edit(t, next.stdin, nodes(n))
		c.mustOn("h1", next.as("ADD"))
		c.in(netnsPath("h1"), func() {
			out, err := exec.Command("ip", "-4", "route", "show", "dev", c.tunnelOf("h1"), "proto", "108").Output()
			c.check(err)
			if got := strings.Count(string(out), "\n"); got != n-1 {
				t.Errorf("ADD number %d: %d routes lead to other hosts, want %d", i, got, n-1)
			}
			out, err = exec.Command("nft", "list", "ruleset").Output()
			c.check(err)
			if last := fmt.Sprintf("192.0.2.%d", n); !strings.Contains(string(out), last) || strings.Contains(string(out), "192.0.2.200") != (n == 200) {
				t.Errorf("ADD number %d: the rules are not those of %d hosts", i, n)
			}
		})
	}
}

package integration

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// A UDP port that something else has is said by key, value and holder, of
// STATUS before any container, and of ADD, which leaves nothing. A plain VXLAN
// device beside is no obstacle.
func TestOverlayPortInUse(t *testing.T) {
	for _, tt := range []struct {
		name  string
		take  func(c *cluster) (give func())
		says  string
		under bool // IPv6
	}{
		{"external VXLAN", func(c *cluster) func() { return c.vxlan("ext0", true) }, "VXLAN device ext0", false},
		{"external VXLAN, IPv6", func(c *cluster) func() { return c.vxlan("ext0", true) }, "VXLAN device ext0", true},
		{"program", func(c *cluster) func() {
			p, err := net.ListenPacket("udp4", ":4789")
			c.check(err)
			return func() { c.check(p.Close()) }
		}, "process ", false},
		{"plain VXLAN", func(c *cluster) func() { return c.vxlan("plain0", false) }, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 2, 1500, tt.under)
			var give func()
			var before snapshot
			c.in(netnsPath("h1"), func() { give = tt.take(c) })
			add := attachment("overlay-ln", "c1", c.netns("c1"), c.conf(0, "h1", nil))
			c.in(netnsPath("h1"), func() { before = c.snapshot() })
			for _, verb := range []call{{plugin: "overlay-ln", command: "STATUS", stdin: c.conf(0, "h1", nil)}, add.as("ADD")} {
				r := c.try(verb)
				if tt.says == "" && r.code == 0 {
					continue
				}
				if tt.says == "" || r.code != 7 || !strings.Contains(r.msg, "port: 4789: UDP port is in use (by "+tt.says) {
					t.Errorf("%s: code %d, %q, want 7 and %q", verb.command, r.code, r.msg, tt.says)
				}
			}
			if tt.says == "" {
				return
			}
			c.in(netnsPath("h1"), func() { c.sameBut(before, "fe80::"); give() })
			c.mustOn("h1", add.as("ADD"))
		})
	}
}

// vxlan makes a VXLAN device on UDP port 4789, in the host of the calling thread.
func (c *cluster) vxlan(name string, external bool) (remove func()) {
	c.t.Helper()
	l := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: name}, Port: 4789, FlowBased: external}
	if !external {
		l.VxlanId = 4242
	}
	c.check(netlink.LinkAdd(l))
	c.check(netlink.LinkSetUp(l))
	return func() { c.check(netlink.LinkDel(l)) }
}

// A network without containers does not stand in the way of the one that takes its place:
// another name with the same subnet, or with the same VNI. A network with a container does, and
// the error names it; nothing of it is touched.
func TestOverlaySuccessor(t *testing.T) {
	for name, keys := range map[string]map[string]any{
		"same subnet": {},
		"same VNI":    {"subnet": "10.90.0.0/16", "vni": 77},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 2, 1500, false)
			first := merge(keys, map[string]any{"subnet": "10.80.0.0/16"})
			old := c.add(0, "h1", first)
			next := attachment("overlay-ln", "next", c.netns("next"), c.conf(0, "h1", merge(map[string]any{"name": "next", "subnet": "10.80.0.0/16"}, keys)))
			r := c.try(next.as("ADD"))
			if r.code != 7 || strings.Count(r.msg, `"net0"`) != 1 {
				t.Errorf("beside a container: code %d, %q, want 7 and the network", r.code, r.msg)
			}
			c.ping(netnsPath("h1"), old.addresses[0])
			c.mustOn("h1", old.call.as("DEL"))
			c.mustOn("h1", next.as("ADD"))
			c.in(netnsPath("h1"), func() {
				links, err := netlink.LinkList()
				c.check(err)
				var left []error
				for _, l := range links {
					if strings.HasPrefix(l.Attrs().Alias, "libnet:net0/") {
						left = append(left, fmt.Errorf("%s of the old network is still there", l.Attrs().Name))
					}
				}
				c.check(errors.Join(left...))
			})
			c.mustOn("h1", next.as("DEL"))
			c.mustOn("h1", old.call.as("ADD")) // and back
		})
	}
}

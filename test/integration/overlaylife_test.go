package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// After DEL only the network is left, and after GC with an empty list not even
// that. DEL and GC need neither nodes nor subnet.
func TestOverlayEnds(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, 1500, false)
	var before snapshot
	c.in(netnsPath("h1"), func() { before = c.snapshot() })
	p := c.add(0, "h1", nil)
	loose := edit(t, p.call.stdin, map[string]any{"nodes": 5, "subnet": nil})
	for range 2 {
		c.mustOn("h1", p.call.as("DEL").with(loose))
	}
	c.tunnelOf("h1")
	c.mustOn("h1", call{plugin: "overlay-ln", command: "GC", stdin: edit(t, loose, map[string]any{"cni.dev/valid-attachments": []string{}})})
	c.in(netnsPath("h1"), func() { c.sameBut(before, "") })
}

// An ADD that cannot make the tunnel leaves nothing.
func TestOverlayAddFails(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, 1500, false)
	c.setAddress(netnsPath("h1"), "eth0", "10.80.1.7/24") // a LAN where the block of h2 is
	var before snapshot
	netns := c.netns("c1")
	c.in(netnsPath("h1"), func() { before = c.snapshot() })
	r := c.try(attachment("overlay-ln", "c1", netns, c.conf(0, "h1", nil)).as("ADD"))
	if r.code != 7 || !strings.Contains(r.msg, "10.80.1.0/24") {
		t.Errorf("code %d, %q, want 7, and the route", r.code, r.msg)
	}
	c.in(netnsPath("h1"), func() { c.same(before) })
}

// The MTU of containers is that of the way to the other hosts, less what VXLAN
// adds; what fits goes through in one piece.
func TestOverlayMTU(t *testing.T) {
	for _, tt := range []struct {
		is6  bool
		path int
		keys map[string]any
		want int
	}{
		{false, 1400, nil, 1350},
		{true, 1400, nil, 1330},
		{false, 9000, nil, 8950},
		{false, 1500, map[string]any{"mtu": 1300}, 1300},
	} {
		t.Run(fmt.Sprint(tt.is6, tt.path), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 2, tt.path, tt.is6)
			near, far := c.add(0, "h1", tt.keys), c.add(0, "h2", tt.keys)
			c.in(near.netns, func() {
				l, err := netlink.LinkByName("eth0")
				c.check(err)
				if got := l.Attrs().MTU; got != tt.want {
					t.Errorf("MTU %d, want %d", got, tt.want)
				}
			})
			c.ping(near.netns, far.addresses[0])
		})
	}
}

// isolated keeps only hosts out; internal keeps out all but the
// network's own. That holds, too, where a host forwards IPv6 before it has the
// network: then the first address of each block, which is its own, is anycast.
func TestOverlayShut(t *testing.T) {
	for key, hostReaches := range map[string]bool{"isolated": false, "internal": true} {
		for _, forwards := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, forwards %t", key, forwards), func(t *testing.T) { testOverlayShut(t, key, hostReaches, forwards) })
		}
	}
}

func testOverlayShut(t *testing.T, key string, hostReaches, forwards bool) {
	t.Parallel()
	c := newCluster(t, 2, 1500, false)
	if forwards {
		for _, h := range c.hosts {
			c.in(netnsPath(h), func() { c.check(lntest.Sysctl("ipv6/conf/all/forwarding", "1")) })
		}
	}
	keys := map[string]any{key: true}
	near, far := c.add(0, "h1", keys), c.add(0, "h2", keys)
	for _, a := range append(near.addresses, far.addresses...) {
		c.ping(near.netns, a)
		if hostReaches {
			c.ping(netnsPath("h1"), a)
		} else {
			c.noPing(netnsPath("h1"), a)
		}
	}
	reached := key == "isolated"
	if out := c.echo(near.netns, c.address(1), pick2(reached, pingWait, noPingWait)); (out == nil) != reached {
		t.Errorf("ping of the other host's address on the underlay: %v", out)
	}
}

// Ports are published on the host that has the container; by its own address
// the network's hosts and containers reach it.
func TestOverlayPublishes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, 1500, false)
	s := &script{host: c.host}
	near := c.add(0, "h1", map[string]any{"runtimeConfig": map[string]any{"portMappings": []any{map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}})
	far := c.add(0, "h2", nil)
	s.serve("h1-net0", "80")
	at := []netip.AddrPort{netip.AddrPortFrom(c.address(0), 8080)}
	for _, a := range near.addresses {
		at = append(at, netip.AddrPortFrom(a, 80))
	}
	for _, from := range []string{"h1", "h2", strings.TrimPrefix(far.netns, "/run/netns/")} {
		for _, a := range at {
			s.dial(from, a.String(), "h1-net0")
		}
	}
}

// A configuration that cannot work is refused, by key, before anything is made.
func TestOverlayRefuses(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, 1500, false)
	c.setAddress(netnsPath("h1"), "eth0", "192.0.2.101/24")
	netns := c.netns("c1")
	var before snapshot
	c.in(netnsPath("h1"), func() { before = c.snapshot() })
	for name, tt := range map[string]struct {
		keys map[string]any
		want string
	}{
		"no nodes":        {map[string]any{"nodes": []string{}}, "nodes: []"},
		"none is ours":    {map[string]any{"nodes": []string{"192.0.2.8", "192.0.2.9"}}, "nodes: [192.0.2.8 192.0.2.9]: none is"},
		"two are ours":    {map[string]any{"nodes": []string{"192.0.2.1", "192.0.2.101"}}, "nodes: [192.0.2.1 192.0.2.101]: these are all"},
		"twice":           {map[string]any{"nodes": []string{"192.0.2.1", "192.0.2.2", "192.0.2.2"}}, "nodes[2]: 192.0.2.2"},
		"two families":    {map[string]any{"nodes": []string{"192.0.2.1", "2001:db8::1"}}, "nodes[1]"},
		"not an address":  {map[string]any{"nodes": []string{"host1"}}, `nodes[0]: "host1"`},
		"no subnet":       {map[string]any{"subnet": nil}, "subnet: missing"},
		"host bits":       {map[string]any{"subnet": "10.5.0.1/16"}, "subnet:"},
		"no room":         {map[string]any{"subnet": "10.5.0.0/24"}, "subnet: 10.5.0.0/24"},
		"blocks overlap":  {map[string]any{"nodes": []any{"192.0.2.1", map[string]any{"address": "192.0.2.2", "subnet": "10.80.0.128/25"}}}, "nodes[1].subnet: 10.80.0.128/25: overlaps"},
		"VNI":             {map[string]any{"vni": 1 << 24}, "vni: 16777216"},
		"port":            {map[string]any{"port": 70000}, "port: 70000"},
		"blockSize":       {map[string]any{"blockSize": map[string]any{"ipv4": 31}}, "blockSize.ipv4"},
		"ranges":          {map[string]any{"ipam.ranges": []any{}}, "ipam.ranges"},
		"another IPAM":    {map[string]any{"ipam.type": "host-local"}, "ipam.type"},
		"isolated bridge": {map[string]any{"gatewayMode": "isolated"}, "gatewayMode"},
		"iptables":        {map[string]any{"backend": "iptables"}, "backend"},
		"vlan":            {map[string]any{"vlan": 5}, "vlan: 5"},
	} {
		call := attachment("overlay-ln", "c1", netns, c.conf(0, "h1", tt.keys)).as("ADD")
		if r := c.try(call); r.code != 7 || !strings.Contains(r.msg, tt.want) {
			t.Errorf("%s: code %d, %q, want 7 and %q", name, r.code, r.msg, tt.want)
		}
	}
	c.in(netnsPath("h1"), func() { c.same(before) })
}

// A host that is taken off the list is out with the next ADD, also with what needs no
// answer, and one that is put on it is in; the others do not notice.
func TestOverlayNodesChange(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 1500, false)
	first := map[string]any{"nodes": []string{c.address(0).String(), c.address(1).String(), "192.0.2.99"}}
	near, far := c.add(0, "h1", first), c.add(0, "h2", first)
	third := c.add(0, "h3", nil)
	c.noPing(third.netns, near.addresses[0])
	renew := func(host string, keys map[string]any) {
		next := attachment("overlay-ln", "next-"+host, c.netns("next-"+host), c.conf(0, host, keys))
		c.mustOn(host, next.as("ADD"))
		c.mustOn(host, next.as("DEL"))
		c.loseNetns("next-" + host)
	}
	renew("h1", nil)
	for _, a := range near.addresses {
		c.ping(third.netns, a)
		c.ping(far.netns, a)
	}
	if !c.hearsFrom(third.netns, third.addresses[0], near, pingWait) {
		t.Error("no datagram of a host that is on the list arrives")
	}
	renew("h1", first)
	for _, a := range near.addresses {
		c.noPing(third.netns, a)
		c.ping(far.netns, a)
	}
	if c.hearsFrom(third.netns, third.addresses[0], near, noPingWait) {
		t.Error("a datagram of a host that is off the list arrives")
	}
}

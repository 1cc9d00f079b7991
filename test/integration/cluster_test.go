package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// cluster is several hosts on a common link, "lan", in the test's own
// namespace. They share its files, so each has directories of its own.
type cluster struct {
	*host
	is6   bool // the underlay
	hosts []string
}

// newCluster makes hosts h1, h2, ... whose way to each other has an MTU.
func newCluster(t testing.TB, n, mtu int, is6 bool) *cluster {
	t.Helper()
	c := &cluster{host: newHost(t), is6: is6}
	program(t, "overlay-ln")
	c.check(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}))
	lan, err := netlink.LinkByName("lan")
	c.check(err)
	c.check(netlink.LinkSetUp(lan))
	for i := range n {
		name := fmt.Sprintf("h%d", i+1)
		c.hosts = append(c.hosts, name)
		c.join(name, c.address(i), mtu)
	}
	return c
}

// join puts a new host on the link.
func (c *cluster) join(name string, addr netip.Addr, mtu int) {
	c.t.Helper()
	lan, err := netlink.LinkByName("lan")
	c.check(err)
	ns := c.netns(name)
	port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "to-" + name, MTU: mtu, MasterIndex: lan.Attrs().Index}, PeerName: "eth0", PeerMTU: uint32(mtu)}
	c.check(netlink.LinkAdd(port))
	c.moveIn("eth0", ns)
	c.check(netlink.LinkSetUp(port))
	c.setAddress(ns, "eth0", netip.PrefixFrom(addr, map[bool]int{false: 24, true: 64}[addr.Is6()]).String())
}

// address is that of host number i on the underlay, from 0.
func (c *cluster) address(i int) netip.Addr {
	if c.is6 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:9::%d", i+1))
	}
	return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1))
}

// conf is the configuration of network number net, from 0, on a host.
func (c *cluster) conf(net int, host string, keys map[string]any) string {
	c.t.Helper()
	var nodes []string
	for i := range c.hosts {
		nodes = append(nodes, fmt.Sprintf("%q", c.address(i)))
	}
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net%d","type":"overlay-ln","nodes":[%s],"subnet":["10.%d.0.0/16","fd%d::/48"],
		"stateDir":"/run/libnet-%[5]s","ipam":{"type":"ipam-ln","dataDir":"/var/lib/leases-%[5]s"}}`,
		net, strings.Join(nodes, ","), 80+net, 80+net, host)
	return edit(c.t, conf, keys)
}

// try runs a call of overlay-ln on the first host.
func (c *cluster) try(call call) (r reply) {
	c.t.Helper()
	c.in(netnsPath(c.hosts[0]), func() { r = c.run(call) })
	return r
}

func (c *cluster) mustOn(host string, call call) (r reply) {
	c.t.Helper()
	c.in(netnsPath(host), func() { r = c.must(call) })
	return r
}

// container is one on a network and a host.
type container struct {
	net       int
	host      string
	netns     string
	addresses []netip.Addr
	call      call
}

// add attaches a new container.
func (c *cluster) add(net int, host string, keys map[string]any) container {
	c.t.Helper()
	name := fmt.Sprintf("%s-net%d", host, net)
	p := container{net: net, host: host, netns: c.netns(name)}
	p.call = attachment("overlay-ln", name, p.netns, c.conf(net, host, keys))
	for _, a := range parseResult(c.t, c.mustOn(host, p.call.as("ADD")).stdout).addresses(c.t) {
		p.addresses = append(p.addresses, a.Addr())
	}
	return p
}

// tunnelOf returns the name of the VXLAN device of network number 0 on a host.
func (c *cluster) tunnelOf(host string) (name string) {
	c.t.Helper()
	c.in(netnsPath(host), func() {
		links, err := netlink.LinkList()
		c.check(err)
		for _, l := range links {
			if l.Type() == "vxlan" && l.Attrs().Alias == "libnet:net0/" {
				name = l.Attrs().Name
			}
		}
	})
	if name == "" {
		c.t.Fatalf("%s has no tunnel", host)
	}
	return name
}

func decode(t testing.TB, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

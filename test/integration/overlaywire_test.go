package integration

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// A frame with a source MAC that no host of the network has does not get in;
// one with another VNI does not, either, nor one from another address than a
// host's. A sender that forges address and MAC of a host on the underlay does get in, as
// the README says.
func TestOverlayStrangers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 1500, false)
	nodes := map[string]any{"nodes": []string{c.address(0).String(), c.address(1).String()}}
	to, known := c.add(0, "h1", nodes), c.add(0, "h2", nodes)
	var near, far netlink.Link
	c.in(netnsPath("h1"), func() { near = c.link(c.tunnelOf("h1")) })
	c.in(netnsPath("h2"), func() { far = c.link(c.tunnelOf("h2")) })
	vni := near.(*netlink.Vxlan).VxlanId
	c.setAddress(netnsPath("h3"), "lo", c.address(1).String()+"/32")
	for _, tt := range []struct {
		name string
		mac  string
		vni  int
		from netip.Addr
		want bool
	}{
		{"unknown MAC", "02:66:66:66:66:66", vni, c.address(1), false},
		{"unknown VNI", far.Attrs().HardwareAddr.String(), vni + 1, c.address(1), false},
		{"unknown address", far.Attrs().HardwareAddr.String(), vni, c.address(2), false},
		{"all known", far.Attrs().HardwareAddr.String(), vni, c.address(1), true}, // the test reaches the container at all
	} {
		c.in(netnsPath("h3"), func() { c.disguise(tt.mac, tt.vni, tt.from, near, known.addresses[0], to.addresses[0]) })
		if got := c.hears(to, known.addresses[0], pick2(tt.want, pingWait, 3*noPingWait)); got != tt.want {
			t.Errorf("%s: arrives %t, want %t", tt.name, got, tt.want)
		}
	}
}

// disguise gives the host of the calling thread a VXLAN device to the first
// host, with an address that is another container's.
func (c *cluster) disguise(mac string, vni int, from netip.Addr, near netlink.Link, as, to netip.Addr) {
	c.t.Helper()
	if old, err := netlink.LinkByName("evil"); err == nil {
		c.check(netlink.LinkDel(old))
	}
	hw, err := net.ParseMAC(mac)
	c.check(err)
	c.check(netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "evil", HardwareAddr: hw}, VxlanId: vni, Port: 4789, SrcAddr: from.AsSlice()}))
	c.setAddress("", "evil", netip.PrefixFrom(as, 32).String())
	index := c.link("evil").Attrs().Index
	c.check(netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: ipNet(c, to.String()+"/32"), Scope: netlink.SCOPE_LINK}))
	c.check(netlink.NeighSet(&netlink.Neigh{LinkIndex: index, IP: to.AsSlice(), HardwareAddr: near.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT}))
	c.check(netlink.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
		HardwareAddr: near.Attrs().HardwareAddr, IP: c.address(0).AsSlice()}))
}

// hears says whether a datagram of the stranger's arrives.
func (c *cluster) hears(to container, as netip.Addr, patience time.Duration) bool {
	c.t.Helper()
	return c.hearsFrom(netnsPath("h3"), as, to, patience)
}

// hearsFrom says whether a datagram that needs no answer arrives.
func (c *cluster) hearsFrom(netns string, as netip.Addr, to container, patience time.Duration) bool {
	c.t.Helper()
	var in, out net.PacketConn
	var err error
	c.in(to.netns, func() { in, err = net.ListenPacket("udp4", ":7777") })
	c.check(err)
	defer func() { _ = in.Close() }()
	c.in(netns, func() { out, err = net.ListenPacket("udp4", netip.AddrPortFrom(as, 0).String()) })
	c.check(err)
	defer func() { _ = out.Close() }()
	heard, err := lntest.Heard(in, "boo", patience, func() error {
		_, err := out.WriteTo([]byte("boo"), &net.UDPAddr{IP: to.addresses[0].AsSlice(), Port: 7777})
		return err
	})
	c.check(err)
	return heard
}

func (c *cluster) link(name string) netlink.Link {
	c.t.Helper()
	l, err := netlink.LinkByName(name)
	c.check(err)
	return l
}

// A third host gets no packet between two others, nor to a free address.
func TestOverlayFloodsNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 1500, false)
	near, far, third := c.add(0, "h1", nil), c.add(0, "h2", nil), c.add(0, "h3", nil)
	var raw net.PacketConn
	c.in(netnsPath("h3"), func() {
		var err error
		raw, err = net.ListenPacket("ip4:udp", "0.0.0.0")
		c.check(err)
	})
	defer func() { _ = raw.Close() }()
	for _, a := range []string{"10.80.1.99", "10.80.77.1", "fd80:0:0:1::99", "fd80:0:0:77::1"} {
		_ = c.echo(near.netns, netip.MustParseAddr(a), noPingWait) // no host has it
		_ = c.echo(netnsPath("h1"), netip.MustParseAddr(a), noPingWait)
	}
	for _, group := range []string{"224.0.0.1", "239.1.2.3", "255.255.255.255", "10.80.0.255"} {
		c.in(near.netns, func() { c.shout(group, "eth0") })
		c.in(netnsPath("h1"), func() { c.shout(group, c.tunnelOf("h1")) })
	}
	c.ping(near.netns, far.addresses[0])
	if n := c.encapsulated(raw); n != 0 {
		t.Errorf("the third host got %d frames", n)
	}
	c.ping(near.netns, third.addresses[0])
	if n := c.encapsulated(raw); n == 0 {
		t.Error("the third host got no frame of a ping to its container: the test sees nothing")
	}
}

// shout sends a datagram to all by an interface.
func (c *cluster) shout(group, dev string) {
	c.t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	c.check(err)
	defer func() { _ = unix.Close(fd) }()
	c.check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
	c.check(unix.BindToDevice(fd, dev))
	_ = unix.Sendto(fd, []byte("hello"), 0, &unix.SockaddrInet4{Port: 9, Addr: netip.MustParseAddr(group).As4()})
}

// encapsulated counts the VXLAN datagrams that have come.
func (c *cluster) encapsulated(raw net.PacketConn) (n int) {
	c.t.Helper()
	c.check(raw.SetReadDeadline(time.Now().Add(noPingWait)))
	buf := make([]byte, 2000)
	for {
		size, _, err := raw.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n
		}
		c.check(err)
		if size >= 4 && buf[2] == 4789>>8 && buf[3] == 4789&0xff {
			n++
		}
	}
}

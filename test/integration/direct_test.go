package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// directKeys are those of the networks of these tests.
var directKeys = map[string]any{"directRouting": true}

// newDirect makes two hosts on one segment, and a third one behind a router. The hosts have
// addresses of both families.
func newDirect(t *testing.T) *agents {
	t.Helper()
	a := newAgents(t, 2)
	a.join("router", netip.MustParseAddr("192.0.2.254"), 1500)
	third := a.netns("h3")
	a.check(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1", MTU: 1500}, PeerName: "eth0"}))
	a.moveIn("eth0", third)
	a.moveIn("eth1", netnsPath("router"))
	a.setAddress(third, "eth0", "198.51.100.3/24")
	a.setAddress(netnsPath("router"), "eth1", "198.51.100.254/24")
	a.in(netnsPath("router"), func() { a.check(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)) })
	for _, h := range []string{"h1", "h2", etcdHost} {
		a.route(netnsPath(h), "198.51.100.0/24", "192.0.2.254")
	}
	a.route(netnsPath("h3"), "192.0.2.0/24", "198.51.100.254")
	for _, h := range []string{"h1", "h2"} {
		a.setAddress(netnsPath(h), "eth0", "2001:db8:5::"+h[1:]+"/64")
	}
	return a
}

// wayTo is the device by which a host leads to an address of a container.
func (a *agents) wayTo(host string, to netip.Addr) (dev string) {
	a.t.Helper()
	a.in(netnsPath(host), func() {
		rs, err := netlink.RouteGet(to.AsSlice())
		if err != nil || len(rs) == 0 {
			dev = fmt.Sprint("none: ", err)
			return
		}
		l, err := netlink.LinkByIndex(rs[0].LinkIndex)
		a.check(err)
		dev = l.Attrs().Name
	})
	return dev
}

// awaitWay waits until a host leads to all addresses of a container by a device, or by its tunnel.
func (a *agents) awaitWay(host string, to container, direct bool) {
	a.t.Helper()
	want := "eth0"
	if !direct {
		want = a.tunnelOf(host)
	}
	for _, addr := range to.addresses {
		end := time.Now().Add(agentPatience)
		for a.wayTo(host, addr) != want {
			if time.Now().After(end) {
				a.t.Fatalf("%s leads to %s by %s, want %s\n%s", host, addr, a.wayTo(host, addr), want, a.procs[host].log)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// tunneled is how many packets a host has sent by its tunnel.
func (a *agents) tunneled(host string) (n uint64) {
	a.t.Helper()
	vx := a.tunnelOf(host)
	a.in(netnsPath(host), func() { n = a.link(vx).Attrs().Statistics.TxPackets })
	return n
}

// mtuOf is that of a container's interface.
func (a *agents) mtuOf(c container) (mtu int) {
	a.t.Helper()
	a.in(c.netns, func() { mtu = a.link("eth0").Attrs().MTU })
	return mtu
}

// transfer sends more by TCP than fits into a packet, in one direction.
func (a *agents) transfer(from, to container, addr netip.Addr) {
	a.t.Helper()
	const size = 1 << 20
	var l net.Listener
	var c net.Conn
	a.in(to.netns, func() {
		var err error
		l, err = net.Listen("tcp", net.JoinHostPort(addr.String(), "7100"))
		a.check(err)
	})
	defer func() { _ = l.Close() }()
	got := make(chan int64, 1)
	go func() {
		in, err := l.Accept()
		if err != nil {
			got <- -1
			return
		}
		n, _ := io.Copy(io.Discard, in)
		_ = in.Close()
		got <- n
	}()
	a.in(from.netns, func() {
		var err error
		c, err = net.DialTimeout("tcp", l.Addr().String(), pingWait)
		a.check(err)
	})
	_ = c.SetDeadline(time.Now().Add(pingWait))
	_, err := c.Write(make([]byte, size))
	a.check(errors.Join(err, c.Close()))
	if n := <-got; n != size {
		a.t.Errorf("%d bytes of %d got to %s", n, size, addr)
	}
}

// Hosts of one segment reach each other's containers without the tunnel, by both families, at the
// MTU of the segment; one behind a router by the tunnel, for which their hosts tell containers the
// smaller MTU. All checks find that right.
func TestDirectRouting(t *testing.T) {
	t.Parallel()
	a := newDirect(t)
	a.up(directKeys)
	early := a.attach("h2", "early", directKeys)
	a.awaitWay("h1", early, true)
	near, far := a.attach("h1", "near", directKeys), a.attach("h2", "far", directKeys)
	if mtu := a.mtuOf(near); mtu != 1500 {
		t.Errorf("MTU of a container is %d, want the segment's 1500", mtu)
	}
	a.awaitWay("h2", near, true)
	before := a.tunneled("h1") + a.tunneled("h2")
	a.pingAll(near, far, early)
	a.ping(netnsPath("h1"), far.addresses[0]) // as by the tunnel, the hosts themselves may
	a.ping(netnsPath("h2"), near.addresses[1])
	if now := a.tunneled("h1") + a.tunneled("h2"); now != before {
		t.Errorf("%d packets went by the tunnels", now-before)
	}
	a.configure(0, "h3", directKeys)
	a.start("h3")
	for _, h := range []string{"h1", "h2", "h3"} {
		a.awaitPeers(h, 2)
		a.awaitHealth(h, "ok")
	}
	behind := a.attach("h3", "behind", directKeys)
	for _, h := range []string{"h1", "h2"} {
		a.awaitWay(h, behind, false)
	}
	a.awaitWay("h1", far, true)
	a.pingAll(near, far, behind)
	for _, addr := range behind.addresses {
		a.transfer(near, behind, addr)
		a.transfer(behind, near, near.addresses[0])
	}
	for _, p := range []container{near, far, behind} {
		check := p.call.as("CHECK")
		check.stdin = edit(t, check.stdin, map[string]any{"prevResult": decode(t, a.mustOn(p.host, p.call.as("ADD")).stdout)})
		a.mustOn(p.host, check)
	}
	for _, h := range []string{"h1", "h2", "h3"} {
		a.awaitTunnel(h, time.Minute)
		for _, args := range []string{"doctor", "overlay check net0"} {
			if out, err := a.lnctlOn(h, strings.Fields(args)...); err != nil {
				t.Errorf("%s: lnctl %s: %v\n%s", h, args, err, out)
			}
		}
	}
	if out, _ := a.lnctlOn("h1", "overlay", "peers", "net0"); strings.Count(out, "direct by eth0") != 2 || strings.Count(out, "present") < 6 {
		t.Errorf("lnctl overlay peers:\n%s", out)
	}
}

// A host moves to another segment, and back: the others lead to it by the tunnel, and again
// without. Its containers' connections go on. What is changed by hand is put right, and a network
// that does without direct routing, or is left, keeps no such route.
func TestDirectMoves(t *testing.T) {
	t.Parallel()
	a := newDirect(t)
	a.up(directKeys, "--live-ttl", "3s")
	near, far := a.attach("h1", "near", directKeys), a.attach("h2", "far", directKeys)
	a.awaitWay("h1", far, true)
	a.awaitWay("h2", near, true)
	var stops []func() (int, int)
	for _, addr := range far.addresses {
		stops = append(stops, a.pingOften(near.netns, addr))
	}
	a.route(netnsPath("h1"), "192.0.2.2/32", "192.0.2.254") // from here on h2 is behind the router, for h1
	a.awaitWay("h1", far, false)
	a.awaitWay("h2", near, true)
	a.in(netnsPath("h1"), func() {
		_, dst, _ := net.ParseCIDR("192.0.2.2/32")
		a.check(netlink.RouteDel(&netlink.Route{Dst: dst, Gw: net.ParseIP("192.0.2.254")}))
	})
	a.awaitWay("h1", far, true)
	for _, stop := range stops {
		if sent, lost := stop(); lost > 0 || sent < 20 {
			t.Errorf("of %d packets %d are lost, want none of 20 at least", sent, lost)
		}
	}
	a.in(netnsPath("h1"), func() {
		rs, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: 108}, netlink.RT_FILTER_PROTOCOL)
		a.check(err)
		for _, r := range rs {
			a.check(netlink.RouteDel(&r))
		}
	})
	a.awaitWay("h1", far, true)
	a.pingAll(near, far)
	a.configure(0, "h1", nil)
	a.awaitWay("h1", far, false)
	a.awaitWay("h2", near, false)
	a.pingAll(near, far)
	a.awaitTunnel("h2", time.Minute)
	a.configure(0, "h1", directKeys)
	a.awaitWay("h1", far, true)
	a.awaitWay("h2", near, true)
	a.mustOn("h2", far.call.as("DEL"))
	a.procs["h2"].stop(t)
	a.in(netnsPath("h2"), func() {
		if out, err := a.agentCommand("h2", "leave").CombinedOutput(); err != nil {
			t.Errorf("leave: %v, %s", err, out)
		}
		rs, err := netlink.RouteListFiltered(unix.AF_UNSPEC, &netlink.Route{Protocol: 108, Type: unix.RTN_UNICAST}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TYPE)
		if len(rs) > 0 || err != nil {
			t.Errorf("after leave there are routes %v, %v", rs, err)
		}
	})
	a.awaitPeers("h1", 0)
	if by := a.wayTo("h1", far.addresses[0]); by == "eth0" {
		t.Errorf("h1 leads to a host that has left")
	}
}

// Where a switch drops packets with addresses of containers, the tunnel stays, and takes over where
// it begins to.
func TestDirectStaysTunnel(t *testing.T) {
	t.Parallel()
	a := newDirect(t)
	a.up(directKeys)
	near, far := a.attach("h1", "near", directKeys), a.attach("h2", "far", directKeys)
	a.awaitWay("h1", far, true)
	a.awaitWay("h2", near, true)
	// The port of h2 at the switch takes no packets from addresses that are not the host's.
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(`table bridge guard { chain c { type filter hook forward priority 0
		iifname "to-h2" ip saddr 10.80.0.0/16 drop
		iifname "to-h2" ip6 saddr fd80::/48 drop
		}
	}`)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v, %s", err, out)
	}
	a.awaitWay("h2", near, false) // h1 may go on: what it sends arrives
	a.pingAll(near, far)
	a.awaitHealth("h1", "ok")
	if out, err := exec.Command("nft", "delete", "table", "bridge", "guard").CombinedOutput(); err != nil {
		t.Fatalf("nft: %v, %s", err, out)
	}
	a.awaitWay("h1", far, true)
	a.awaitWay("h2", near, true)
}

// Only the owner of a block sends from it: neither a machine of the segment that is no host of the
// network, nor another network's container, nor a client outside gets to a container, whatever
// address it takes. An internal network stays so.
func TestDirectGuard(t *testing.T) {
	for name, keys := range map[string]map[string]any{"nat": directKeys, "internal": merge(directKeys, map[string]any{"internal": true})} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newDirect(t)
			a.configure(1, "h1", nil)
			a.up(keys)
			near, far := a.attach("h1", "near", keys), a.attach("h2", "far", keys)
			a.awaitWay("h1", far, true)
			a.awaitWay("h2", near, true)
			a.pingAll(near, far)
			d := directGuard{a, near, far}
			d.run()
		})
	}
}

type directGuard struct {
	*agents
	near, far container // on h1 and h2
}

func (d directGuard) run() {
	t := d.t
	other := container{host: "h1", netns: d.netns("other")}
	d.mustOn("h1", attachment("overlay-ln", "other", other.netns, d.agentConf(1, "h1", nil)).as("ADD"))
	d.join("evil", netip.MustParseAddr("192.0.2.66"), 1500)
	for host, at := range map[string]string{"h1": "192.0.2.1", "h2": "192.0.2.2"} {
		to := map[string]container{"h1": d.near, "h2": d.far}[host]
		d.route(netnsPath("evil"), netip.PrefixFrom(to.addresses[0], 32).String(), at)
		d.noPing(netnsPath("evil"), to.addresses[0])
	}
	d.noPing(other.netns, d.far.addresses[0]) // h1 would give it its own address
	d.noPing(other.netns, d.far.addresses[1])
	// With the addresses of a container, and of the host, of the other side.
	for _, from := range []struct{ netns, dev string }{{netnsPath("evil"), "eth0"}, {other.netns, "eth0"}} {
		for _, source := range []netip.Addr{d.far.addresses[0].Next(), netip.MustParseAddr("192.0.2.2")} {
			if got := d.forge(from.netns, from.dev, source, d.near); got {
				t.Errorf("from %s by the address %s a packet gets to the container of h1", from.netns, source)
			}
		}
	}
	// The one that may does.
	if !d.forge(netnsPath("h2"), "eth0", d.far.addresses[0].Next(), d.near) {
		t.Error("a packet of h2 does not get to the container of h1: the test sees nothing")
	}
}

// forge sends a datagram by a device to h1 with a source address, and says whether it gets to a
// container there.
func (d directGuard) forge(netns, dev string, source netip.Addr, to container) bool {
	d.t.Helper()
	var in net.PacketConn
	d.in(to.netns, func() {
		var err error
		in, err = net.ListenPacket("udp4", fmt.Sprint(":", injectedPort))
		d.check(err)
	})
	defer func() { _ = in.Close() }()
	var target net.HardwareAddr
	if netns == netnsPath("evil") || netns == netnsPath("h2") {
		d.in(netnsPath("h1"), func() { target = d.link("eth0").Attrs().HardwareAddr })
	} else { // a container: its gateway
		d.in(netnsPath("h1"), func() {
			links, err := netlink.LinkList()
			d.check(err)
			for _, l := range links {
				if l.Type() == "bridge" && l.Attrs().Alias == "libnet:net1/" {
					target = l.Attrs().HardwareAddr
				}
			}
		})
	}
	d.in(netns, func() {
		l := d.link(dev)
		frame := udpFrame(l.Attrs().HardwareAddr, target, source, to.addresses[0], "forged")
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		d.check(err)
		err = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index})
		d.check(errors.Join(err, unix.Close(fd)))
	})
	_ = in.SetReadDeadline(time.Now().Add(noPingWait))
	buf := make([]byte, 64)
	n, _, err := in.ReadFrom(buf)
	return err == nil && string(buf[:n]) == "forged"
}

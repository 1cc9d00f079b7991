package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// No container gets a frame into another overlay network, which is internal, by
// sending VXLAN itself: neither one of a bridge with NAT nor one of another
// overlay, neither to its own host by whatever address nor to another host, nor
// in the name of a host. The same frame sent by a host of the network arrives.
func TestOverlayInjection(t *testing.T) {
	for _, is6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("nodes,underlay6=%t", is6), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3, 1500, is6)
			shut := map[string]any{"internal": true}
			l := injection{cluster: c, near: c.add(0, "h1", shut), far: c.add(0, "h2", shut)}
			c.add(0, "h3", shut)
			c.ping(l.near.netns, l.far.addresses[0])
			l.run(c.add(1, "h1", nil))
		})
		t.Run(fmt.Sprintf("agent,underlay6=%t", is6), func(t *testing.T) {
			t.Parallel()
			a := newAgentsOver(t, 3, is6)
			for _, h := range a.hosts {
				a.configure(1, h, nil)
			}
			shut := map[string]any{"internal": true}
			a.up(shut)
			l := injection{cluster: a.cluster, near: a.attach("h1", "near", shut), far: a.attach("h2", "far", shut)}
			a.ping(l.near.netns, l.far.addresses[0])
			other := container{host: "h1", netns: a.netns("other")}
			a.mustOn("h1", attachment("overlay-ln", "other", other.netns, a.agentConf(1, "h1", nil)).as("ADD"))
			l.run(other)
		})
	}
}

// injection is a try to get into network 0 of a cluster of three hosts.
type injection struct {
	*cluster
	near, far container // of network 0, on h1 and h2
}

const injectedPort = 7000

// run sends from a container of a bridge and from other, both on h1.
func (l injection) run(other container) {
	t := l.t
	plain := container{host: "h1", netns: l.netns("plain")}
	conf := `{"cniVersion":"1.1.0","name":"plain","type":"bridge-ln","bridge":"brplain","gatewayMode":"nat","stateDir":"/run/libnet-h1",
		"ipam":{"type":"ipam-ln","dataDir":"/var/lib/leases-h1","ranges":[[{"subnet":"10.99.0.0/24"}],[{"subnet":"fd99::/64"}]]}}`
	l.mustOn("h1", attachment("bridge-ln", "plain", plain.netns, conf).as("ADD"))
	got := map[string]net.PacketConn{}
	for _, to := range []container{l.near, l.far} {
		l.in(to.netns, func() {
			in, err := net.ListenPacket("udp4", fmt.Sprint(":", injectedPort))
			l.check(err)
			got[to.host] = in
		})
		defer func() { _ = got[to.host].Close() }()
	}
	own, second, third := l.address(0), l.address(1), l.address(2)
	gateway := pick(l.is6, "fd99::1", "10.99.0.1")
	for _, from := range []container{plain, other} {
		for _, to := range []struct {
			addr netip.Addr
			in   container
		}{{own, l.near}, {gateway, l.near}, {second, l.far}, {third, l.near}} {
			l.send(from.netns, netip.Addr{}, to.addr, to.in, "container to "+to.addr.String())
		}
		l.as(from.netns, second)
		l.send(from.netns, second, own, l.near, "container as "+second.String())
		l.as(from.netns, third)
		l.send(from.netns, third, second, l.far, "container as "+third.String())
	}
	for _, to := range []container{l.near, l.far} {
		l.send(netnsPath("h3"), netip.Addr{}, l.address(slices.Index(l.hosts, to.host)), to, "host")
		if all := heard(t, got[to.host]); len(all) != 1 || all[0] != "host" {
			t.Errorf("the container of %s got %q, want one frame, of the host", to.host, all)
		}
	}
}

// as gives a container a host's address.
func (l injection) as(netns string, addr netip.Addr) {
	l.setAddress(netns, "lo", netip.PrefixFrom(addr, addr.BitLen()).String())
}

// send sends VXLAN with a frame of a host of the network to a container.
func (l injection) send(netns string, from, to netip.Addr, in container, text string) {
	l.t.Helper()
	var near, far netlink.Link
	l.in(netnsPath(in.host), func() { near = l.link(l.tunnelOf(in.host)) })
	peer := map[string]string{"h1": "h2", "h2": "h1"}[in.host]
	l.in(netnsPath(peer), func() { far = l.link(l.tunnelOf(peer)) })
	frame := udpFrame(far.Attrs().HardwareAddr, near.Attrs().HardwareAddr, netip.MustParseAddr("10.80.77.7"), in.addresses[0], text)
	vni := near.(*netlink.Vxlan).VxlanId
	packet := append([]byte{8, 0, 0, 0, byte(vni >> 16), byte(vni >> 8), byte(vni), 0}, frame...)
	l.in(netns, func() {
		var at *net.UDPAddr
		if from.IsValid() {
			at = &net.UDPAddr{IP: from.AsSlice()}
		}
		out, err := net.DialUDP("udp", at, &net.UDPAddr{IP: to.AsSlice(), Port: 4789})
		l.check(err)
		_, err = out.Write(packet)
		l.check(errors.Join(err, out.Close()))
	})
}

// udpFrame is an Ethernet frame with a datagram of IPv4 in it, without a UDP checksum.
func udpFrame(src, dst net.HardwareAddr, from, to netip.Addr, text string) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 53)
	udp = binary.BigEndian.AppendUint16(udp, injectedPort)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(text)))
	udp = append(append(udp, 0, 0), text...)
	ip := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 1, 0, 0, 64, 17, 0, 0}
	ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return slices.Concat([]byte(dst), []byte(src), []byte{8, 0}, ip, udp)
}

// heard waits for what the host sent, which came last, and a little longer.
func heard(t testing.TB, in net.PacketConn) (all []string) {
	t.Helper()
	buf := make([]byte, 256)
	for wait := agentPatience; ; {
		if err := in.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		n, _, err := in.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(buf[:n]))
		if strings.HasPrefix(string(buf[:n]), "host") {
			wait = noPingWait
		}
	}
}

package integration

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// uplinkLab are two hosts with a container each.
type uplinkLab struct {
	*cluster
	fast *fastLab
	a, b *fastEnd
}

// newUplinkLab takes what the network has on the second host as "fastPath".
func newUplinkLab(t *testing.T, second string) *uplinkLab {
	t.Helper()
	lntest.NeedsRoot(t, "loads BPF programs")
	c := newCluster(t, 2, 1500, false)
	l := &uplinkLab{cluster: c, fast: &fastLab{host: c.host}}
	l.a, l.b = l.fast.serve(c.add(0, "h1", keys{"fastPath": "auto"})), l.fast.serve(c.add(0, "h2", keys{"fastPath": second}))
	return l
}

// countTunnel has hosts count the packets of tunnels that they send and take, by rules of IP.
func (l *uplinkLab) countTunnel(hosts ...string) {
	l.t.Helper()
	for _, h := range hosts {
		l.in(netnsPath(h), func() {
			for _, hook := range []string{"output", "input"} {
				l.host.nft(fmt.Sprintf("add table inet %[1]s; add chain inet %[1]s forward { type filter hook %[1]s priority 0; }; flush chain inet %[1]s forward; add rule inet %[1]s forward udp dport 4789 counter", hook))
			}
		})
	}
}

func (l *uplinkLab) countedTunnel(host, hook string) (n int) {
	l.t.Helper()
	l.in(netnsPath(host), func() { n = l.fast.counterOf("inet", hook) })
	return n
}

// Between hosts packets of a flow go past the VXLAN device and the rules for the tunnel, too, in
// both families. TCP arrives whole, in both directions.
func TestFastPathUplink(t *testing.T) {
	l := newUplinkLab(t, "auto")
	for i, to := range l.b.addresses {
		l.countTunnel("h1", "h2")
		l.fast.talk(l.a, to).whole(500)
		for _, h := range []string{"h1", "h2"} {
			for _, hook := range []string{"output", "input"} {
				if slow := l.countedTunnel(h, hook); slow > 100 {
					t.Errorf("to %s: %d of 500 packets of the tunnel passed %s of %s", to, slow, hook, h)
				}
			}
		}
		if err := errors.Join(l.fast.transfer(l.a, l.b, to), l.fast.transfer(l.b, l.a, l.a.addresses[i])); err != nil {
			t.Errorf("TCP to %s: %v", to, err)
		}
	}
}

// Rules for the tunnel that others add count after a second, on both hosts. Where a host is none
// of the network's any more, that counts with the next packet.
func TestFastPathUplinkRules(t *testing.T) {
	l := newUplinkLab(t, "auto")
	talk := l.fast.talk(l.a, l.b.addresses[0])
	talk.whole(100)
	for _, h := range []string{"h1", "h2"} {
		for _, hook := range []string{"output", "input"} {
			l.countTunnel(h)
			l.in(netnsPath(h), func() { l.host.nft("add rule inet " + hook + " forward udp dport 4789 drop") })
			talk.goOn()
			talk.silent("without "+hook+" of "+h, 20)
			l.in(netnsPath(h), func() { l.host.nft("flush chain inet " + hook + " forward") })
			talk.whole(100)
		}
	}
	alone := attachment("overlay-ln", "alone", l.netns("alone"), l.conf("h2", keys{"fastPath": "auto", "nodes": []string{l.address(1).String()}}))
	l.mustOn("h2", alone.as("ADD"))
	talk.silent("from a host that is none of the network's", 20)
}

func (l *uplinkLab) conf(host string, more keys) string { return l.cluster.conf(0, host, more) }

// The headers that a program writes are right: a host without the fast path takes the packets,
// and all sums in them are. Segments are cut from what TCP sends.
func TestFastPathUplinkOneSided(t *testing.T) {
	l := newUplinkLab(t, "off")
	l.in(netnsPath("h1"), func() { l.txChecksumOff("eth0") })
	var wire int
	l.in(netnsPath("h2"), func() { wire = l.wire("eth0") })
	defer func() { _ = unix.Close(wire) }()
	for _, to := range l.b.addresses {
		l.countTunnel("h1")
		l.fast.talk(l.a, to).whole(60) // the socket has room for these
		if slow := l.countedTunnel("h1", "output"); slow > 20 {
			t.Errorf("to %s: %d of 60 packets of the tunnel passed the rules of h1", to, slow)
		}
		if frames := l.verifySums(wire, true); frames < 60 {
			t.Errorf("%d frames with VXLAN came, want 60 at least: the test sees nothing", frames)
		}
		if err := l.fast.transfer(l.a, l.b, to); err != nil {
			t.Errorf("TCP to %s: %v", to, err)
		}
		l.verifySums(wire, true)
	}
}

// A network between the hosts says by ECN in the outer header that it is congested, and the
// container hears it (RFC 6040). What the container says of its own comes as it was.
func TestFastPathUplinkECN(t *testing.T) {
	const ect0, ce = 2, 3
	for _, second := range []string{"auto", "off"} {
		t.Run("there="+second, func(t *testing.T) {
			l := newUplinkLab(t, second)
			in, out := l.tosTalk(9000)
			for _, tt := range []struct{ sent, heard int }{{0, 0}, {1, 1}, {ect0, ect0}, {ce, ce}} {
				for range 20 {
					l.heardTOS(in, out, tt.sent, tt.heard)
				}
			}
			l.host.nft("add table bridge lan; add chain bridge lan forward { type filter hook forward priority 0; }; add rule bridge lan forward udp dport 4789 ip ecn ect0 ip ecn set ce")
			l.countTunnel("h2")
			for range 20 {
				l.heardTOS(in, out, ect0, ce)
			}
			if n := l.countedTunnel("h2", "input"); n < 20 {
				t.Errorf("%d of 20 marked packets passed the rules of h2: others can overtake those", n)
			}
		})
	}
}

// tosTalk is a flow of datagrams whose TOS is told.
func (l *uplinkLab) tosTalk(port int) (in, out *net.UDPConn) {
	l.t.Helper()
	to := netip.AddrPortFrom(l.b.addresses[0], uint16(port))
	l.in(l.b.netns, func() {
		var err error
		in, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(to))
		l.check(err)
	})
	l.in(l.a.netns, func() {
		var err error
		out, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
		l.check(err)
	})
	l.t.Cleanup(func() { _, _ = in.Close(), out.Close() })
	l.setOption(in, unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
	return in, out
}

func (l *uplinkLab) setOption(c *net.UDPConn, level, option, value int) {
	l.t.Helper()
	raw, err := c.SyscallConn()
	l.check(err)
	l.check(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) }))
	l.check(err)
}

func (l *uplinkLab) heardTOS(in, out *net.UDPConn, sent, want int) {
	l.t.Helper()
	l.setOption(out, unix.IPPROTO_IP, unix.IP_TOS, sent)
	l.check(in.SetReadDeadline(time.Now().Add(lntest.WaitForAnswer)))
	_, err := out.Write([]byte("tos"))
	l.check(err)
	buf, more := make([]byte, 100), make([]byte, 100)
	_, n, _, _, err := in.ReadMsgUDP(buf, more)
	l.check(err)
	messages, err := unix.ParseSocketControlMessage(more[:n])
	l.check(err)
	if len(messages) != 1 || messages[0].Header.Type != syscall.IP_TOS || int(messages[0].Data[0]) != want {
		l.t.Errorf("of a datagram with TOS %d %v is heard, want %d", sent, messages, want)
	}
}

// A host that is none of the network's, and that knows all about a flow, gets nothing into it, as
// much as it sends while the flow goes on.
func TestFastPathUplinkForged(t *testing.T) {
	l := newUplinkLab(t, "auto")
	l.join("foreign", netip.MustParseAddr("192.0.2.66"), 1500)
	talk := l.fast.talk(l.a, l.b.addresses[0])
	talk.whole(100)
	packet, to := l.forged(talk.port())
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if _, err := to.Write(packet); err != nil {
				t.Error(err)
				break
			}
		}
		sent <- n
	}()
	talk.whole(5000)
	cancel()
	if n := <-sent; n < 1000 {
		t.Errorf("%d packets were forged: the test sees nothing", n)
	}
	if n := l.b.heard("forged"); n > 0 {
		t.Errorf("%d forged datagrams arrived", n)
	}
}

// forged is a packet of the tunnel, as one of the first host's, and how another host sends it.
func (l *uplinkLab) forged(port int) (packet []byte, to net.Conn) {
	l.t.Helper()
	var macs []net.HardwareAddr
	var vni int
	for _, h := range l.hosts {
		name := l.tunnelOf(h)
		l.in(netnsPath(h), func() {
			d := l.link(name)
			macs, vni = append(macs, d.Attrs().HardwareAddr), d.(*netlink.Vxlan).VxlanId
		})
	}
	packet = binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, uint32(vni)<<8)
	packet = append(packet, forgedFrame(macs[1], macs[0], l.a.addresses[0], l.b.addresses[0], port)...)
	l.in(netnsPath("foreign"), func() {
		var err error
		to, err = net.Dial("udp", netip.AddrPortFrom(l.address(1), 4789).String())
		l.check(err)
		l.setOption(to.(*net.UDPConn), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) // as on the fast path
	})
	l.t.Cleanup(func() { _ = to.Close() })
	return packet, to
}

// Without what an uplink has of the fast path no datagram is lost. CHECK says what is missing, and
// ADD puts it back; with the network all goes.
func TestFastPathUplinkLost(t *testing.T) {
	for _, pin := range []string{"uplink-*", "tunnels", "wires"} {
		t.Run(pin, func(t *testing.T) {
			l := newUplinkLab(t, "auto")
			talk := l.fast.talk(l.a, l.b.addresses[0])
			talk.whole(200)
			lost, err := filepath.Glob("/sys/fs/bpf/libnet/fast-*/" + pin)
			l.check(err)
			if len(lost) < 2 {
				t.Fatalf("%q are pinned as %s, want one on each host at least", lost, pin)
			}
			for _, pin := range lost {
				l.check(os.Remove(pin))
			}
			talk.whole(200)
			for host, e := range map[string]*fastEnd{"h1": l.a, "h2": l.b} {
				call := e.call
				if pin != "wires" {
					l.in(netnsPath(host), func() {
						if r := l.run(call.as("CHECK")); r.code == 0 {
							t.Errorf("CHECK finds nothing on %s", host)
						}
					})
				}
				l.mustOn(host, call.as("ADD"))
			}
			l.countTunnel("h1", "h2")
			talk.whole(500)
			if slow := l.countedTunnel("h1", "output"); slow > 100 {
				t.Errorf("put back: %d of 500 packets passed the rules", slow)
			}
			for host, e := range map[string]*fastEnd{"h1": l.a, "h2": l.b} {
				l.mustOn(host, e.call.as("DEL"))
				l.in(netnsPath(host), func() { l.exec(program(t, "lnctl"), "--state-dir", "/run/libnet-"+host, "network", "rm", "net0") })
			}
			l.fast.noPins()
		})
	}
}

package iptables

import (
	"errors"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// A packet to the host's loopback addresses from outside gets no answer, of the
// host's services neither.
func TestGuard(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.must(lntest.In(t, l.out, func() error { return routeLoopback("eth0", "192.0.2.1") }))
	tcp := []string{"tcp"} // the host answers datagrams from another address
	l.checkOver(tcp, probe{l.out, "127.0.0.1:4713", "4713 192.0.2.2"})
	l.e.Ports, l.e.Hairpin = tcpAndUDP("127.0.0.1", 8080), true
	l.apply(l.n, l.e)
	l.check(
		probe{l.out, "127.0.0.1:4713", ""}, probe{l.out, "127.0.0.1:8080", ""},
		probe{l.host, "127.0.0.1:4713", "4713 127.0.0.1"}, probe{l.host, "127.0.0.1:8080", "10.10.0.1"},
	)
	runTool(t, "iptables", "-t", "raw", "-F", "LIBNET-GUARD") // it was the guard
	l.checkOver(tcp, probe{l.out, "127.0.0.1:4713", "4713 192.0.2.2"}, probe{l.out, "127.0.0.1:8080", "192.0.2.2"})
	mustRemove(t, l.f, l.n, l.e)
	l.checkOver(tcp, probe{l.out, "127.0.0.1:4713", "4713 192.0.2.2"})
}

// routeLoopback sends what is for 127.0.0.0/8 to the gateway.
func routeLoopback(dev, gateway string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	own, err := netlink.ParseAddr("127.0.0.1/8")
	if err != nil {
		return err
	}
	_, all, err := net.ParseCIDR("127.0.0.0/8")
	return errors.Join(err, netlink.AddrDel(lo, own), lntest.Sysctl("ipv4/conf/"+dev+"/route_localnet", "1"),
		netlink.RouteAdd(&netlink.Route{Dst: all, Gw: net.ParseIP(gateway)}))
}

func TestInternal(t *testing.T) {
	t.Parallel()
	underPolicies(t, func(_ *testing.T, l *lab) {
		l.n.Internal = true
		l.apply(l.n, l.e)
		l.apply(firewall.Network{Name: "net1", Bridge: "br1"}, firewall.Endpoint{})
		l.check(
			probe{l.a, "192.0.2.2:4711", ""}, probe{l.a, "[fd20::2]:4711", ""}, probe{l.a, "10.11.0.2:4711", ""},
			probe{l.out, "10.10.0.2:4711", ""}, probe{l.out, "[fd10::2]:4711", ""}, probe{l.c, "10.10.0.2:4711", ""},
			probe{l.host, "10.10.0.2:4711", "10.10.0.1"}, probe{l.b, "10.10.0.2:4711", "10.10.0.3"},
			probe{l.a, "10.10.0.1:4713", "4713 10.10.0.2"}, probe{l.out, "10.11.0.2:4711", "192.0.2.2"},
		)
	})
}

// Frames that are bridged are out of reach: b is asked by way of the host.
func TestNoICC(t *testing.T) {
	t.Parallel()
	underPolicies(t, func(_ *testing.T, l *lab) {
		l.routeNeighbours()
		l.apply(l.n, l.e)
		l.check(probe{l.a, "10.10.0.3:4711", "10.10.0.2"})
		l.n.NoICC = true
		l.apply(l.n, l.e)
		l.check(probe{l.a, "10.10.0.3:4711", ""}, probe{l.a, "192.0.2.2:4711", "10.10.0.2"}, probe{l.a, "10.10.0.1:4713", "4713 10.10.0.2"})
	})
}

// routeNeighbours has a and b reach each other by IPv4 by way of the host.
func (l *lab) routeNeighbours() {
	l.t.Helper()
	l.must(lntest.Sysctl("ipv4/conf/all/send_redirects", "0"))
	l.must(lntest.Sysctl("ipv4/conf/br0/send_redirects", "0"))
	l.must(lntest.In(l.t, l.a, func() error { return byGateway("10.10.0.3/32", "10.10.0.1") }))
	l.must(lntest.In(l.t, l.b, func() error { return byGateway("10.10.0.2/32", "10.10.0.1") }))
}

func byGateway(to, gateway string) error {
	_, dst, err := net.ParseCIDR(to)
	return errors.Join(err, netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(gateway), Flags: int(unix.RTNH_F_ONLINK), LinkIndex: 2}))
}

func TestApart(t *testing.T) {
	t.Parallel()
	underPolicies(t, func(_ *testing.T, l *lab) {
		net1 := firewall.Network{Name: "net1", Bridge: "br1"}
		l.n.Apart = true
		l.e.Ports, l.e.Hairpin = tcpAndUDP("", 8080), true
		l.apply(l.n, l.e)
		l.apply(net1, firewall.Endpoint{}) // one alone is apart from no other
		l.check(probe{l.c, "10.10.0.2:4711", "10.11.0.2"}, probe{l.c, "10.11.0.1:8080", "10.11.0.2"})
		net1.Apart = true
		l.apply(net1, firewall.Endpoint{})
		l.check(
			probe{l.c, "10.10.0.2:4711", ""}, probe{l.c, "[fd10::2]:4711", ""}, probe{l.a, "10.11.0.2:4711", ""},
			probe{l.c, "10.11.0.1:8080", ""}, probe{l.out, "192.0.2.1:8080", "192.0.2.2"}, probe{l.b, "10.10.0.2:4711", "10.10.0.3"},
			probe{l.a, "192.0.2.2:4711", "10.10.0.2"}, probe{l.out, "10.11.0.2:4711", "192.0.2.2"},
		)
	})
}

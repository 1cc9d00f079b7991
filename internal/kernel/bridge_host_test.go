package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// uplink gives the host an interface up0 with addresses of its own, and returns
// the namespace at its other end, eth0.
func uplink(t testing.TB, h *Handle, cidrs ...string) *Netns {
	t.Helper()
	if err := lntest.NoDAD(); err != nil {
		t.Fatal(err)
	}
	path := lntest.NewNetns(t)
	lntest.Wire(t, "up0", path, func() error { return lntest.Up("eth0", "192.0.2.2/24", "2001:db8::2/64") })
	if err := lntest.Up("up0", cidrs...); err != nil {
		t.Fatal(err)
	}
	n, err := OpenNetns(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// TestIsolatedBridge sends what a container could send to its host, by each
// address, with each source, and what the host could send to the container. On
// a bridge without an address that is not isolated it all arrives.
func TestIsolatedBridge(t *testing.T) {
	t.Parallel()
	for _, isolated := range []bool{false, true} {
		h := newHandle(t)
		uplink(t, h, "192.0.2.1/24", "2001:db8::1/64")
		b := Bridge{Name: "iso", Alias: "libnet:net1/", Isolated: isolated}
		st := mustBridge(t, h, b)
		if err := h.VerifyBridge(t.Context(), b); err != nil {
			t.Error(err)
		}
		n := newNetns(t)
		l := testLink(n)
		l.Bridge, l.Routes = "iso", nil
		l.Addrs = prefixes("10.46.0.2/24", "fd46::2/64")
		mustAttach(t, h, l)
		in, err := net.ListenUDP("udp", &net.UDPAddr{Port: 5000})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close() })
		if err := n.Do(func() error { return knowHost(st.MAC) }); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ from, to string }{
			{"10.46.0.2", "192.0.2.1"}, {"192.0.2.77", "192.0.2.1"}, {"192.0.2.1", "192.0.2.1"}, {"10.46.0.2", "255.255.255.255"},
			{"10.46.0.2", "224.0.0.1"}, {"fd46::2", "2001:db8::1"}, {"2001:db8::2", "2001:db8::1"}, {"fd46::2", "ff02::1"},
		} {
			_ = n.Do(func() error { return sendFrom(tt.from, tt.to) })
			got := received(in, lntest.WaitForNone)
			if got && isolated {
				t.Errorf("%s to %s: the host got it", tt.from, tt.to)
			}
			// With its own address as source, nothing arrives anywhere.
			if !got && !isolated && tt.from != tt.to && tt.to != "224.0.0.1" {
				t.Errorf("%s to %s: the test sends what never arrives", tt.from, tt.to)
			}
		}
		if err := n.Do(askByARP); (err == nil) == isolated {
			t.Errorf("isolated %t: TCP to an address found by ARP: %v", isolated, err)
		}
		if err := toLinkLocal(n); (err == nil) == isolated {
			t.Errorf("isolated %t: the host to the container's link-local address: %v", isolated, err)
		}
	}
}

// knowHost gives eth0 the routes, neighbours and sources of a container that
// wants to reach its host.
func knowHost(mac net.HardwareAddr) error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	at := eth0.Attrs().Index
	var errs []error
	for _, s := range []string{"192.0.2.77/32", "192.0.2.1/32", "2001:db8::2/128"} {
		errs = append(errs, lntest.Up("eth0", s))
	}
	// Its own, so that it can be a source, and not local, so that it can be asked.
	errs = append(errs, netlink.AddrDel(eth0, must(netlink.ParseAddr("192.0.2.1/32"))))
	for _, s := range []string{"192.0.2.1/32", "192.0.2.9/32", "2001:db8::1/128"} {
		_, dst, err := net.ParseCIDR(s)
		errs = append(errs, err, netlink.RouteAdd(&netlink.Route{Dst: dst, LinkIndex: at, Scope: unix.RT_SCOPE_LINK}))
	}
	for _, s := range []string{"192.0.2.1", "2001:db8::1"} {
		errs = append(errs, netlink.NeighSet(&netlink.Neigh{LinkIndex: at, IP: net.ParseIP(s), HardwareAddr: mac, State: unix.NUD_PERMANENT}))
	}
	return errors.Join(errs...)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sendFrom sends a datagram to port 5000 from any address.
func sendFrom(from, to string) error {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	fd, err := unix.Socket(family(src), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(fd, "eth0"))
	if src.Is4() {
		return errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1), unix.Bind(fd, &unix.SockaddrInet4{Addr: src.As4()}),
			unix.Sendto(fd, []byte("!"), 0, &unix.SockaddrInet4{Addr: dst.As4(), Port: 5000}))
	}
	return errors.Join(err, unix.Bind(fd, &unix.SockaddrInet6{Addr: src.As16()}),
		unix.Sendto(fd, []byte("!"), 0, &unix.SockaddrInet6{Addr: dst.As16(), Port: 5000, ZoneId: uint32(eth0.Index)}))
}

// received says whether anything comes; it takes all that does.
func received(in *net.UDPConn, patience time.Duration) bool {
	got := false
	for {
		_ = in.SetReadDeadline(time.Now().Add(patience))
		if _, _, err := in.ReadFromUDPAddrPort(make([]byte, 8)); err != nil {
			return got
		}
		got, patience = true, time.Millisecond
	}
}

// askByARP sends an ARP request for the host's address on up0, and waits until
// the kernel has an answer or gives up.
func askByARP() error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	ip := net.ParseIP("192.0.2.1")
	if err := netlink.NeighDel(&netlink.Neigh{LinkIndex: eth0.Attrs().Index, IP: ip}); err != nil {
		return err
	}
	for range 100 {
		_ = sendFrom("10.46.0.2", "192.0.2.1")
		all, err := netlink.NeighList(eth0.Attrs().Index, unix.AF_INET)
		if err != nil {
			return err
		}
		for _, n := range all {
			if n.IP.Equal(ip) && n.State&(unix.NUD_REACHABLE|unix.NUD_STALE|unix.NUD_DELAY|unix.NUD_PROBE) != 0 {
				return nil
			}
			if n.IP.Equal(ip) && n.State&unix.NUD_FAILED != 0 {
				return errors.New("no answer")
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("no answer for 5 s")
}

// toLinkLocal connects from the host to the container's link-local address.
func toLinkLocal(n *Netns) error {
	var to string
	err := n.withConn(func(c *conn) error {
		d, err := c.device("eth0")
		if err != nil {
			return err
		}
		as, err := c.addrs(d.index, unix.AF_INET6)
		for _, a := range as {
			if a.prefix.Addr().IsLinkLocalUnicast() {
				to = a.prefix.Addr().String()
			}
		}
		return err
	})
	if err != nil || to == "" {
		return fmt.Errorf("no link-local address: %w", err)
	}
	var l net.Listener
	if err := n.Do(func() (err error) { l, err = net.Listen("tcp", ":81"); return err }); err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	d := net.Dialer{Timeout: lntest.WaitForAnswer}
	c, err := d.Dial("tcp", "["+to+"%iso]:81")
	if err == nil {
		err = c.Close()
	}
	return err
}

// An isolated network does not take a bridge on which the host or another
// network is, nor may a network with a gateway join its containers.
func TestIsolatedBridgeOfOthers(t *testing.T) {
	t.Parallel()
	h := newHandle(t)
	mustBridge(t, h, Bridge{Name: "lan0"})
	if err := lntest.Up("lan0", "172.16.9.5/24"); err != nil {
		t.Fatal(err)
	}
	iso := Bridge{Name: "lan0", Alias: "libnet:net1/", Isolated: true}
	if _, err := h.EnsureBridge(t.Context(), iso); !errors.Is(err, ErrAddressConflict) || !strings.Contains(err.Error(), "lan0 has 172.16.9.5/24") {
		t.Errorf("the host's bridge: got %v", err)
	}
	nat := testBridge()
	mustBridge(t, h, nat)
	iso.Name, iso.Needed = "br0", func([]netip.Prefix) ([]netip.Prefix, error) { return nat.Gateways, nil }
	if _, err := h.EnsureBridge(t.Context(), iso); !errors.Is(err, ErrAddressConflict) {
		t.Errorf("another network's bridge: got %v", err)
	}
	if err := h.VerifyBridge(t.Context(), nat); err != nil {
		t.Errorf("the refused network changed the bridge: %v", err)
	}
	iso.Needed = nil // it is gone
	mustBridge(t, h, iso)
	if err := h.VerifyBridge(t.Context(), iso); err != nil {
		t.Error(err)
	}
	mustBridge(t, h, nat) // and back, while there is no container
	if err := h.VerifyBridge(t.Context(), nat); err != nil {
		t.Error(err)
	}
	mustBridge(t, h, iso)
	l := testLink(newNetns(t))
	l.Routes = nil
	mustAttach(t, h, l)
	if _, err := h.EnsureBridge(t.Context(), nat); !errors.Is(err, ErrAddressConflict) || !strings.Contains(err.Error(), "isolated") {
		t.Errorf("a gateway beside an isolated container: got %v", err)
	}
	if err := h.VerifyBridge(t.Context(), iso); err != nil {
		t.Error(err)
	}
}

// TestForwardBy makes a bridge where "default" says that interfaces do not
// forward, and sees packets of a container arrive.
func TestForwardBy(t *testing.T) {
	t.Parallel()
	h := newHandle(t)
	out := uplink(t, h, "192.0.2.1/24", "2001:db8::1/64")
	if err := out.Do(func() error { return lntest.Via("192.0.2.1", "2001:db8::1") }); err != nil {
		t.Fatal(err)
	}
	if err := h.Forward(t.Context(), true, true); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(setSysctl("net/ipv4/conf/default/forwarding", "0"), setSysctl("net/ipv6/conf/default/forwarding", "0"))
	if err != nil {
		t.Fatal(err)
	}
	b := testBridge()
	b.ForwardIPv4, b.ForwardIPv6 = true, true
	mustBridge(t, h, b)
	n := newNetns(t)
	mustAttach(t, h, testLink(n))
	for range 2 {
		for _, addr := range []string{"192.0.2.2:80", "[2001:db8::2]:80"} {
			if err := reach(out.Do, n.Do, addr); err != nil {
				t.Errorf("%s: %v", addr, err)
			}
		}
		if err := h.VerifyBridge(t.Context(), b); err != nil {
			t.Error(err)
		}
		if err := setSysctl("net/ipv4/conf/br0/forwarding", "0"); err != nil {
			t.Fatal(err)
		}
		if err := h.VerifyBridge(t.Context(), b); err == nil || !strings.Contains(err.Error(), "net.ipv4.conf.br0.forwarding is 0, want 1") {
			t.Errorf("forwarding of br0 is off: got %v", err)
		}
		if off, _, err := h.NotForwarding(t.Context(), []string{"br0", "br9"}); fmt.Sprint(off) != "[br0]" || err != nil {
			t.Errorf("got %v, %v", off, err)
		}
		mustBridge(t, h, b) // of an existing bridge, too
	}
	if err := errors.Join(lntest.Via("192.0.2.2"), setSysctl("net/ipv4/conf/up0/forwarding", "0")); err != nil {
		t.Fatal(err)
	}
	if off, up, err := h.NotForwarding(t.Context(), []string{"br0"}); len(off) != 0 || fmt.Sprint(up) != "[up0]" || err != nil {
		t.Errorf("uplink: got %v, %v, %v", off, up, err)
	}
}

// The host's address on its own bridge stays, whatever the key says, and so do
// the routes by it.
func TestForceAddressOfHost(t *testing.T) {
	t.Parallel()
	h := newHandle(t)
	st := mustBridge(t, h, Bridge{Name: "lan0"})
	if err := lntest.Up("lan0", "172.16.9.5/24"); err != nil {
		t.Fatal(err)
	}
	b := Bridge{Name: "lan0", Alias: "libnet:net1/", Gateways: prefixes("10.1.0.1/24"), ForceAddress: true}
	_, err := h.EnsureBridge(t.Context(), b)
	if !errors.Is(err, ErrAddressConflict) || !strings.Contains(err.Error(), "lan0") || !strings.Contains(err.Error(), "172.16.9.5/24") {
		t.Errorf("got %v", err)
	}
	as, err := h.addrs(st.Index, unix.AF_INET)
	if err != nil || len(as) != 1 || as[0].prefix.String() != "172.16.9.5/24" {
		t.Errorf("addresses are %v (%v)", as, err)
	}
	rs, err := h.routes(unix.AF_INET, st.Index, unix.RT_TABLE_MAIN)
	if err != nil || len(rs) != 1 {
		t.Errorf("routes are %v (%v)", rs, err)
	}

	// An address that the administrator put on a bridge of ours.
	own := testBridge()
	own.Gateways = prefixes("10.1.0.1/24")
	mustBridge(t, h, own)
	if err := lntest.Up("br0", "172.16.8.5/24"); err != nil {
		t.Fatal(err)
	}
	own.Gateways, own.ForceAddress = prefixes("10.2.0.1/24"), true
	if _, err := h.EnsureBridge(t.Context(), own); !errors.Is(err, ErrAddressConflict) || !strings.Contains(err.Error(), "172.16.8.5/24") {
		t.Errorf("an administrator's address on our bridge: got %v", err)
	}
}

// Gateways that living attachments need stay, and the wanted one comes beside
// them; one that none needs any more gives way on a bridge without ports.
func TestGatewaysOfOthers(t *testing.T) {
	t.Parallel()
	h := newHandle(t)
	b := testBridge()
	b.Gateways = prefixes("10.1.0.1/24")
	mustBridge(t, h, b)
	l := testLink(newNetns(t))
	l.Addrs, l.Routes = prefixes("10.1.0.2/24"), nil
	mustAttach(t, h, l)
	gateways := func() string {
		d, err := h.device("br0")
		if err != nil {
			t.Fatal(err)
		}
		as, err := h.addrs(d.index, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(given(as))
	}
	next := b
	next.Gateways = prefixes("10.2.0.1/24")
	if _, err := h.EnsureBridge(t.Context(), next); !errors.Is(err, ErrAddressConflict) {
		t.Errorf("with a port of who knows whom: got %v", err)
	}
	next.Needed, next.ForceAddress = func([]netip.Prefix) ([]netip.Prefix, error) { return b.Gateways, nil }, true
	mustBridge(t, h, next)
	if got := gateways(); got != "[10.1.0.1/24 10.2.0.1/24]" {
		t.Errorf("gateways are %s", got)
	}
	mustDetach(t, h, l)
	last := b
	last.Gateways = prefixes("10.3.0.1/24")
	mustBridge(t, h, last)
	if got := gateways(); got != "[10.3.0.1/24]" {
		t.Errorf("without ports: gateways are %s", got)
	}
}

// TestGatewayOutside has fe80::1 as gateway: containers get out by it, and the
// host reaches them.
func TestGatewayOutside(t *testing.T) {
	t.Parallel()
	h := newHandle(t)
	out := uplink(t, h, "192.0.2.1/24", "2001:db8::1/64")
	if err := out.Do(func() error { return lntest.Via("2001:db8::1") }); err != nil {
		t.Fatal(err)
	}
	b := Bridge{Name: "br0", Alias: "libnet:net1/", Gateways: prefixes("fe80::1/64"), Subnets: prefixes("fd31::/64"), IPv6: IPv6On, ForwardIPv6: true}
	mustBridge(t, h, b)
	if err := h.Forward(t.Context(), false, true); err != nil {
		t.Fatal(err)
	}
	n := newNetns(t)
	l := testLink(n)
	l.Addrs = prefixes("fd31::2/64")
	l.Routes = []Route{{Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fe80::1")}}
	mustAttach(t, h, l)
	here := func(fn func() error) error { return fn() }
	for range 2 {
		if err := reach(out.Do, n.Do, "[2001:db8::2]:80"); err != nil {
			t.Errorf("out: %v", err)
		}
		if err := reach(n.Do, here, "[fd31::2]:80"); err != nil {
			t.Errorf("host to container: %v", err)
		}
		if err := h.VerifyBridge(t.Context(), b); err != nil {
			t.Error(err)
		}
		d, err := h.device("br0")
		if err == nil {
			err = h.removeRoute(d.index, b.Subnets[0])
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := h.VerifyBridge(t.Context(), b); err == nil || !strings.Contains(err.Error(), "route to fd31::/64 is missing") {
			t.Errorf("without the route: got %v", err)
		}
		mustBridge(t, h, b)
	}
}

// A bridge that an administrator made keeps its MAC while containers come and
// go, and EnsureBridge tells the MAC that it keeps.
func TestPinMAC(t *testing.T) {
	t.Parallel()
	h := newHandle(t)
	if err := addLink(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err != nil {
		t.Fatal(err)
	}
	before, err := h.device("br0")
	if err != nil {
		t.Fatal(err)
	}
	st := mustBridge(t, h, testBridge())
	if st.MAC.String() != before.mac.String() {
		t.Errorf("MAC changed from %s to %s", before.mac, st.MAC)
	}
	same := func(when string) {
		t.Helper()
		if d, err := h.device("br0"); err != nil || d.mac.String() != st.MAC.String() {
			t.Errorf("%s: MAC is %v (%v), want %s", when, d.mac, err, st.MAC)
		}
	}
	low := pair{host: "v0", peer: "v1", hostMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, peerMAC: randomMAC(), peerNS: -1, mtu: 1500, master: st.Index}
	if _, err := h.createPair(low); err != nil {
		t.Fatal(err)
	}
	same("with a port of a lower MAC")
	l := testLink(newNetns(t))
	mustAttach(t, h, l)
	same("with a container")
	mustDetach(t, h, l)
	if err := h.deleteLinkByName("v0"); err != nil {
		t.Fatal(err)
	}
	same("without ports")
	// A bridge that lost its last port has a MAC of zeros, if it has none of its own.
	bare := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br1"}}
	if err := addLink(bare); err != nil {
		t.Fatal(err)
	}
	low.master = bare.Attrs().Index
	if _, err := h.createPair(low); err != nil {
		t.Fatal(err)
	}
	if err := h.deleteLinkByName("v0"); err != nil {
		t.Fatal(err)
	}
	b := testBridge()
	b.Name = "br1"
	if st := mustBridge(t, h, b); st.MAC.String() == "00:00:00:00:00:00" || st.MAC[0]&1 != 0 {
		t.Errorf("MAC is %s", st.MAC)
	}
}

// What EnsureBridge sets, VerifyBridge misses, and EnsureBridge sets again.
func TestVerifyBridgeSettings(t *testing.T) {
	t.Parallel()
	h := newHandle(t)
	if err := h.Forward(t.Context(), true, true); err != nil {
		t.Fatal(err)
	}
	v4 := Bridge{Name: "b4", Alias: "libnet:n4/", Gateways: prefixes("10.1.0.1/24"), IPv6: IPv6Off, ForwardIPv4: true}
	v6 := Bridge{Name: "b6", Alias: "libnet:n6/", Gateways: prefixes("fd00:1::1/64"), IPv6: IPv6On, ForwardIPv6: true}
	iso := Bridge{Name: "iso", Alias: "libnet:iso/", Isolated: true}
	for _, tt := range []struct {
		b             Bridge
		path, bad, in string
	}{
		{v4, ipv6Conf("b4", "disable_ipv6"), "0", "net.ipv6.conf.b4.disable_ipv6 is 0, want 1"},
		{v4, "net/ipv4/conf/b4/forwarding", "0", "net.ipv4.conf.b4.forwarding is 0, want 1"},
		{v6, ipv6Conf("b6", "accept_ra"), "2", "net.ipv6.conf.b6.accept_ra is 2, want 0"},
		{v6, ipv6Conf("b6", "disable_ipv6"), "1", "address fd00:1::1/64 is missing"},
		{iso, "net/ipv4/conf/iso/arp_ignore", "0", "net.ipv4.conf.iso.arp_ignore is 0, want 8"},
		{iso, "net/ipv4/conf/iso/rp_filter", "0", "net.ipv4.conf.iso.rp_filter is 0, want 1"},
		{iso, ipv6Conf("iso", "disable_ipv6"), "0", "net.ipv6.conf.iso.disable_ipv6 is 0, want 1"},
	} {
		mustBridge(t, h, tt.b)
		if err := h.VerifyBridge(t.Context(), tt.b); err != nil {
			t.Errorf("%s: made: %v", tt.path, err)
		}
		if err := setSysctl(tt.path, tt.bad); err != nil {
			t.Fatal(err)
		}
		if err := h.VerifyBridge(t.Context(), tt.b); err == nil || !strings.Contains(err.Error(), tt.in) {
			t.Errorf("%s=%s: got %v, want %q", tt.path, tt.bad, err, tt.in)
		}
	}
	for _, path := range []string{forwardV4, forwardV6} {
		if err := setSysctl(path, "0"); err != nil {
			t.Fatal(err)
		}
	}
	for b, in := range map[*Bridge]string{&v4: "net.ipv4.ip_forward is 0", &v6: "net.ipv6.conf.all.forwarding is 0"} {
		if err := h.VerifyBridge(t.Context(), *b); err == nil || !strings.Contains(err.Error(), in) {
			t.Errorf("got %v, want %q", err, in)
		}
	}
	v4.RouteLocalnet = true
	if err := h.VerifyBridge(t.Context(), v4); err == nil || !strings.Contains(err.Error(), "net.ipv4.conf.b4.route_localnet is 0") {
		t.Errorf("route_localnet: got %v", err)
	}
	if _, err := h.SetRouteLocalnet("b4", true); err != nil {
		t.Fatal(err)
	}
	if on, err := h.RouteLocalnet("b4"); !on || err != nil {
		t.Errorf("route_localnet is %t (%v)", on, err)
	}
}

// A container without IPv6 addresses has no IPv6: a neighbour could re-route it.
func TestVerifyIPv6Off(t *testing.T) {
	t.Parallel()
	h := newHandle(t)
	mustBridge(t, h, testBridge())
	n := newNetns(t)
	l := testLink(n)
	l.Addrs, l.Routes, l.IPv6 = prefixes("10.1.0.2/24"), nil, IPv6Off
	mustAttach(t, h, l)
	if err := h.Verify(t.Context(), l); err != nil {
		t.Error(err)
	}
	if err := n.Do(func() error { return setSysctl(ipv6Conf("eth0", "disable_ipv6"), "0") }); err != nil {
		t.Fatal(err)
	}
	if err := h.Verify(t.Context(), l); err == nil || !strings.Contains(err.Error(), "net.ipv6.conf.eth0.disable_ipv6") {
		t.Errorf("IPv6 is on: got %v", err)
	}
}

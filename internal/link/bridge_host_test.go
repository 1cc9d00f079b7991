package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
)

// uplink gives the host an interface up0 with addresses of its own, and returns
// the namespace at its other end, eth0.
func uplink(t testing.TB, cidrs ...string) *netns.Namespace {
	t.Helper()
	if err := lntest.NoDAD(); err != nil {
		t.Fatal(err)
	}
	path := lntest.NewNetns(t)
	lntest.Wire(t, "up0", path, func() error { return lntest.Up("eth0", "192.0.2.2/24", "2001:db8::2/64") })
	if err := lntest.Up("up0", cidrs...); err != nil {
		t.Fatal(err)
	}
	n, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// TestForwardBy makes a bridge where "default" says that interfaces do not
// forward, and sees packets of a container arrive.
func TestForwardBy(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	out := uplink(t, "192.0.2.1/24", "2001:db8::1/64")
	if err := out.Do(func() error { return lntest.Via("192.0.2.1", "2001:db8::1") }); err != nil {
		t.Fatal(err)
	}
	if err := h.host.Forward(t.Context(), true, true); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(host.SetSysctl("net/ipv4/conf/default/forwarding", "0"), host.SetSysctl("net/ipv6/conf/default/forwarding", "0"))
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
		if err := host.SetSysctl("net/ipv4/conf/br0/forwarding", "0"); err != nil {
			t.Fatal(err)
		}
		if err := h.VerifyBridge(t.Context(), b); err == nil || !strings.Contains(err.Error(), "net.ipv4.conf.br0.forwarding is 0, want 1") {
			t.Errorf("forwarding of br0 is off: got %v", err)
		}
		if off, _, err := h.host.NotForwarding(t.Context(), []string{"br0", "br9"}); fmt.Sprint(off) != "[br0]" || err != nil {
			t.Errorf("got %v, %v", off, err)
		}
		mustBridge(t, h, b) // of an existing bridge, too
	}
	if err := errors.Join(lntest.Via("192.0.2.2"), host.SetSysctl("net/ipv4/conf/up0/forwarding", "0")); err != nil {
		t.Fatal(err)
	}
	if off, up, err := h.host.NotForwarding(t.Context(), []string{"br0"}); len(off) != 0 || fmt.Sprint(up) != "[up0]" || err != nil {
		t.Errorf("uplink: got %v, %v, %v", off, up, err)
	}
}

// The host's address on its own bridge stays, whatever the key says, and so do
// the routes by it.
func TestForceAddressOfHost(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	st := mustBridge(t, h, Bridge{Name: "lan0"})
	if err := lntest.Up("lan0", "172.16.9.5/24"); err != nil {
		t.Fatal(err)
	}
	b := Bridge{Name: "lan0", Alias: "libnet:net1/", Gateways: lntest.Prefixes("10.1.0.1/24"), ForceAddress: true}
	_, err := h.EnsureBridge(t.Context(), b)
	if !errors.Is(err, ErrAddressConflict) || !strings.Contains(err.Error(), "lan0") || !strings.Contains(err.Error(), "172.16.9.5/24") {
		t.Errorf("got %v", err)
	}
	as, err := h.conn.Addrs(st.Index, unix.AF_INET)
	if err != nil || len(as) != 1 || as[0].Prefix.String() != "172.16.9.5/24" {
		t.Errorf("addresses are %v (%v)", as, err)
	}
	rs, err := h.conn.Routes(unix.AF_INET, st.Index, unix.RT_TABLE_MAIN)
	if err != nil || len(rs) != 1 {
		t.Errorf("routes are %v (%v)", rs, err)
	}

	// An address that the administrator put on a bridge of ours.
	own := testBridge()
	own.Gateways = lntest.Prefixes("10.1.0.1/24")
	mustBridge(t, h, own)
	if err := lntest.Up("br0", "172.16.8.5/24"); err != nil {
		t.Fatal(err)
	}
	own.Gateways, own.ForceAddress = lntest.Prefixes("10.2.0.1/24"), true
	if _, err := h.EnsureBridge(t.Context(), own); !errors.Is(err, ErrAddressConflict) || !strings.Contains(err.Error(), "172.16.8.5/24") {
		t.Errorf("an administrator's address on our bridge: got %v", err)
	}
}

// Gateways that living attachments need stay, and the wanted one comes beside
// them; one that none needs any more gives way on a bridge without ports.
func TestGatewaysOfOthers(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	b := testBridge()
	b.Gateways = lntest.Prefixes("10.1.0.1/24")
	mustBridge(t, h, b)
	l := testLink(newNetns(t))
	l.Addrs, l.Routes = lntest.Prefixes("10.1.0.2/24"), nil
	mustAttach(t, h, l)
	gateways := func() string {
		d, err := h.conn.Device("br0")
		if err != nil {
			t.Fatal(err)
		}
		as, err := h.conn.Addrs(d.Index, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(given(as))
	}
	next := b
	next.Gateways = lntest.Prefixes("10.2.0.1/24")
	if _, err := h.EnsureBridge(t.Context(), next); !errors.Is(err, ErrAddressConflict) {
		t.Errorf("with a port of an unknown owner: got %v", err)
	}
	next.Needed, next.ForceAddress = func([]netip.Prefix) ([]netip.Prefix, error) { return b.Gateways, nil }, true
	mustBridge(t, h, next)
	if got := gateways(); got != "[10.1.0.1/24 10.2.0.1/24]" {
		t.Errorf("gateways are %s", got)
	}
	mustDetach(t, h, l)
	last := b
	last.Gateways = lntest.Prefixes("10.3.0.1/24")
	mustBridge(t, h, last)
	if got := gateways(); got != "[10.3.0.1/24]" {
		t.Errorf("without ports: gateways are %s", got)
	}
}

// TestGatewayOutside has fe80::1 as gateway: containers get out by it, and the
// host reaches them.
func TestGatewayOutside(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	out := uplink(t, "192.0.2.1/24", "2001:db8::1/64")
	if err := out.Do(func() error { return lntest.Via("2001:db8::1") }); err != nil {
		t.Fatal(err)
	}
	b := Bridge{Name: "br0", Alias: "libnet:net1/", Gateways: lntest.Prefixes("fe80::1/64"), Subnets: lntest.Prefixes("fd31::/64"), IPv6: host.IPv6On, ForwardIPv6: true}
	mustBridge(t, h, b)
	if err := h.host.Forward(t.Context(), false, true); err != nil {
		t.Fatal(err)
	}
	n := newNetns(t)
	l := testLink(n)
	l.Addrs = lntest.Prefixes("fd31::2/64")
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
		d, err := h.conn.Device("br0")
		if err == nil {
			err = removeRoute(h.conn, d.Index, b.Subnets[0])
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
	h := newLinks(t)
	if err := lntest.AddLink(&vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "br0"}}); err != nil {
		t.Fatal(err)
	}
	before, err := h.conn.Device("br0")
	if err != nil {
		t.Fatal(err)
	}
	st := mustBridge(t, h, testBridge())
	if st.MAC.String() != before.MAC.String() {
		t.Errorf("MAC changed from %s to %s", before.MAC, st.MAC)
	}
	same := func(when string) {
		t.Helper()
		if d, err := h.conn.Device("br0"); err != nil || d.MAC.String() != st.MAC.String() {
			t.Errorf("%s: MAC is %v (%v), want %s", when, d.MAC, err, st.MAC)
		}
	}
	low := pair{host: "v0", peer: "v1", hostMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, peerMAC: netlink.RandomMAC(), peerNS: -1, mtu: 1500, master: st.Index}
	if _, err := createPair(h.conn, low); err != nil {
		t.Fatal(err)
	}
	same("with a port of a lower MAC")
	l := testLink(newNetns(t))
	mustAttach(t, h, l)
	same("with a container")
	mustDetach(t, h, l)
	if err := h.conn.DeleteLinkByName("v0"); err != nil {
		t.Fatal(err)
	}
	same("without ports")
	// A bridge that lost its last port has a MAC of zeros, if it has none of its own.
	bare := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "br1"}}
	if err := lntest.AddLink(bare); err != nil {
		t.Fatal(err)
	}
	low.master = bare.Attrs().Index
	if _, err := createPair(h.conn, low); err != nil {
		t.Fatal(err)
	}
	if err := h.conn.DeleteLinkByName("v0"); err != nil {
		t.Fatal(err)
	}
	b := testBridge()
	b.Name = "br1"
	if st := mustBridge(t, h, b); st.MAC.String() == "00:00:00:00:00:00" || st.MAC[0]&1 != 0 {
		t.Errorf("MAC is %s", st.MAC)
	}
}

// EnsureBridge sets, VerifyBridge misses, and EnsureBridge sets again each setting.
func TestVerifyBridgeSettings(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	if err := h.host.Forward(t.Context(), true, true); err != nil {
		t.Fatal(err)
	}
	v4 := Bridge{Name: "b4", Alias: "libnet:n4/", Gateways: lntest.Prefixes("10.1.0.1/24"), IPv6: host.IPv6Off, ForwardIPv4: true}
	v6 := Bridge{Name: "b6", Alias: "libnet:n6/", Gateways: lntest.Prefixes("fd00:1::1/64"), IPv6: host.IPv6On, ForwardIPv6: true}
	iso := Bridge{Name: "iso", Alias: "libnet:iso/", Isolated: true}
	for _, tt := range []struct {
		b             Bridge
		path, bad, in string
	}{
		{v4, host.IPv6Conf("b4", "disable_ipv6"), "0", "net.ipv6.conf.b4.disable_ipv6 is 0, want 1"},
		{v4, "net/ipv4/conf/b4/forwarding", "0", "net.ipv4.conf.b4.forwarding is 0, want 1"},
		{v6, host.IPv6Conf("b6", "accept_ra"), "2", "net.ipv6.conf.b6.accept_ra is 2, want 0"},
		{v6, host.IPv6Conf("b6", "disable_ipv6"), "1", "address fd00:1::1/64 is missing"},
		{iso, "net/ipv4/conf/iso/arp_ignore", "0", "net.ipv4.conf.iso.arp_ignore is 0, want 8"},
		{iso, "net/ipv4/conf/iso/rp_filter", "0", "net.ipv4.conf.iso.rp_filter is 0, want 1"},
		{iso, host.IPv6Conf("iso", "disable_ipv6"), "0", "net.ipv6.conf.iso.disable_ipv6 is 0, want 1"},
	} {
		mustBridge(t, h, tt.b)
		if err := h.VerifyBridge(t.Context(), tt.b); err != nil {
			t.Errorf("%s: made: %v", tt.path, err)
		}
		if err := host.SetSysctl(tt.path, tt.bad); err != nil {
			t.Fatal(err)
		}
		if err := h.VerifyBridge(t.Context(), tt.b); err == nil || !strings.Contains(err.Error(), tt.in) {
			t.Errorf("%s=%s: got %v, want %q", tt.path, tt.bad, err, tt.in)
		}
	}
	for _, path := range []string{host.ForwardV4, host.ForwardV6} {
		if err := host.SetSysctl(path, "0"); err != nil {
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
	if _, err := h.host.SetRouteLocalnet("b4", true); err != nil {
		t.Fatal(err)
	}
	if on, err := h.host.RouteLocalnet("b4"); !on || err != nil {
		t.Errorf("route_localnet is %t (%v)", on, err)
	}
}

// A container without IPv6 addresses has no IPv6: a neighbour could re-route it.
func TestVerifyIPv6Off(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, testBridge())
	n := newNetns(t)
	l := testLink(n)
	l.Addrs, l.Routes, l.IPv6 = lntest.Prefixes("10.1.0.2/24"), nil, host.IPv6Off
	mustAttach(t, h, l)
	if err := h.Verify(t.Context(), l); err != nil {
		t.Error(err)
	}
	if err := n.Do(func() error { return host.SetSysctl(host.IPv6Conf("eth0", "disable_ipv6"), "0") }); err != nil {
		t.Fatal(err)
	}
	if err := h.Verify(t.Context(), l); err == nil || !strings.Contains(err.Error(), "net.ipv6.conf.eth0.disable_ipv6") {
		t.Errorf("IPv6 is on: got %v", err)
	}
}

package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
)

func TestAttach(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	n := newNetns(t)
	br := mustBridge(t, h, testBridge())
	l := testLink(n)
	l.Hairpin, l.Isolated, l.MTU = true, true, 1400
	l.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 9}
	a := mustAttach(t, h, l)
	if err := h.Verify(t.Context(), l); err != nil {
		t.Error(err)
	}
	if a.MAC.String() != "02:00:00:00:00:09" || a.MTU != 1400 {
		t.Errorf("got %+v", a)
	}
	hostEnd, err := h.conn.Device("vethc1")
	if err != nil {
		t.Fatal(err)
	}
	if hostEnd.Index != a.HostIndex || hostEnd.MAC.String() != a.HostMAC.String() || hostEnd.Master != br.Index || hostEnd.PortState != 3 {
		t.Errorf("host end is %+v, want as in %+v, a forwarding port of %d", hostEnd, a, br.Index)
	}
	as, err := h.conn.Addrs(hostEnd.Index, unix.AF_UNSPEC)
	if err != nil || len(as) != 0 {
		t.Errorf("host end has addresses %v (%v), want none", as, err)
	}
	in(t, n, func(c *netlink.Conn) error {
		d, err := c.Device("eth0")
		if err != nil {
			return err
		}
		if d.Index != a.Index {
			t.Errorf("index is %d, want %d", d.Index, a.Index)
		}
		as, err := c.Addrs(d.Index, unix.AF_INET6)
		for _, a := range as {
			if a.Flags&unix.IFA_F_TENTATIVE != 0 {
				t.Errorf("%s is tentative", a.Prefix)
			}
		}
		for path, want := range map[string]string{
			host.IPv6Conf("eth0", "accept_ra"): "0", host.IPv6Conf("eth0", "accept_dad"): "0",
			host.IPv6Conf("eth0", "keep_addr_on_down"): "1", "net/ipv4/conf/eth0/arp_notify": "1",
		} {
			if got, err := host.GetSysctl(path); got != want {
				t.Errorf("%s is %q (%v), want %s", path, got, err, want)
			}
		}
		return err
	})
}

func TestAttachTwice(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	n := newNetns(t)
	mustBridge(t, h, testBridge())
	l := testLink(n)
	first := mustAttach(t, h, l)
	second := mustAttach(t, h, l)
	if first.HostIndex == second.HostIndex {
		t.Error("the pair was not made anew")
	}
	if err := h.Verify(t.Context(), l); err != nil {
		t.Error(err)
	}
	if got := lntest.LinkNames(t); got != "lo br0 vethc1" {
		t.Errorf("links are %q", got)
	}
}

// TestAttachAfterCrash finds what a killed call leaves: a pair without alias.
func TestAttachAfterCrash(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	n := newNetns(t)
	br := mustBridge(t, h, testBridge())
	l := testLink(n)
	if _, err := createPair(h.conn, pair{host: l.HostName, peer: l.IfName, hostMAC: netlink.RandomMAC(), peerMAC: netlink.RandomMAC(), peerNS: n.FD(), mtu: 1500, master: br.Index}); err != nil {
		t.Fatal(err)
	}
	mustAttach(t, h, l)
	if err := h.Verify(t.Context(), l); err != nil {
		t.Error(err)
	}
}

// TestAttachSmallMTU: below 1280 an interface has no IPv6, so there is nothing to switch off.
func TestAttachSmallMTU(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, testBridge())
	for _, mode := range []host.IPv6Mode{host.IPv6Keep, host.IPv6Off, host.IPv6On} {
		l := testLink(newNetns(t))
		l.MTU, l.IPv6, l.Addrs, l.Routes = 1000, mode, lntest.Prefixes("10.1.0.2/24"), nil
		mustAttach(t, h, l)
		if err := h.Verify(t.Context(), l); err != nil {
			t.Error(err)
		}
		mustDetach(t, h, l)
	}
}

// TestAttachMany attaches and detaches from several threads at once.
func TestAttachMany(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, testBridge())
	here, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	var wg sync.WaitGroup
	for i := range 8 {
		l := testLink(newNetns(t))
		l.HostName, l.Owner = fmt.Sprint("veth", i), fmt.Sprint("libnet:c", i)
		l.Addrs = lntest.Prefixes(fmt.Sprintf("10.1.0.%d/24", i+2), fmt.Sprintf("fd00:1::%d/64", i+2))
		wg.Go(func() {
			if err := here.Do(func() error { return attachCycle(t.Context(), l) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := lntest.LinkNames(t); got != "lo br0" {
		t.Errorf("links are %q", got)
	}
}

func attachCycle(ctx context.Context, l Link) error {
	h, err := openLinks()
	if err != nil {
		return err
	}
	defer h.conn.Close()
	for range 3 {
		_, err := h.Attach(ctx, l)
		err = errors.Join(err, h.Verify(ctx, l), h.Detach(ctx, Ref{Owner: l.Owner, HostName: l.HostName}))
		if err != nil {
			return err
		}
	}
	return nil
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, bridge := h.EnsureBridge(ctx, testBridge())
	_, attach := h.Attach(ctx, testLink(newNetns(t)))
	_, list := h.List(ctx, "")
	for i, err := range []error{bridge, attach, list, h.Verify(ctx, Link{}), h.VerifyBridge(ctx, Bridge{}),
		h.Detach(ctx, Ref{}), h.RemoveBridge(ctx, "br0", ""), h.host.Forward(ctx, true, true)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d: got %v", i, err)
		}
	}
	if got := lntest.LinkNames(t); got != "lo" {
		t.Errorf("links are %q", got)
	}
}

// TestAttachFails shows that a refused attachment leaves nothing and changes nothing.
func TestAttachFails(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, testBridge())
	taken := newNetns(t)
	mustAttach(t, h, Link{Owner: "other", HostName: "vethother", Bridge: "br0", Netns: taken, IfName: "eth0"})
	closed := newNetnsClosed(t)
	other := newNetns(t)
	tests := []struct {
		name   string
		change func(*Link)
		want   error
		text   string
	}{
		{"ifname taken", func(l *Link) { l.Netns = taken }, netlink.ErrExists, "eth0"},
		{"host name of another owner", func(l *Link) { l.HostName = "vethother" }, netlink.ErrExists, `alias "other"`},
		{"host name of another kind", func(l *Link) { l.HostName = "br0" }, netlink.ErrExists, "br0"},
		{"same owner, other namespace", func(l *Link) { l.HostName, l.Owner = "vethother", "other" }, netlink.ErrExists, "same owner"},
		{"bridge missing", func(l *Link) { l.Bridge = "br9" }, netlink.ErrNotFound, "br9"},
		{"not a bridge", func(l *Link) { l.Bridge = "vethother" }, ErrNotBridge, "veth"},
		{"namespace closed", func(l *Link) { l.Netns = closed }, unix.EBADF, ""},
		{"no namespace", func(l *Link) { l.Netns = nil }, nil, "no network namespace"},
		{"bad address", func(l *Link) { l.Addrs = []netip.Prefix{{}} }, nil, "invalid address"},
		{"address twice", func(l *Link) { l.Addrs = lntest.Prefixes("10.1.0.2/24", "10.1.0.2/24") }, netlink.ErrExists, "10.1.0.2/24"},
		{"gateway out of reach", func(l *Link) {
			l.Routes = []Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.1")}}
		}, unix.ENETUNREACH, "192.0.2.1"},
		{"v6 address, v6 off", func(l *Link) { l.IPv6 = host.IPv6Off }, nil, "IPv6 off"},
		{"v6 address, MTU below 1280", func(l *Link) { l.MTU = 1000 }, netlink.ErrUnsupported, "IPv6"},
		{"VLAN", func(l *Link) { l.VLAN = 7 }, netlink.ErrUnsupported, "CONFIG_BRIDGE_VLAN_FILTERING"},
		{"trunk", func(l *Link) { l.Trunk = []VLANRange{{10, 20}} }, netlink.ErrUnsupported, "CONFIG_BRIDGE_VLAN_FILTERING"},
		{"multicast MAC", func(l *Link) { l.MAC = net.HardwareAddr{1, 0, 0, 0, 0, 1} }, nil, "unicast"},
		{"long name", func(l *Link) { l.HostName = "a123456789012345" }, nil, "interface name"},
		{"long owner", func(l *Link) { l.Owner = strings.Repeat("x", 256) }, nil, "255"},
	}
	before := lntest.LinkNames(t)
	for _, tt := range tests {
		l := testLink(other)
		tt.change(&l)
		_, err := h.Attach(t.Context(), l)
		if errors.Is(tt.want, netlink.ErrUnsupported) && strings.Contains(tt.text, "VLAN") && err == nil {
			mustDetach(t, h, l)
			continue // this kernel has VLAN filtering
		}
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.text) {
			t.Errorf("%s: got %v, want %v with %q", tt.name, err, tt.want, tt.text)
		}
		if got := lntest.LinkNames(t); got != before {
			t.Fatalf("%s: links are %q, want %q", tt.name, got, before)
		}
		in(t, other, func(c *netlink.Conn) error {
			ds, err := c.Devices(0)
			if len(ds) != 1 {
				t.Errorf("%s: %d links in the namespace, want lo only", tt.name, len(ds))
			}
			return err
		})
	}
}

func newNetnsClosed(t *testing.T) *netns.Namespace {
	n, err := netns.Open(lntest.NewNetns(t))
	if err := errors.Join(err, n.Close()); err != nil {
		t.Fatal(err)
	}
	return n
}

func mustDetach(t testing.TB, h *Links, l Link) {
	t.Helper()
	if err := h.Detach(t.Context(), Ref{Owner: l.Owner, HostName: l.HostName}); err != nil {
		t.Fatal(err)
	}
}

func TestAttachBridgeDown(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	st := mustBridge(t, h, testBridge())
	if err := h.conn.SetLink(st.Index, 0, unix.IFF_UP); err != nil {
		t.Fatal(err)
	}
	l := testLink(newNetns(t))
	if _, err := h.Attach(t.Context(), l); err == nil || !strings.Contains(err.Error(), "br0 is down") {
		t.Errorf("got %v", err)
	}
}

func TestAttachDown(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	n := newNetns(t)
	mustBridge(t, h, testBridge())
	l := testLink(n)
	l.Down, l.Addrs, l.Routes = true, nil, nil
	mustAttach(t, h, l)
	if err := h.Verify(t.Context(), l); err != nil {
		t.Error(err)
	}
	in(t, n, func(c *netlink.Conn) error {
		d, err := c.Device("eth0")
		if err == nil && d.Up() {
			t.Error("the container's end is up")
		}
		return err
	})
}

func TestAttachIPv6Modes(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, testBridge())
	for _, tt := range []struct {
		mode      host.IPv6Mode
		addrs     []netip.Prefix
		all, want string // disable_ipv6 before, of everything, and after
	}{
		{host.IPv6Keep, lntest.Prefixes("10.1.0.2/24"), "0", "0"},
		{host.IPv6Keep, lntest.Prefixes("10.1.0.2/24"), "1", "1"},
		{host.IPv6Keep, lntest.Prefixes("fd00:1::2/64"), "1", "0"},
		{host.IPv6Off, lntest.Prefixes("10.1.0.2/24"), "0", "1"},
		{host.IPv6On, lntest.Prefixes("10.1.0.2/24"), "1", "0"},
	} {
		n := newNetns(t)
		if err := n.Do(func() error {
			return errors.Join(host.SetSysctl(host.IPv6Conf("all", "disable_ipv6"), tt.all), host.SetSysctl(host.IPv6Conf("default", "disable_ipv6"), tt.all))
		}); err != nil {
			t.Fatal(err)
		}
		l := testLink(n)
		l.IPv6, l.Addrs, l.Routes = tt.mode, tt.addrs, nil
		mustAttach(t, h, l)
		var got string
		if err := n.Do(func() (err error) { got, err = host.GetSysctl(host.IPv6Conf("eth0", "disable_ipv6")); return err }); err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("mode %d, %v, before %s: disable_ipv6 is %s, want %s", tt.mode, tt.addrs, tt.all, got, tt.want)
		}
		mustDetach(t, h, l)
	}
}

func TestRouteAttributes(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, testBridge())
	l := testLink(newNetns(t))
	scope := unix.RT_SCOPE_LINK
	l.Routes = []Route{
		{Dst: netip.MustParsePrefix("192.0.2.7/24"), Gateway: netip.MustParseAddr("10.1.0.1"), MTU: 1300, AdvMSS: 1200, Priority: 7},
		{Dst: netip.MustParsePrefix("198.51.100.0/24"), Table: 1000, Scope: &scope},
		{Dst: netip.MustParsePrefix("203.0.113.0/24"), Table: 100},
		{Dst: netip.MustParsePrefix("2001:db8::/32"), Gateway: netip.MustParseAddr("fd00:1::1"), MTU: 1300, Table: 1000},
		{Dst: netip.MustParsePrefix("2001:db8:1::/48"), Priority: 9},
	}
	mustAttach(t, h, l)
	if err := h.Verify(t.Context(), l); err != nil {
		t.Error(err)
	}
	l.Routes[0].MTU++
	l.Routes[1].Table++
	if err := h.Verify(t.Context(), l); err == nil || !strings.Contains(err.Error(), "changed") || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v", err)
	}
}

func TestDAD(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, testBridge())
	l := testLink(newNetns(t))
	l.EnableDAD = true
	mustAttach(t, h, l)
	if err := h.Verify(t.Context(), l); err != nil {
		t.Error(err)
	}
	twin := testLink(newNetns(t))
	twin.Owner, twin.HostName, twin.EnableDAD = "libnet:net1/c2/eth0", "vethc2", true
	twin.Addrs = lntest.Prefixes("10.1.0.3/24", "fd00:1::2/64")
	_, err := h.Attach(t.Context(), twin)
	if !errors.Is(err, errDAD) || !strings.Contains(err.Error(), "fd00:1::2/64") {
		t.Errorf("got %v, want %v", err, errDAD)
	}
	if got := lntest.LinkNames(t); got != "lo br0 vethc1" {
		t.Errorf("links are %q", got)
	}
}

func TestBridgeFull(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("makes 1023 ports")
	}
	h := newLinks(t)
	n := newNetns(t)
	br := mustBridge(t, h, testBridge())
	for i := range maxPorts {
		p := pair{host: fmt.Sprint("p", i), peer: fmt.Sprint("q", i), hostMAC: netlink.RandomMAC(), peerMAC: netlink.RandomMAC(), peerNS: n.FD(), mtu: 1500, master: br.Index}
		if _, err := createPair(h.conn, p); err != nil {
			t.Fatalf("port %d: %v", i, err)
		}
	}
	_, err := h.Attach(t.Context(), testLink(n))
	if !errors.Is(err, netlink.ErrBridgeFull) || !strings.Contains(err.Error(), "1023 ports") {
		t.Errorf("got %v", err)
	}
}

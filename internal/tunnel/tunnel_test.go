package tunnel

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// testTunnel is one with a host at the other end, of both families.
func testTunnel() Tunnel {
	far := MAC{2, 0, 0, 0, 0, 2}
	return Tunnel{
		Name: "vx0", Alias: "libnet:net1/", VNI: 5000, Port: 4789, Local: netip.MustParseAddr("192.0.2.1"),
		MAC: MAC{2, 0, 0, 0, 0, 1}, MTU: 1450, IPv6: host.IPv6On, Addrs: lntest.Prefixes("10.5.0.0/32", "fd05::/128"),
		Routes: []Route{
			{netip.MustParsePrefix("10.5.1.0/24"), netip.MustParseAddr("10.5.1.0")},
			{netip.MustParsePrefix("fd05:0:0:1::/64"), netip.MustParseAddr("fd05:0:0:1::")},
		},
		Neighbours: []Neighbour{{netip.MustParseAddr("10.5.1.0"), far}, {netip.MustParseAddr("fd05:0:0:1::"), far}},
		FDB:        []FDBEntry{{far, netip.MustParseAddr("192.0.2.2")}},
	}
}

func mustTunnel(t *testing.T, h *Tunnels, want Tunnel) {
	t.Helper()
	if _, err := h.EnsureTunnel(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if err := h.VerifyTunnel(t.Context(), want); err != nil {
		t.Fatalf("right after EnsureTunnel: %v", err)
	}
}

// A reconciled tunnel costs a few questions, and no change.
func TestEnsureTunnelTwice(t *testing.T) {
	t.Parallel()
	h := newTunnels(t)
	want := testTunnel()
	mustTunnel(t, h, want)
	d, before, err := snapshotTunnel(h, want)
	if err != nil {
		t.Fatal(err)
	}
	asked := h.conn.Requests()
	created, err := h.EnsureTunnel(t.Context(), want)
	if err != nil || created {
		t.Errorf("again: created %t, %v", created, err)
	}
	if n := h.conn.Requests() - asked; n > 6 {
		t.Errorf("again: %d questions, want 6 at most", n)
	}
	again, after, err := snapshotTunnel(h, want)
	if err != nil || again.Index != d.Index {
		t.Errorf("again: index %d, was %d: %v", again.Index, d.Index, err)
	}
	if diff := cmp.Diff(before, after, cmp.AllowUnexported(tunnelState{}, netlink.Address{}), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Errorf("again (-before +after):\n%s", diff)
	}
}

// snapshotTunnel leaves out what the kernel changes by itself: the link-local address of a new device is
// tentative for a second or two.
func snapshotTunnel(h *Tunnels, want Tunnel) (*netlink.Device, tunnelState, error) {
	d, err := h.conn.Device(want.Name)
	if err != nil {
		return nil, tunnelState{}, err
	}
	s, err := readTunnel(h.conn, d, want)
	for i := range s.addrs {
		s.addrs[i].Flags &^= unix.IFA_F_TENTATIVE
	}
	return d, s, err
}

// VerifyTunnel reports every change by hand, and EnsureTunnel mends it.
func TestTunnelByHand(t *testing.T) {
	t.Parallel()
	want := testTunnel()
	strange := MAC{2, 9, 9, 9, 9, 9}
	for name, do := range map[string]func(h *Tunnels, d *netlink.Device) error{
		"device deleted": func(h *Tunnels, d *netlink.Device) error { return h.conn.DeleteLink(d.Index) },
		"device down":    func(h *Tunnels, d *netlink.Device) error { return h.conn.SetLink(d.Index, 0, unix.IFF_UP) },
		"MTU": func(h *Tunnels, d *netlink.Device) error {
			return h.conn.SetLink(d.Index, 0, 0, netlink.AttrUint32(unix.IFLA_MTU, 1400))
		},
		"MAC": func(h *Tunnels, d *netlink.Device) error {
			return h.conn.SetLink(d.Index, 0, 0, netlink.Attr(unix.IFLA_ADDRESS, strange[:]))
		},
		"alias lost": func(h *Tunnels, d *netlink.Device) error {
			return h.conn.SetLink(d.Index, 0, 0, netlink.Attr(unix.IFLA_IFALIAS, []byte{0}))
		},
		"address removed":      func(h *Tunnels, d *netlink.Device) error { return h.conn.RemoveAddr(d.Index, want.Addrs[0]) },
		"IPv6 address removed": func(h *Tunnels, d *netlink.Device) error { return h.conn.RemoveAddr(d.Index, want.Addrs[1]) },
		"route removed": func(h *Tunnels, d *netlink.Device) error {
			return changeTunnelRoute(h.conn, unix.RTM_DELROUTE, 0, d.Index, want.Routes[0])
		},
		"IPv6 route removed": func(h *Tunnels, d *netlink.Device) error {
			return changeTunnelRoute(h.conn, unix.RTM_DELROUTE, 0, d.Index, want.Routes[1])
		},
		"route too much": func(h *Tunnels, d *netlink.Device) error {
			return changeTunnelRoute(h.conn, unix.RTM_NEWROUTE, unix.NLM_F_CREATE, d.Index, Route{netip.MustParsePrefix("10.6.0.0/24"), want.Routes[0].Via})
		},
		"neighbour removed": func(h *Tunnels, d *netlink.Device) error {
			return changeNeighbour(h.conn, unix.RTM_DELNEIGH, d.Index, want.Neighbours[0])
		},
		"neighbour changed": func(h *Tunnels, d *netlink.Device) error {
			return changeNeighbour(h.conn, unix.RTM_NEWNEIGH, d.Index, Neighbour{want.Neighbours[1].Addr, strange})
		},
		"forwarding entry removed": func(h *Tunnels, d *netlink.Device) error {
			return changeFDB(h.conn, unix.RTM_DELNEIGH, d.Index, want.FDB[0])
		},
		"forwarding entry changed": func(h *Tunnels, d *netlink.Device) error {
			return changeFDB(h.conn, unix.RTM_NEWNEIGH, d.Index, FDBEntry{want.FDB[0].MAC, netip.MustParseAddr("192.0.2.9")})
		},
		"forwarding entry too much": func(h *Tunnels, d *netlink.Device) error {
			return changeFDB(h.conn, unix.RTM_NEWNEIGH, d.Index, FDBEntry{strange, netip.MustParseAddr("192.0.2.9")})
		},
		"floods": func(h *Tunnels, d *netlink.Device) error {
			msg := netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: d.Index, State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF}
			return h.conn.Change(netlink.Request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_APPEND, msg,
				netlink.Attr(unix.NDA_LLADDR, make([]byte, 6)), netlink.Attr(unix.NDA_DST, []byte{192, 0, 2, 9})))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newTunnels(t)
			mustTunnel(t, h, want)
			d, err := h.conn.Device(want.Name)
			if err == nil {
				err = do(h, d)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := h.VerifyTunnel(t.Context(), want); err == nil {
				t.Error("VerifyTunnel finds nothing")
			}
			mustTunnel(t, h, want)
		})
	}
}

// Every field can change; the device is made anew where the kernel wants that.
func TestTunnelChanges(t *testing.T) {
	t.Parallel()
	h := newTunnels(t)
	if err := vnl.LinkAdd(&vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "under", MTU: 1500}}); err != nil {
		t.Fatal(err)
	}
	want := testTunnel()
	mustTunnel(t, h, want)
	for _, change := range []func(){
		func() { want.VNI = 5001 },
		func() { want.Port = 8472 },
		func() { want.Local = netip.MustParseAddr("192.0.2.7") },
		func() { want.Device = "under" },
		func() { want.MTU = 1400 },
		func() { want.FDB, want.Routes, want.Neighbours = nil, nil, nil },
		func() { want.Local = netip.MustParseAddr("2001:db8::1") },
		func() { want.Addrs, want.IPv6 = lntest.Prefixes("10.7.0.0/32"), host.IPv6Off },
	} {
		change()
		mustTunnel(t, h, want)
	}
	if err := h.RemoveTunnel(t.Context(), want.Name, "libnet:other/"); err != nil {
		t.Error(err)
	}
	if has, err := h.HasTunnel(want.Name, want.Alias); !has || err != nil {
		t.Errorf("another network's RemoveTunnel: has %t, %v", has, err)
	}
	for range 2 {
		if err := h.RemoveTunnel(t.Context(), want.Name, want.Alias); err != nil {
			t.Error(err)
		}
	}
	if got := lntest.LinkNames(t); got != "lo under" {
		t.Errorf("links left: %s", got)
	}
}

func TestTunnelRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before func(h *Tunnels) error
		want   error
	}{
		"name taken": {func(*Tunnels) error {
			return vnl.LinkAdd(&vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "vx0"}})
		}, netlink.ErrExists},
		"VNI taken": {func(h *Tunnels) error {
			other := testTunnel()
			other.Name, other.Alias, other.Routes, other.Addrs = "vx1", "libnet:net2/", nil, nil
			_, err := h.EnsureTunnel(t.Context(), other)
			return err
		}, ErrVNIInUse},
		"route taken": {func(*Tunnels) error {
			d := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "lan"}}
			return errors.Join(lntest.AddLink(d, "10.5.1.1/24"), vnl.LinkSetUp(d))
		}, ErrRouteConflict},
		"IPv6 route taken": {func(*Tunnels) error {
			d := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "lan"}}
			return errors.Join(lntest.AddLink(d, "fd05:0:0:1::1/64"), vnl.LinkSetUp(d))
		}, ErrRouteConflict},
		"block of another network": {func(h *Tunnels) error {
			other := testTunnel()
			other.Name, other.VNI, other.Routes, other.Neighbours = "vx1", 6000, other.Routes[1:], other.Neighbours[1:]
			_, err := h.EnsureTunnel(t.Context(), other)
			return err
		}, ErrRouteConflict},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTunnels(t)
			if err := tt.before(h); err != nil {
				t.Fatal(err)
			}
			before := lntest.LinkNames(t)
			if _, err := h.EnsureTunnel(t.Context(), testTunnel()); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if got := lntest.LinkNames(t); got != before {
				t.Errorf("links: %s, before %s", got, before)
			}
		})
	}
}

func TestPathMTU(t *testing.T) {
	t.Parallel()
	h := newTunnels(t)
	wide := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "wide", MTU: 9000}}
	slim := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "slim", MTU: 1400}}
	err := errors.Join(lntest.AddLink(wide, "192.0.2.1/24", "2001:db8::1/64"), vnl.LinkSetUp(wide), lntest.AddLink(slim, "198.51.100.1/24"), vnl.LinkSetUp(slim))
	err = errors.Join(err, vnl.RouteAdd(&vnl.Route{Dst: lntest.CIDR("203.0.113.0/24"), LinkIndex: wide.Attrs().Index, MTU: 2000}))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		local string
		peers []string
		dev   string
		want  int
	}{
		{"192.0.2.1", []string{"192.0.2.2"}, "", 9000},
		{"192.0.2.1", []string{"192.0.2.2", "198.51.100.2"}, "", 1400},
		{"192.0.2.1", []string{"192.0.2.2", "203.0.113.2"}, "", 2000},
		{"192.0.2.1", nil, "", 9000},
		{"198.51.100.1", []string{"100.64.0.1"}, "", 1400}, // out of reach
		{"2001:db8::1", []string{"2001:db8::2"}, "", 9000},
		{"192.0.2.1", []string{"192.0.2.2"}, "wide", 9000},
	} {
		var peers []netip.Addr
		for _, p := range tt.peers {
			peers = append(peers, netip.MustParseAddr(p))
		}
		if got, err := h.PathMTU(netip.MustParseAddr(tt.local), peers, tt.dev); got != tt.want || err != nil {
			t.Errorf("%v: got %d, %v, want %d", tt, got, err, tt.want)
		}
	}
	if _, err := h.PathMTU(netip.MustParseAddr("192.0.2.99"), nil, ""); !errors.Is(err, netlink.ErrNotFound) {
		t.Errorf("neither route nor address: got %v, want ErrNotFound", err)
	}
}

// Of very many peers the kernel is asked for one by each route, and no peer is
// passed over, neither for a longer route nor for a rule of its own.
func TestPathMTUOfMany(t *testing.T) {
	t.Parallel()
	h := newTunnels(t)
	wide := &vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "wide", MTU: 9000}}
	if err := errors.Join(lntest.AddLink(wide, "192.0.2.1/24", "2001:db8::1/64"), vnl.LinkSetUp(wide)); err != nil {
		t.Fatal(err)
	}
	var all, all6 []netip.Addr
	for i := range 200 {
		all = append(all, netip.AddrFrom4([4]byte{192, 0, 2, byte(2 + i)}))
		all6 = append(all6, netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 2: 0xd, 3: 0xb8, 15: byte(2 + i)}))
	}
	want := func(peers []netip.Addr, mtu int, most int) {
		t.Helper()
		asked := h.conn.Requests()
		got, err := h.PathMTU(peers[0], peers, "")
		if got != mtu || err != nil || h.conn.Requests()-asked > most {
			t.Errorf("got %d, %v by %d questions, want %d by %d at most", got, err, h.conn.Requests()-asked, mtu, most)
		}
	}
	add := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want(all, 9000, 3)
	want(all6, 9000, 3)
	add(vnl.RouteAdd(&vnl.Route{Dst: lntest.CIDR("192.0.2.128/25"), LinkIndex: wide.Attrs().Index, MTU: 3000}))
	add(vnl.RouteAdd(&vnl.Route{Dst: lntest.CIDR("2001:db8::80/121"), LinkIndex: wide.Attrs().Index, MTU: 3000}))
	want(all, 3000, 4)
	want(all6, 3000, 4)
	add(vnl.RouteAdd(&vnl.Route{Dst: lntest.CIDR("192.0.2.77/32"), LinkIndex: wide.Attrs().Index, MTU: 2000, Table: 100}))
	want(all, 3000, 5)
	rule := vnl.NewRule()
	rule.Table, rule.Priority = 100, 50
	add(vnl.RuleAdd(rule))
	want(all, 2000, 5) // a rule for all destinations: the routes of its table count
	add(vnl.RuleDel(rule))
	rule.Dst = lntest.CIDR("192.0.2.99/32")
	add(vnl.RouteAdd(&vnl.Route{Dst: lntest.CIDR("0.0.0.0/0"), LinkIndex: wide.Attrs().Index, MTU: 1800, Table: 100}))
	add(vnl.RuleAdd(rule))
	want(all, 1800, 210) // one for a single destination: each peer is asked for
}

// A block that was this host's is another one's: its address makes way for the
// route, and the other routes stay.
func TestTunnelBlockMoves(t *testing.T) {
	t.Parallel()
	h := newTunnels(t)
	want := testTunnel()
	mustTunnel(t, h, want)
	far := want.FDB[0].MAC
	want.Routes = append(want.Routes, Route{netip.MustParsePrefix("10.5.0.0/24"), netip.MustParseAddr("10.5.0.0")})
	want.Neighbours = append(want.Neighbours, Neighbour{netip.MustParseAddr("10.5.0.0"), far})
	want.Addrs = lntest.Prefixes("10.5.9.0/32", "fd05::/128")
	mustTunnel(t, h, want)
}

// A route that the host has elsewhere leaves only one host out; the device
// stays. Entries that were put right are counted.
func TestMendTunnel(t *testing.T) {
	t.Parallel()
	h := newTunnels(t)
	want := testTunnel()
	third := MAC{2, 0, 0, 0, 0, 3}
	want.Routes = append(want.Routes, Route{netip.MustParsePrefix("10.5.2.0/24"), netip.MustParseAddr("10.5.2.0")})
	want.Neighbours = append(want.Neighbours, Neighbour{netip.MustParseAddr("10.5.2.0"), third})
	want.FDB = append(want.FDB, FDBEntry{third, netip.MustParseAddr("192.0.2.3")})
	br := link.Bridge{Name: "br0", Alias: "libnet:net1/", Gateways: lntest.Prefixes("10.5.1.1/24", "10.6.0.1/24"), IPv6: host.IPv6Off}
	links := link.New(h.conn, host.New(h.conn, nil), nil)
	if _, err := links.EnsureBridge(t.Context(), br); err != nil {
		t.Fatal(err)
	}
	got, err := h.MendTunnel(t.Context(), want)
	if !errors.Is(err, ErrRouteConflict) || !got.Created || got.Lacking != 1 {
		t.Errorf("with the host's own route: %+v, %v, want one host lacking", got, err)
	}
	within, keep := lntest.Prefixes("10.5.0.0/16"), lntest.Prefixes("10.5.0.0/24")
	if dropped, err := links.DropAddrs(t.Context(), "br0", "another's", within, keep); err != nil || dropped != nil {
		t.Errorf("of another's bridge dropped %v, %v", dropped, err)
	}
	dropped, err := links.DropAddrs(t.Context(), "br0", br.Alias, within, keep)
	if err != nil || len(dropped) != 1 || dropped[0] != br.Gateways[0] {
		t.Errorf("dropped %v, %v, want only 10.5.1.1/24", dropped, err)
	}
	got, err = h.MendTunnel(t.Context(), want)
	if err != nil || got != (Mended{Up: true, Changes: 1}) {
		t.Errorf("without it: %+v, %v, want one change", got, err)
	}
	if err := h.VerifyTunnel(t.Context(), want); err != nil {
		t.Error(err)
	}
	if got, err = h.MendTunnel(t.Context(), want); err != nil || got != (Mended{Up: true}) {
		t.Errorf("again: %+v, %v, want nothing", got, err)
	}
}

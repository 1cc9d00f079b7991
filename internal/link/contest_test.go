package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
)

func TestPrecedence(t *testing.T) {
	for _, p := range []Precedence{
		{Network: "net1"}, {Network: "a.b-c_d", Priority: -2147483648, Internal: true}, {Network: strings.Repeat("n", 200), Priority: 2147483647},
	} {
		if got, ok := parsePrecedence(p.alias()); !ok || got != p {
			t.Errorf("%q became %+v, %v", p.alias(), got, ok)
		}
		if err := p.check(); err != nil {
			t.Error(err)
		}
	}
	for _, alias := range []string{"", "libnet:net1/c1/eth0", aliasStart, aliasStart + "1", aliasStart + "x internal=false network=n", aliasStart + "1 internal=false network=", aliasStart + "2147483648 internal=false network=n"} {
		if p, ok := parsePrecedence(alias); ok {
			t.Errorf("%q became %+v, want none", alias, p)
		}
	}
	if (Precedence{Network: "a b"}).check() == nil {
		t.Error("a network name with a blank was accepted")
	}
}

func TestAssign(t *testing.T) {
	net := func(name string, priority int32) contender {
		return contender{rival: rival{Device: &netlink.Device{Name: "eth0"}, prec: Precedence{Network: name, Priority: priority}}}
	}
	internal := func(c contender) contender { c.prec.Internal = true; return c }
	at := func(c contender, ifName string) contender { c.Device = &netlink.Device{Name: ifName}; return c }
	for _, tt := range []struct {
		name   string
		all    []contender
		fixed  []int
		v4, v6 string // network and metric, in order
	}{
		{"alone", []contender{net("a", 0)}, nil, "a 0", "a 1025"},
		{"alone, below", []contender{net("a", -5)}, nil, "a 0", "a 1025"},
		{"names", []contender{net("b", 0), net("c", 0), net("a", 0)}, nil, "a 0, b 2048, c 2049", "a 1025, b 2048, c 2049"},
		{"names by bytes", []contender{net("a", 0), net("B", 0), net("a1", 0)}, nil, "B 0, a 2048, a1 2049", "B 1025, a 2048, a1 2049"},
		{"internal after others of its priority", []contender{internal(net("a", 0)), net("b", 0)}, nil, "b 0, a 2048", "b 1025, a 2048"},
		{"priority before internal", []contender{internal(net("a", 1)), net("b", 0)}, nil, "a 0, b 2048", "a 512, b 2048"},
		{"all of int32", []contender{net("a", -2147483648), net("b", 2147483647), net("c", 0)}, nil, "b 0, c 2048, a 2049", "b 512, c 2048, a 2049"},
		{"one network twice", []contender{at(net("a", 0), "net1"), net("a", 0)}, nil, "a 0, a 2048", "a 1025, a 2048"},
		{"another program's", []contender{net("a", 0), net("b", 0)}, []int{0, 1025}, "a 2048, b 2049", "a 2048, b 2049"},
		{"another program's, and told to go first", []contender{net("a", 0), net("b", 1)}, []int{0}, "b 0, a 2048", "b 512, a 2048"},
		{"another program's of a worse metric", []contender{net("a", 0), net("b", 0)}, []int{2048, 4000}, "a 0, b 2049", "a 1025, b 2049"},
		{"the metric in front is taken", []contender{net("a", 1)}, []int{512, 511}, "a 0", "a 510"},
	} {
		for _, is6 := range []bool{false, true} {
			all := slices.Clone(tt.all)
			assign(all, tt.fixed, is6)
			var got []string
			for _, c := range all {
				got = append(got, fmt.Sprintf("%s %d", c.prec.Network, c.metric))
			}
			want := tt.v4
			if is6 {
				want = tt.v6
			}
			if diff := cmp.Diff(want, strings.Join(got, ", ")); diff != "" {
				t.Errorf("%s, IPv6 %v (-want +got):\n%s", tt.name, is6, diff)
			}
		}
	}
}

// several makes bridges br1, br2, … with a subnet each, and links of networks to
// them that are all for one namespace.
func several(t *testing.T, h *Links, n *netns.Namespace, precs ...Precedence) []Link {
	t.Helper()
	var links []Link
	for i, p := range precs {
		i++
		br := Bridge{Name: fmt.Sprint("br", i), Alias: "libnet:" + p.Network, Gateways: lntest.Prefixes(fmt.Sprintf("10.%d.0.1/24", i), fmt.Sprintf("fd00:%d::1/64", i))}
		mustBridge(t, h, br)
		l := testLink(n)
		l.Owner, l.HostName, l.Bridge, l.IfName, l.Precedence = fmt.Sprint("libnet:n/c/", i), fmt.Sprint("veth", i), br.Name, fmt.Sprint("eth", i), p
		l.Addrs = lntest.Prefixes(fmt.Sprintf("10.%d.0.2/24", i), fmt.Sprintf("fd00:%d::2/64", i))
		l.Routes = []Route{
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: br.Gateways[0].Addr()},
			{Dst: netip.MustParsePrefix("::/0"), Gateway: br.Gateways[1].Addr()},
		}
		links = append(links, l)
	}
	return links
}

// defaults lists the default routes of a namespace as "eth1 0 | eth2 1025", those
// of IPv4 before those of IPv6, each in the order in which the kernel tries them.
func defaults(t *testing.T, n *netns.Namespace) string {
	t.Helper()
	var families []string
	in(t, n, func(c *netlink.Conn) error {
		for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
			rs, err := c.Routes(fam, 0, unix.RT_TABLE_MAIN)
			if err != nil {
				return err
			}
			rs = slices.DeleteFunc(rs, func(r netlink.Route) bool { return r.Dst.Bits() > 0 })
			slices.SortStableFunc(rs, func(a, b netlink.Route) int { return a.Priority - b.Priority })
			var all []string
			for _, r := range rs {
				d, err := c.DeviceByIndex(r.OIF)
				if err != nil {
					return err
				}
				all = append(all, fmt.Sprint(d.Name, " ", r.Priority))
			}
			families = append(families, strings.Join(all, " "))
		}
		return nil
	})
	return strings.Join(families, " | ")
}

// In whatever order, or at once, the networks of a container come, the routes
// are the same, and they stay in order when one goes and another comes.
func TestRoutesOfSeveral(t *testing.T) {
	t.Parallel()
	precs := []Precedence{{Network: "a", Internal: true}, {Network: "b"}, {Network: "c", Priority: -1}}
	const want = "eth2 0 eth1 2048 eth3 2049 | eth2 1025 eth1 2048 eth3 2049"
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}, nil} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			h, n := newLinks(t), newNetns(t)
			links := several(t, h, n, precs...)
			for _, i := range order {
				mustAttach(t, h, links[i])
			}
			if order == nil {
				attachAtOnce(t, n, links)
			}
			if diff := cmp.Diff(want, defaults(t, n)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, l := range links {
				if err := h.Verify(t.Context(), l); err != nil {
					t.Error(err)
				}
			}
			mustDetach(t, h, links[1])
			if got := defaults(t, n); got != "eth1 2048 eth3 2049 | eth1 2048 eth3 2049" {
				t.Errorf("without the first: %s", got)
			}
			mustAttach(t, h, links[1])
			if diff := cmp.Diff(want, defaults(t, n)); diff != "" {
				t.Errorf("again (-want +got):\n%s", diff)
			}
			mustDetach(t, h, links[0])
			mustDetach(t, h, links[1])
			links[0].Precedence.Priority = -2
			mustAttach(t, h, links[0])
			if got := defaults(t, n); got != "eth3 0 eth1 2048 | eth3 1025 eth1 2048" {
				t.Errorf("with a last one: %s", got)
			}
		})
	}
}

// attachAtOnce opens the namespace once for each link, as processes do.
func attachAtOnce(t *testing.T, n *netns.Namespace, links []Link) {
	t.Helper()
	here, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	var wg sync.WaitGroup
	for _, l := range links {
		own, err := netns.Open(n.Path())
		if err != nil {
			t.Fatal(err)
		}
		l.Netns = own
		wg.Go(func() {
			err := here.Do(func() error {
				h, err := openLinks()
				if err != nil {
					return err
				}
				defer h.conn.Close()
				_, err = h.Attach(context.Background(), l)
				return err
			})
			if err := errors.Join(err, own.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// foreign makes another program's link with an address and a default route of each
// family, as the reference plugins set them.
func foreign(c *netlink.Conn, t *testing.T, name string, net int) {
	t.Helper()
	if _, err := createPair(c, pair{host: name, peer: name + "-peer", hostMAC: netlink.RandomMAC(), peerMAC: netlink.RandomMAC(), peerNS: -1, mtu: 1500}); err != nil {
		t.Fatal(err)
	}
	d, err := c.Device(name)
	peer, peerErr := c.Device(name + "-peer")
	if err := errors.Join(err, peerErr, c.SetLink(peer.Index, unix.IFF_UP, unix.IFF_UP)); err != nil {
		t.Fatal(err)
	}
	addrs := lntest.Prefixes(fmt.Sprintf("10.%d.0.9/24", net), fmt.Sprintf("fd00:%d::9/64", net))
	gateways := []netip.Addr{addrs[0].Masked().Addr().Next(), addrs[1].Masked().Addr().Next()}
	err = errors.Join(c.AddAddr(d.Index, addrs[0], false), c.AddAddr(d.Index, addrs[1], false), c.SetLink(d.Index, unix.IFF_UP, unix.IFF_UP),
		addRoute(c, d.Index, Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: gateways[0]}),
		addRoute(c, d.Index, Route{Dst: netip.MustParsePrefix("::/0"), Gateway: gateways[1]}))
	if err != nil {
		t.Fatal(err)
	}
}

// Routes of other programs stay as they are. They go first in either order of
// attachment, unless ours have a priority above 0; IPv6 makes no route of several
// next hops of them.
func TestRoutesBesideOthers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		priority int32
		before   bool // the other program was first
		want     string
	}{
		{0, true, "ext 0 eth1 2048 | ext 1024 eth1 1025"},
		{0, false, "ext 0 eth1 0 | ext 1024 eth1 1025"},
		{1, true, "eth1 0 ext 0 | eth1 512 ext 1024"},
		{1, false, "ext 0 eth1 0 | eth1 512 ext 1024"}, // of one metric IPv4 takes the newest
	} {
		h, n := newLinks(t), newNetns(t)
		l := several(t, h, n, Precedence{Network: "a", Priority: tt.priority})[0]
		foreign := func() { in(t, n, func(c *netlink.Conn) error { foreign(c, t, "ext", 9); return nil }) }
		if tt.before {
			foreign()
		}
		mustAttach(t, h, l)
		if !tt.before {
			foreign()
		}
		if diff := cmp.Diff(tt.want, defaults(t, n)); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt, diff)
		}
		if err := h.Verify(t.Context(), l); err != nil {
			t.Error(err)
		}
		mustDetach(t, h, l)
	}
}

// A route that the kernel made one of several next hops of, as those of two
// attachments of earlier versions, is there for each of them.
func TestVerifyMultipath(t *testing.T) {
	t.Parallel()
	h, n := newLinks(t), newNetns(t)
	links := several(t, h, n, Precedence{}, Precedence{}) // as earlier versions did
	for _, l := range links {
		mustAttach(t, h, l)
	}
	if got := defaults(t, n); !strings.HasSuffix(got, "| eth1 1024 eth2 1024") {
		t.Fatalf("routes are %s, want one of two next hops", got)
	}
	for _, l := range links {
		if err := h.Verify(t.Context(), l); err != nil {
			t.Error(err)
		}
	}
	mustDetach(t, h, links[0])
	if err := h.Verify(t.Context(), links[1]); err != nil {
		t.Error(err)
	}
	if err := h.Verify(t.Context(), links[0]); !errors.Is(err, netlink.ErrNotFound) {
		t.Errorf("detached: %v", err)
	}
}

// A route with a priority of its own keeps it, and one that makes way keeps its
// attributes.
func TestRoutesKeepWhatIsGiven(t *testing.T) {
	t.Parallel()
	h, n := newLinks(t), newNetns(t)
	links := several(t, h, n, Precedence{Network: "b"}, Precedence{Network: "a"})
	links[0].Routes[0].MTU, links[0].Routes[0].AdvMSS, links[0].Routes[1].Priority = 1400, 1300, 77
	for _, l := range links {
		mustAttach(t, h, l)
	}
	if got, want := defaults(t, n), "eth2 0 eth1 2048 | eth1 77 eth2 1025"; got != want {
		t.Errorf("routes are %s, want %s", got, want)
	}
	for _, l := range links {
		if err := h.Verify(t.Context(), l); err != nil {
			t.Error(err)
		}
	}
}

// An attachment waits for the lock of the routes until its context ends.
func TestLockRoutes(t *testing.T) {
	t.Parallel()
	h, n := newLinks(t), newNetns(t)
	l := several(t, h, n, Precedence{Network: "a"})[0]
	other, err := netns.Open(n.Path())
	if err != nil {
		t.Fatal(err)
	}
	free, err := other.LockRoutes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := n.LockRoutes(ctx)
		failed <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, flock.ErrLocked) {
		t.Errorf("held: %v", err)
	}
	free()
	mustAttach(t, h, l)
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}

// Strict filters on the way of a container with several networks become loose;
// others, and those of a container with one, stay.
func TestLoosen(t *testing.T) {
	t.Parallel()
	const conf = "net/ipv4/conf/"
	for _, tt := range []struct {
		all, own string // of the host and of the container, once it has one network
		want     string // with two
	}{
		{"0", "0", "0"}, {"0", "1", "2"}, {"0", "2", "2"}, {"1", "0", "2"}, {"2", "0", "0"},
	} {
		h, n := newLinks(t), newNetns(t)
		values := func(set string) string {
			t.Helper()
			var got []string
			look := func(names ...string) error {
				for _, name := range names {
					if set != "" {
						if err := host.SetSysctl(conf+name+"/rp_filter", set); err != nil {
							return err
						}
					}
					v, err := host.GetSysctl(conf + name + "/rp_filter")
					if err != nil {
						return err
					}
					got = append(got, v)
				}
				return nil
			}
			if err := errors.Join(look("br1", "br2"), n.Do(func() error { return look("eth1") })); err != nil {
				t.Fatal(err)
			}
			return strings.Join(slices.Compact(got), " ")
		}
		links := several(t, h, n, Precedence{Network: "b"}, Precedence{Network: "a"})
		all := func() error { return host.SetSysctl(conf+"all/rp_filter", tt.all) }
		if err := errors.Join(all(), n.Do(all)); err != nil {
			t.Fatal(err)
		}
		mustAttach(t, h, links[0])
		values(tt.own)
		mustDetach(t, h, links[0])
		if err := n.Do(func() error { return host.SetSysctl(conf+"default/rp_filter", tt.own) }); err != nil {
			t.Fatal(err)
		}
		mustAttach(t, h, links[0])
		if got := values(""); got != tt.own {
			t.Errorf("%+v: with one network %s", tt, got)
		}
		mustAttach(t, h, links[1])
		if got := values(""); got != tt.want {
			t.Errorf("%+v: with two networks %s", tt, got)
		}
		mustDetach(t, h, links[0])
		mustDetach(t, h, links[1])
	}
}

// A setting that could not be read is no difference.
func TestVerifyCouldNotLook(t *testing.T) {
	t.Parallel()
	h, n := newLinks(t), newNetns(t)
	mustBridge(t, h, testBridge())
	l := testLink(n)
	mustAttach(t, h, l)
	h.conn.Close() // every question fails
	for what, err := range map[string]error{"link": h.Verify(t.Context(), l), "bridge": h.VerifyBridge(t.Context(), testBridge())} {
		if err == nil || errors.Is(err, netlink.ErrDifferent) || errors.Is(err, netlink.ErrNotFound) {
			t.Errorf("%s: %v, want an error that is no difference", what, err)
		}
	}
	again, err := openLinks()
	if err != nil {
		t.Fatal(err)
	}
	h.conn = again.conn
	l.Addrs = lntest.Prefixes("10.1.0.3/24")
	if err := h.Verify(t.Context(), l); !errors.Is(err, netlink.ErrDifferent) {
		t.Errorf("another address: %v, want ErrDifferent", err)
	}
}

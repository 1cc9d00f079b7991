package engine

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// define returns a network with a pool of these subnets, in one range set.
func (h *realHost) define(name, bridge string, subnets []string, mod ...func(*model.NetworkConfig, *ipamstore.Config)) *Network {
	h.t.Helper()
	cfg := model.NetworkConfig{Bridge: bridge, Gateway: true, DefaultGateway: true}
	pool := ipamstore.Config{Network: name, DataDir: h.dataDir, Sets: []ipamstore.RangeSet{nil}}
	for _, s := range subnets {
		pool.Sets[0] = append(pool.Sets[0], ipamstore.Range{Subnet: netip.MustParsePrefix(s)})
	}
	for _, m := range mod {
		m(&cfg, &pool)
	}
	p, err := address.NewPool(pool, model.Addressing{})
	must(h.t, err)
	n, err := h.DefineNetwork("bridge", name, WithConfig(cfg), WithIPAM(p))
	must(h.t, err)
	return n
}

// foreignIPAM has the addresses of a pool come from an IPAM whose subnets a record
// does not tell.
type foreignIPAM struct{ address.IPAM }

func (foreignIPAM) Type() string { return "host-local" }

func hostRoute(t *testing.T, r netlink.Route, dst string) {
	t.Helper()
	var err error
	r.Dst, err = netlink.ParseIPNet(dst)
	must(t, err)
	must(t, netlink.RouteAdd(&r))
}

// hostLink makes an interface of the host with an address.
func hostLink(t *testing.T, name, addr string) int {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}))
	l, err := netlink.LinkByName(name)
	must(t, err)
	for _, n := range []string{name, name + "p"} {
		end, err := netlink.LinkByName(n)
		must(t, err)
		must(t, netlink.LinkSetUp(end))
	}
	a, err := netlink.ParseAddr(addr)
	must(t, err)
	must(t, netlink.AddrAdd(l, a))
	return l.Attrs().Index
}

// A subnet is refused where this host leads elsewhere with it.
func TestSubnetInUse(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	lan := hostLink(t, "lan", "192.0.2.10/16")
	must(t, netlink.AddrAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: lan}}, &netlink.Addr{IPNet: mustNet(t, "2001:db8::10/64")}))
	hostRoute(t, netlink.Route{LinkIndex: lan}, "10.244.0.0/16")
	hostRoute(t, netlink.Route{LinkIndex: lan}, "10.60.7.128/25")
	hostRoute(t, netlink.Route{Type: 6 /* blackhole */}, "10.61.0.0/24")
	other := h.define("other", "brother", []string{"10.50.0.0/24"})
	_, err := other.Attach(ctx, h.sandbox("c0"))
	must(t, err)
	alien := h.define("alien", "bralien", []string{"10.52.0.0/24"})
	alien.ipam = foreignIPAM{alien.ipam}
	_, err = alien.Attach(ctx, h.sandbox("c00"))
	must(t, err)
	sb := h.sandbox("c1")
	for name, tt := range map[string]struct {
		subnets string
		names   string // what the refusal names; empty: there is none
		mod     func(*model.NetworkConfig, *ipamstore.Config)
	}{
		"another network's":            {"10.50.0.0/24", `10.50.0.0/24, which brother leads to, of network "other"`, nil},
		"a part of it":                 {"10.50.0.64/26", `of network "other"`, nil},
		"one around it":                {"10.50.0.0/16", `of network "other"`, nil},
		"the second of two":            {"10.51.0.0/24 10.50.0.0/24", `10.50.0.0/24`, nil},
		"with another kind of IPAM":    {"10.52.0.0/24", `10.52.0.1/24, the address of bralien, of network "alien"`, nil},
		"the host's own":               {"192.0.2.0/24", "192.0.2.10/16, the address of lan", nil},
		"of IPv6":                      {"2001:db8::/64", "2001:db8::10/64, the address of lan", nil},
		"routed elsewhere":             {"10.244.0.0/16", "10.244.0.0/16, which leads by lan", nil},
		"a part routed elsewhere":      {"10.60.0.0/16", "10.60.7.128/25, which leads by lan", nil},
		"dropped":                      {"10.61.0.0/24", "10.61.0.0/24, which drops", nil},
		"a part of what is routed":     {"10.244.3.0/24", "", nil},
		"a part of the host's network": {"192.0.3.0/24", "", nil},
		"other parts routed elsewhere": {"10.60.0.0/16", "", func(_ *model.NetworkConfig, p *ipamstore.Config) {
			p.Sets[0][0].Start, p.Sets[0][0].End = netip.MustParseAddr("10.60.4.0"), netip.MustParseAddr("10.60.7.127")
		}},
		"its own part routed elsewhere": {"10.60.0.0/16", "10.60.7.128/25", func(_ *model.NetworkConfig, p *ipamstore.Config) {
			p.Sets[0][0].Start, p.Sets[0][0].End = netip.MustParseAddr("10.60.7.0"), netip.MustParseAddr("10.60.7.128")
		}},
		"without a gateway": {"10.50.0.0/24", "", func(c *model.NetworkConfig, _ *ipamstore.Config) {
			c.Gateway, c.DefaultGateway = false, false
		}},
		"on the same bridge": {"10.50.0.0/24", "", func(c *model.NetworkConfig, p *ipamstore.Config) {
			c.Bridge, p.Sets[0][0].Start = "brother", netip.MustParseAddr("10.50.0.100")
		}},
	} {
		n := h.define("new", "brnew", strings.Fields(tt.subnets), func(c *model.NetworkConfig, p *ipamstore.Config) {
			if tt.mod != nil {
				tt.mod(c, p)
			}
		})
		before := h.links()
		// Status says the same, but of a bridge that only an attachment could have give way.
		err := n.Status(ctx)
		var asConf *model.ConfigError
		if says := err != nil && strings.Contains(err.Error(), tt.names) && !errors.As(err, &asConf); says != (tt.names != "" && name != "with another kind of IPAM") {
			t.Errorf("%s: status %v, want it to name %q", name, err, tt.names)
		}
		for range 2 { // it stays refused
			e, err := n.Attach(ctx, sb)
			var conf *model.ConfigError
			switch {
			case tt.names == "" && err != nil:
				t.Errorf("%s: %v", name, err)
			case tt.names != "" && (!errors.As(err, &conf) || !strings.Contains(err.Error(), tt.names)):
				t.Errorf("%s: got %v, want a ConfigError that names %s", name, err, tt.names)
			case err == nil:
				must(t, e.Verify(ctx))
				must(t, n.Status(ctx))
			}
			if after := h.links(); tt.names != "" && len(after) != len(before) {
				t.Errorf("%s: links %v became %v", name, before, after)
			}
		}
		must(t, n.Collect(ctx, func(life.Holder) bool { return false }, DissolveNetwork))
		must(t, other.Verify(ctx, Expectation{ID: model.ID{Network: "other", ContainerID: "c0", IfName: "eth0"}, Netns: h.netnsDir + "/c0", Addressing: addressesOf(t, other, "c0")}))
	}
}

func mustNet(t *testing.T, s string) *net.IPNet {
	t.Helper()
	n, err := netlink.ParseIPNet(s)
	must(t, err)
	return n
}

func addressesOf(t *testing.T, n *Network, id string) model.Addressing {
	t.Helper()
	e, err := n.Endpoint(id, "eth0")
	must(t, err)
	return e.Addressing()
}

// Networks that come at once with one subnet: the first has it, no two do.
func TestSubnetOfTwoAtOnce(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	one, two := h.define("one", "br1", []string{"10.50.0.0/24"}), h.define("two", "br2", []string{"10.50.0.0/24"})
	release, err := one.claimSubnets(ctx, one.ownGateways())
	must(t, err)
	soon, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if _, err := two.claimSubnets(soon, two.ownGateways()); !errors.Is(err, flock.ErrLocked) {
		t.Errorf("beside the first: %v, want a lock", err)
	}
	release()
	_, err = one.Attach(ctx, h.sandbox("c1"))
	must(t, err)
	if _, err := two.Attach(ctx, h.sandbox("c2")); err == nil || !strings.Contains(err.Error(), `"one"`) {
		t.Errorf("after the first: %v, want a refusal that names it", err)
	}
}

// A network without containers stands in the way of none; one whose ADD is
// refused comes back when the other one has none.
func TestNetworkGivesWay(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	sb := h.sandbox("c1")
	first, second := h.define("first", "br1", []string{"10.50.0.0/24"}), h.define("second", "br2", []string{"10.50.0.0/16"})
	for _, n := range []*Network{first, second, first} {
		e, err := n.Attach(ctx, sb)
		must(t, err)
		must(t, e.Verify(ctx))
		routes, err := netlink.RouteGet(mustNet(t, "10.50.0.9/24").IP)
		must(t, err)
		by, err := netlink.LinkByIndex(routes[0].LinkIndex)
		must(t, err)
		if by.Attrs().Name != n.def.Config.Bridge {
			t.Errorf("%s: the host leads by %s", n.def.Name, by.Attrs().Name)
		}
		must(t, n.Remove(ctx, e.ID()))
	}
	if _, err := h.Network("second"); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("the network that gave way: %v, want ErrNotFound", err)
	}
	// A bridge of its own that it had before is no obstacle either.
	moved := h.define("first", "br3", []string{"10.50.0.0/24"})
	e, err := moved.Attach(ctx, sb)
	must(t, err)
	must(t, e.Verify(ctx))
	if _, err := netlink.LinkByName("br1"); err == nil {
		t.Error("the bridge without ports is there, and leads to the same subnet")
	}
	must(t, moved.Remove(ctx, e.ID()))
}

// One that NewNetwork made is there until it is deleted.
func TestNewNetworkGivesNoWay(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	first := h.network("10.50.0.0/24")
	subnet := WithSubnet(netip.MustParsePrefix("10.50.0.0/16"))
	var conf *model.ConfigError
	if _, err := h.NewNetwork(ctx, "bridge", "net2", subnet); !errors.As(err, &conf) || !strings.Contains(err.Error(), `"net1"`) {
		t.Errorf("got %v, want a ConfigError that names net1", err)
	}
	if _, err := h.Network("net2"); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("of the one that was refused: %v, want ErrNotFound", err)
	}
	other := h.define("other", "br1", []string{"10.50.0.0/24"})
	if _, err := other.Attach(ctx, h.sandbox("c1")); !errors.As(err, &conf) || !strings.Contains(err.Error(), `"net1"`) {
		t.Errorf("got %v, want a ConfigError that names net1", err)
	}
	must(t, first.Delete(ctx))
	second, err := h.NewNetwork(ctx, "bridge", "net2", subnet)
	must(t, err)
	must(t, second.Delete(ctx))
}

// A range set of several subnets has all its gateways on the bridge: containers
// of the second subnet live beside those of the first.
func TestSetOfSubnets(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n := h.define("net1", "br1", []string{"10.50.0.0/30", "10.51.0.0/24", "10.52.0.0/24"})
	var all []*Endpoint
	for _, id := range []string{"a", "b", "c"} {
		e, err := n.Attach(ctx, h.sandbox(id))
		must(t, err)
		all = append(all, e)
		for _, e := range all {
			must(t, e.Verify(ctx))
		}
	}
	l, err := netlink.LinkByName("br1")
	must(t, err)
	addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
	must(t, err)
	if len(addrs) != 3 {
		t.Errorf("the bridge has %v, want three gateways", addrs)
	}
	for _, e := range all {
		must(t, n.Remove(ctx, e.ID()))
	}
}

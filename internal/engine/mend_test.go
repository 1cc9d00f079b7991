package engine

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/unwind"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// Whatever of its promises to the kernel an attachment loses, Verify names it,
// and a repeated Attach puts it back without touching the link.
func TestAttachMends(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24", WithSubnet(netip.MustParsePrefix("fd01::/64")),
		WithConfig(model.NetworkConfig{Gateway: true, DefaultGateway: true, GatewayModeIPv4: model.GatewayNAT, GatewayModeIPv6: model.GatewayNAT}))
	br := n.Config().Bridge
	port := model.PortMapping{HostPort: 8080, ContainerPort: 80}
	e, err := h.web(n, "a", port)
	if err != nil {
		t.Fatal(err)
	}
	sb, err := h.NewSandbox(ctx, "a", WithNetnsPath(e.Netns()))
	if err != nil {
		t.Fatal(err)
	}
	index := func() int {
		l, err := netlink.LinkByName(e.ID().HostName())
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().Index
	}
	link := index()
	for _, tt := range []struct {
		name, sysctl, bad, says string
		do                      func() error
	}{
		{name: "route_localnet", sysctl: "ipv4/conf/" + br + "/route_localnet", bad: "0", says: "route_localnet is 0, want 1"},
		{name: "forwarding of the bridge", sysctl: "ipv4/conf/" + br + "/forwarding", bad: "0", says: "net.ipv4.conf." + br + ".forwarding is 0"},
		{name: "IPv4 forwarding", sysctl: "ipv4/ip_forward", bad: "0", says: "net.ipv4.ip_forward is 0, want 1"},
		{name: "IPv6 forwarding", sysctl: "ipv6/conf/all/forwarding", bad: "0", says: "net.ipv6.conf.all.forwarding is 0, want 1"},
		{name: "accept_ra", sysctl: "ipv6/conf/" + br + "/accept_ra", bad: "2", says: "accept_ra is 2, want 0"},
		{name: "disable_ipv6", sysctl: "ipv6/conf/" + br + "/disable_ipv6", bad: "1", says: "address fd01::1/64 is missing"},
		{name: "gateway", says: "address 10.1.0.1/24 is missing", do: func() error {
			l, err := netlink.LinkByName(br)
			if err != nil {
				return err
			}
			return netlink.AddrDel(l, &netlink.Addr{IPNet: ipnet("10.1.0.1/24")})
		}},
		{name: "flush", says: "missing", do: func() error { h.nft("flush", "ruleset"); return nil }},
	} {
		if tt.sysctl != "" {
			tt.do = func() error { return lntest.Sysctl(tt.sysctl, tt.bad) }
		}
		if err := tt.do(); err != nil {
			t.Fatal(err)
		}
		if err := e.Verify(ctx); !errors.Is(err, model.ErrDifferent) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: verify says %v, want %q", tt.name, err, tt.says)
		}
		again, err := n.Attach(ctx, sb, WithPorts(port))
		if err != nil {
			t.Fatalf("%s: again: %v", tt.name, err)
		}
		if err := again.Verify(ctx); err != nil {
			t.Errorf("%s: after the repeated Attach: %v", tt.name, err)
		}
		if now := index(); now != link {
			t.Errorf("%s: the living link was replaced", tt.name)
			link = now
		}
		if got := greets("127.0.0.1:8080"); got != "a" {
			t.Errorf("%s: %q answers by the published port", tt.name, got)
		}
	}
}

// A container without IPv6 that has it switched on gets it off again.
func TestAttachMendsIPv6Off(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24")
	sb := h.sandbox("a")
	e, err := n.Attach(ctx, sb)
	if err != nil {
		t.Fatal(err)
	}
	if err := lntest.In(t, e.Netns(), func() error { return lntest.Sysctl("ipv6/conf/eth0/disable_ipv6", "0") }); err != nil {
		t.Fatal(err)
	}
	if err := e.Verify(ctx); !errors.Is(err, model.ErrDifferent) || !strings.Contains(err.Error(), "net.ipv6.conf.eth0.disable_ipv6") {
		t.Errorf("got %v", err)
	}
	again, err := n.Attach(ctx, sb)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Verify(ctx); err != nil || again.Interfaces()[2].MAC != e.Interfaces()[2].MAC {
		t.Errorf("after the repeated Attach: %v, %v, was %v", err, again.Interfaces(), e.Interfaces())
	}
}

// A publication whose removal was killed half-way, after the sysctl and before
// the rules, is published anew with all that it needs.
func TestPublishMends(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24")
	e, err := h.web(n, "a")
	if err != nil {
		t.Fatal(err)
	}
	p, pub := h.publication(e, 8080)
	if err := lntest.Sysctl("ipv4/conf/"+n.Config().Bridge+"/route_localnet", "0"); err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(ctx, pub); !errors.Is(err, model.ErrDifferent) || !strings.Contains(err.Error(), "route_localnet is 0, want 1") {
		t.Errorf("got %v", err)
	}
	if _, err := p.Publish(ctx, pub); err != nil {
		t.Fatal(err)
	}
	if got := greets("127.0.0.1:8080"); got != "a" {
		t.Errorf("%q answers, want a", got)
	}
	if err := p.Verify(ctx, pub); err != nil {
		t.Error(err)
	}
}

// A range set that grew by a second subnet works in both: each has its gateway.
func TestGrownRangeSet(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	pool := func(subnets ...string) *address.Pool {
		var set ipamstore.RangeSet
		for _, s := range subnets {
			set = append(set, ipamstore.Range{Subnet: netip.MustParsePrefix(s)})
		}
		p, err := address.NewPool(ipamstore.Config{Network: "net1", DataDir: h.dataDir, Sets: []ipamstore.RangeSet{set}}, model.Addressing{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	define := func(subnets ...string) *Network {
		n, err := h.DefineNetwork("bridge", "net1", WithConfig(model.NetworkConfig{Gateway: true, DefaultGateway: true}), WithIPAM(pool(subnets...)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a, err := h.web(define("10.1.0.0/30"), "a")
	if err != nil {
		t.Fatal(err)
	}
	n := define("10.1.0.0/30", "10.2.0.0/24")
	b, err := h.web(n, "b")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Addressing().Addresses[0].Prefix.String(); got != "10.2.0.2/24" {
		t.Errorf("b has %s", got)
	}
	for addr, want := range map[string]string{"10.1.0.2:80": "a", "10.2.0.2:80": "b"} {
		if got := greets(addr); got != want {
			t.Errorf("%s: %q answers, want %s", addr, got, want)
		}
	}
	for _, e := range []*Endpoint{a, b} {
		if err := e.Verify(ctx); err != nil {
			t.Error(err)
		}
	}
}

// While another attachment is being made on the bridge, its gateway is not
// taken for one that none needs; once it is gone, it is.
func TestGatewayOfAttachmentInFlight(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	conf := model.NetworkConfig{Bridge: "shared0", Gateway: true, ForceAddress: true}
	define := func(name, subnet string) *Network {
		n, err := h.DefineNetwork("bridge", name, WithConfig(conf), WithSubnet(netip.MustParsePrefix(subnet)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	gateways := func() (all []string) {
		l, err := netlink.LinkByName("shared0")
		if err != nil {
			t.Fatal(err)
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			all = append(all, a.IPNet.String())
		}
		return all
	}
	// One that has its bridge, and not yet its link.
	first, sb := define("first", "10.1.0.0/24"), h.sandbox("a")
	var undo unwind.Stack
	if _, err := first.remember(); err != nil {
		t.Fatal(err)
	}
	spec := first.spec(nil)
	spec.sandbox = sb
	e, err := first.createEndpoint(ctx, "a", spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.ensureBridge(ctx, e.bridgeUse(), &undo); err != nil {
		t.Fatal(err)
	}
	second, other := define("second", "10.2.0.0/24"), h.sandbox("b")
	b, err := second.Attach(ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	if got := gateways(); len(got) != 2 {
		t.Errorf("gateways are %v, want those of both", got)
	}
	if err := e.Join(ctx, sb); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*Endpoint{e, b} {
		if err := e.Verify(ctx); err != nil {
			t.Error(err)
		}
	}
	for _, err := range []error{first.Remove(ctx, e.ID()), second.Remove(ctx, b.ID())} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := define("third", "10.3.0.0/24").Attach(ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	if got := gateways(); len(got) != 1 || got[0] != "10.3.0.1/24" {
		t.Errorf("gateways are %v, want that of %s alone", got, c.ID().Network)
	}
}

func ipnet(cidr string) *net.IPNet {
	ip, n, err := net.ParseCIDR(cidr)
	if err != nil {
		panic(err)
	}
	n.IP = ip
	return n
}

// The record of a changed network has what the configuration says, not what an ADD made of
// it: the next ADD with the same configuration finds it unchanged.
func TestChangedNetworkIsRecordedAsAsked(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	uplink := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "up0", MTU: 1400}}
	if err := netlink.LinkAdd(uplink); err != nil {
		t.Fatal(err)
	}
	all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	if err := errors.Join(netlink.LinkSetUp(uplink), netlink.RouteAdd(&netlink.Route{LinkIndex: uplink.Index, Dst: all, Scope: netlink.SCOPE_LINK})); err != nil {
		t.Fatal(err)
	}
	define := func(conf model.NetworkConfig) *Network {
		conf.Gateway, conf.AutoMTU = true, true
		n, err := h.DefineNetwork("bridge", "net1", WithConfig(conf), WithSubnet(netip.MustParsePrefix("10.1.0.0/24")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	changed := model.NetworkConfig{DefaultGateway: true}
	if _, err := h.web(define(model.NetworkConfig{}), "a"); err != nil {
		t.Fatal(err)
	}
	b, err := h.web(define(changed), "b")
	if err != nil {
		t.Fatal(err)
	}
	if mtu := b.n.def.Config.MTU; mtu != 1400 {
		t.Fatalf("MTU %d, want that of the uplink", mtu)
	}
	if change, err := define(changed).remember(); err != nil || change != recordSame {
		t.Errorf("the same configuration again: %d, %v, want no change", change, err)
	}
}

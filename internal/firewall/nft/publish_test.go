package nft

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// publishing has b's service published as port 8080 of the host, and the network closed.
func publishing(t *testing.T, change func(*firewall.Network, *firewall.Endpoint)) *lab {
	t.Helper()
	l := newLab(t)
	l.must(lntest.Sysctl("ipv4/conf/br0/route_localnet", "1"))
	pb, err := netlink.LinkByName("pb")
	l.must(err)
	l.must(netlink.LinkSetHairpin(pb, true)) // or b does not reach itself where br_netfilter has DNAT done inside the bridge
	n := firewall.Network{Name: "net", Bridge: "br0", IPv4: firewall.Published, IPv6: firewall.Published}
	e := firewall.Endpoint{Owner: "net/b/eth0", Bridge: "br0", Port: "pb", Addrs: addrs("10.10.0.3", "fd10::3"), Hairpin: true}
	for _, p := range []firewall.Protocol{firewall.TCP, firewall.UDP} {
		e.Ports = append(e.Ports, firewall.PortMap{Protocol: p, HostPort: 8080, ContainerPort: servicePort})
	}
	if change != nil {
		change(&n, &e)
	}
	mustApply(t, l.f, n, e)
	l.n, l.eA = n, e
	return l
}

func eachPort(e *firewall.Endpoint, change func(*firewall.PortMap)) {
	for i := range e.Ports {
		change(&e.Ports[i])
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	l := publishing(t, nil)
	for _, tt := range []struct{ from, to, source string }{
		{l.out, "192.0.2.1:8080", "192.0.2.2"}, {l.out, "[fd20::1]:8080", "fd20::2"}, // the client's address is seen
		{l.c, "10.11.0.1:8080", "10.10.0.1"}, // a neighbour on the bridge, though of another subnet
		{l.b, "10.10.0.1:8080", "10.10.0.1"}, // itself
		{l.b, "[fd10::1]:8080", "fd10::1"},   //
		{"", "127.0.0.1:8080", "10.10.0.1"},  // the host
		{"", "127.0.0.9:8080", "10.10.0.1"},  //
		{"", "192.0.2.1:8080", "192.0.2.1"},  //
		{"", "10.10.0.3", "10.10.0.1"},       // directly, as probes do
		{l.a, "10.10.0.3", "10.10.0.2"},      // bridged
		{l.out, "192.0.2.1", "192.0.2.2"},    // the host's own service
		{l.c, "192.0.2.2", "10.11.0.3"},      // out of the network
	} {
		l.wantSource(tt.from, tt.to, tt.source)
	}
	l.wantNothing(l.out, "10.10.0.3") // there is a route, but it is closed
	l.wantNothing(l.out, "fd10::3")
	l.wantNothing(l.out, "10.11.0.3")

	mustRemove(t, l.f, l.eA)
	l.wantNothing(l.out, "192.0.2.1:8080")
	l.wantNothing(l.out, "10.10.0.3")
	mustRemoveNetwork(t, l.f, l.n)
	l.wantSource(l.out, "10.10.0.3", "192.0.2.2")
}

// A packet that only passes through is not for our ports (CVE-2025-67499).
func TestPublishNotForwarded(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(_ *firewall.Network, e *firewall.Endpoint) {
		eachPort(e, func(m *firewall.PortMap) { m.HostPort = servicePort })
	})
	l.wantSource(l.a, "192.0.2.2", "10.10.0.2")
	l.wantSource(l.a, "fd20::2", "fd10::2")
	l.wantSource("", "192.0.2.2", "192.0.2.1")
	l.wantSource(l.out, "192.0.2.1", "192.0.2.2")
}

func TestPublishLocalhost(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(_ *firewall.Network, e *firewall.Endpoint) {
		eachPort(e, func(m *firewall.PortMap) { *m = at("127.0.0.1", *m) })
	})
	l.wantSource("", "127.0.0.1:8080", "10.10.0.1")
	l.wantNothing("", "127.0.0.2:8080")
	l.wantNothing(l.out, "192.0.2.1:8080")
	for _, path := range []string{l.out, l.a} { // which routes 127.0.0.0/8 at us
		gateway := map[string]string{l.out: "192.0.2.1", l.a: "10.10.0.1"}[path]
		l.must(lntest.In(t, path, func() error { return steal127(gateway) }))
		l.wantNothing(path, "127.0.0.1:8080")
	}
}

// steal127 sends what is for 127.0.0.0/8 to a gateway.
func steal127(gateway string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetDown(lo); err != nil {
		return err
	}
	if err := lntest.Sysctl("ipv4/conf/eth0/route_localnet", "1"); err != nil {
		return err
	}
	return viaNet("127.0.0.0/8", gateway)
}

func TestPublishAtAddress(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(_ *firewall.Network, e *firewall.Endpoint) {
		eachPort(e, func(m *firewall.PortMap) { *m = at("192.0.2.1", *m) })
	})
	l.wantSource(l.out, "192.0.2.1:8080", "192.0.2.2")
	l.wantSource("", "192.0.2.1:8080", "192.0.2.1")
	l.wantNothing(l.out, "[fd20::1]:8080")
	l.wantNothing("", "127.0.0.1:8080")
	l.wantNothing(l.c, "10.11.0.1:8080")
}

func TestPublishSources(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(_ *firewall.Network, e *firewall.Endpoint) {
		eachPort(e, func(m *firewall.PortMap) { *m = from(*m, "192.0.2.0/24", "fd30::/16") })
	})
	l.wantSource(l.out, "192.0.2.1:8080", "192.0.2.2")
	l.wantNothing(l.out, "[fd20::1]:8080")
	l.wantNothing(l.c, "10.11.0.1:8080")
}

func TestPublishRange(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(_ *firewall.Network, e *firewall.Endpoint) {
		eachPort(e, func(m *firewall.PortMap) { m.HostPort, m.HostPortEnd, m.ContainerPort = 4000, 5000, 4000 })
		e.Ports = append(e.Ports, upTo(8000, tcp(7999, servicePort-1)))
	})
	l.wantSource(l.out, "192.0.2.1:4711", "192.0.2.2")
	l.wantSource(l.out, "[fd20::1]:4711", "fd20::2")
	if got, err := l.ask("tcp", l.out, "192.0.2.1:8000", lntest.WaitForAnswer); err != nil || got.String() != "192.0.2.2" {
		t.Errorf("the second port of a shifted range: %v, %v", got, err)
	}
}

func TestPublishMasqueradeAll(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(_ *firewall.Network, e *firewall.Endpoint) { e.MasqueradeAll = true })
	l.wantSource(l.out, "192.0.2.1:8080", "10.10.0.1")
	l.wantSource(l.out, "[fd20::1]:8080", "fd10::1")
}

func TestRouted(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(n *firewall.Network, _ *firewall.Endpoint) { n.IPv4, n.IPv6 = firewall.Routed, firewall.Routed })
	l.wantSource(l.out, "10.10.0.3", "192.0.2.2")
	l.wantSource(l.out, "fd10::3", "fd20::2")
	l.wantNothing(l.out, "192.0.2.1:8080")
	l.wantNothing(l.out, "10.11.0.3") // c has published nothing
	l.wantSource(l.c, "192.0.2.2", "10.11.0.3")
}

func TestTrusted(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(n *firewall.Network, _ *firewall.Endpoint) { n.Trusted = []string{"out"} })
	l.wantSource(l.out, "10.10.0.3", "192.0.2.2")
	l.wantNothing(l.out, "10.11.0.3") // c has published nothing
}

func TestAcceptMark(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(n *firewall.Network, _ *firewall.Endpoint) {
		n.AcceptMark = &firewall.Mark{Value: 0x10, Mask: 0xf0}
	})
	l.wantNothing(l.out, "10.11.0.3")
	l.markFrom("out", 0x1f)
	l.wantSource(l.out, "10.11.0.3", "192.0.2.2")
	l.wantSource(l.out, "fd11::3", "fd20::2")
}

func TestApart(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(n *firewall.Network, _ *firewall.Endpoint) {
		n.IPv4, n.IPv6, n.Apart = firewall.Open, firewall.Open, true
	})
	l.wantSource(l.out, "10.10.0.3", "192.0.2.2")
	mustApply(t, l.f, firewall.Network{Name: "theirs", Bridge: "out", Apart: true}, firewall.Endpoint{})
	l.wantNothing(l.out, "10.10.0.3")
	l.wantNothing(l.out, "192.0.2.1:8080")
	l.wantSource(l.a, "10.11.0.3", "10.10.0.2")
}

func TestFixedSource(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.must(lntest.Up("out", "192.0.2.7/32", "fd20::7/128"))
	l.eA.Masquerade, l.eA.Source = both, addrs("192.0.2.7", "fd20::7")
	mustApply(t, l.f, l.n, l.eA)
	l.wantSource(l.a, "192.0.2.2", "192.0.2.7")
	l.wantSource(l.a, "fd20::2", "fd20::7")
	l.wantSource(l.a, "10.11.0.3", "10.10.0.2")
}

// Two owners that publish other ports for one container need the same of the rules for
// connections that go back, and neither takes it from the other.
func TestPublishBeside(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"endpoint goes first", "endpoint goes last"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			l := publishing(t, nil)
			l.beside(first == "endpoint goes first")
		})
	}
}

// beside publishes port 8081 for b, too, and removes one of the two.
func (l *lab) beside(endpointFirst bool) {
	t, f := l.t, l.f
	t.Helper()
	other := l.eA
	other.Owner, other.Beside = "publisher:net/b/eth0", true
	other.Ports = nil
	for _, m := range l.eA.Ports {
		m.HostPort = 8081
		other.Ports = append(other.Ports, m)
	}
	mustApply(t, f, firewall.Network{}, other)
	mustVerify(t, f, l.n, l.eA)
	mustVerify(t, f, firewall.Network{}, other)
	gone, stays, port := l.eA, other, ":8081"
	if !endpointFirst {
		gone, stays, port = other, l.eA, ":8080"
	}
	mustRemove(t, f, gone)
	mustVerify(t, f, firewall.Network{}, stays)
	for _, tt := range []struct{ from, at, source string }{
		{l.b, "10.10.0.1", "10.10.0.1"}, {l.b, "[fd10::1]", "fd10::1"}, {l.c, "10.11.0.1", "10.10.0.1"},
		{"", "127.0.0.1", "10.10.0.1"}, {l.out, "192.0.2.1", "192.0.2.2"},
	} {
		l.wantSource(tt.from, tt.at+port, tt.source)
	}
	mustRemove(t, f, stays)
	mustRemoveNetwork(t, f, l.n)
	wantTables(t, f, false, false)
}

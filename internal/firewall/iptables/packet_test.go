package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// underPolicies runs the test with FORWARD policy ACCEPT and DROP: the results
// are the same.
func underPolicies(t *testing.T, test func(t *testing.T, l *lab)) {
	for _, policy := range []string{"ACCEPT", "DROP"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			for _, name := range []string{"iptables", "ip6tables"} {
				runTool(t, name, "-P", "FORWARD", policy)
			}
			test(t, l)
		})
	}
}

// From where packets reach a's published and other ports, by a's own addresses and the host's.
func TestPolicies(t *testing.T) {
	t.Parallel()
	const none = ""
	tests := []struct {
		name              string
		policy            firewall.Policy
		direct4, direct6  string // from outside to the published port
		other4, other6    string // from outside to the other port
		byHost4, byHost6  string // from outside by the host's port
		byHostC4, fromC   string // from c, by the host's port, and direct
		hostOut, hostOut6 string // the host by its own address
	}{
		{"open", firewall.Open, "192.0.2.2", "fd20::2", "4712 192.0.2.2", "4712 fd20::2",
			"192.0.2.2", "fd20::2", "10.11.0.2", "10.11.0.2", "192.0.2.1", "fd20::1"},
		{"unprotected", firewall.Unprotected, "192.0.2.2", "fd20::2", "4712 192.0.2.2", "4712 fd20::2",
			"192.0.2.2", "fd20::2", "10.11.0.2", "10.11.0.2", "192.0.2.1", "fd20::1"},
		{"published", firewall.Published, none, none, none, none,
			"192.0.2.2", "fd20::2", "10.11.0.2", none, "192.0.2.1", "fd20::1"},
		{"routed", firewall.Routed, "192.0.2.2", "fd20::2", none, none,
			none, none, none, "10.11.0.2", none, none},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			underPolicies(t, func(_ *testing.T, l *lab) {
				l.n.IPv4, l.n.IPv6 = tt.policy, tt.policy
				l.e.Ports, l.e.Hairpin = tcpAndUDP("", 8080), true
				l.apply(l.n, l.e)
				l.apply(firewall.Network{Name: "net1", Bridge: "br1"}, firewall.Endpoint{})
				l.check(
					probe{l.out, "10.10.0.2:4711", tt.direct4}, probe{l.out, "[fd10::2]:4711", tt.direct6},
					probe{l.out, "10.10.0.2:4712", tt.other4}, probe{l.out, "[fd10::2]:4712", tt.other6},
					probe{l.out, "192.0.2.1:8080", tt.byHost4}, probe{l.out, "[fd20::1]:8080", tt.byHost6},
					probe{l.c, "10.11.0.1:8080", tt.byHostC4}, probe{l.c, "10.10.0.2:4711", tt.fromC},
					probe{l.host, "192.0.2.1:8080", tt.hostOut}, probe{l.host, "[fd20::1]:8080", tt.hostOut6},
					// The host and the neighbour always may, and a may go anywhere.
					probe{l.host, "10.10.0.2:4712", "4712 10.10.0.1"}, probe{l.host, "[fd10::2]:4712", "4712 fd10::1"},
					probe{l.b, "10.10.0.2:4712", "4712 10.10.0.3"}, probe{l.b, "[fd10::2]:4712", "4712 fd10::3"},
					probe{l.a, "192.0.2.2:4711", "10.10.0.2"}, probe{l.a, "[fd20::2]:4711", "fd10::2"},
					probe{l.a, "10.11.0.2:4711", "10.10.0.2"}, probe{l.a, "[fd11::2]:4711", "fd10::2"},
				)
				ping := tt.policy != firewall.Published
				for _, to := range []string{"10.10.0.2", "fd10::2"} {
					if got := l.ping(l.out, to, ping); got != ping {
						l.t.Errorf("ping from out to %s: answered %v, want %v", to, got, ping)
					}
				}
			})
		})
	}
}

func TestTrustedAndMark(t *testing.T) {
	t.Parallel()
	underPolicies(t, func(t *testing.T, l *lab) {
		l.n.IPv4, l.n.IPv6 = firewall.Published, firewall.Published
		l.n.Trusted = []string{"out"}
		l.n.AcceptMark = &firewall.Mark{Value: 0x10, Mask: 0xf0}
		l.e.Ports = tcpAndUDP("", 8080)
		l.apply(l.n, l.e)
		l.apply(firewall.Network{Name: "net1", Bridge: "br1"}, firewall.Endpoint{})
		l.check(
			probe{l.out, "10.10.0.2:4711", "192.0.2.2"}, probe{l.out, "[fd10::2]:4711", "fd20::2"},
			probe{l.out, "10.10.0.2:4712", ""}, probe{l.out, "[fd10::2]:4712", ""},
			probe{l.c, "10.10.0.2:4711", ""}, probe{l.c, "[fd10::2]:4711", ""},
		)
		for _, name := range []string{"iptables", "ip6tables"} {
			runTool(t, name, "-t", "mangle", "-A", "PREROUTING", "-i", "br1", "-j", "MARK", "--set-mark", "0x11")
		}
		l.check(probe{l.c, "10.10.0.2:4712", "4712 10.11.0.2"}, probe{l.c, "[fd10::2]:4712", "4712 fd11::2"})
	})
}

// Every way to a published port, and the source that the container sees.
func TestPublished(t *testing.T) {
	t.Parallel()
	underPolicies(t, func(_ *testing.T, l *lab) {
		l.n.IPv4, l.n.IPv6 = firewall.Published, firewall.Published
		l.e.Hairpin = true
		l.e.Ports = slices.Concat(tcpAndUDP("", 8080), tcpAndUDP("192.0.2.9", 8081), tcpAndUDP("127.0.0.2", 8082), tcpAndUDP("::", 8083))
		l.apply(l.n, l.e)
		l.check(
			// The host, by all of its addresses.
			probe{l.host, "127.0.0.1:8080", "10.10.0.1"}, probe{l.host, "127.0.0.9:8080", "10.10.0.1"},
			probe{l.host, "10.10.0.1:8080", "10.10.0.1"}, probe{l.host, "[fd10::1]:8080", "fd10::1"},
			probe{l.host, "[::1]:8080", ""},
			// A neighbour, and a itself: without the host's address the answer would not come back.
			probe{l.b, "10.10.0.1:8080", "10.10.0.1"}, probe{l.b, "[fd10::1]:8080", "fd10::1"},
			probe{l.a, "192.0.2.1:8080", "10.10.0.1"}, probe{l.a, "[fd20::1]:8080", "fd10::1"},
			// One address of the host, and one family.
			probe{l.out, "192.0.2.9:8081", "192.0.2.2"}, probe{l.out, "192.0.2.1:8081", ""}, probe{l.b, "192.0.2.9:8081", "10.10.0.1"},
			probe{l.host, "127.0.0.2:8082", "10.10.0.1"}, probe{l.host, "127.0.0.1:8082", ""}, probe{l.host, "192.0.2.1:8082", ""},
			probe{l.out, "192.0.2.1:8083", ""}, probe{l.out, "[fd20::1]:8083", "fd20::2"},
			// Another host's port of that number is not ours.
			probe{l.b, "192.0.2.2:8080", ""}, probe{l.b, "192.0.2.2:4711", "10.10.0.3"},
		)
	})
}

// With br_netfilter, what comes back to the bridge that it came from is bridged
// there, and comes to a itself only if its port is one for hairpins.
func TestHairpinWithBridgeNetfilter(t *testing.T) {
	t.Parallel()
	underPolicies(t, func(t *testing.T, l *lab) {
		if err := bridgeNetfilter("1"); err != nil {
			t.Skip(err)
		}
		pa, err := netlink.LinkByName("pa")
		l.must(err)
		l.must(netlink.LinkSetHairpin(pa, true))
		l.n.IPv4, l.n.IPv6 = firewall.Published, firewall.Published
		l.e.Ports, l.e.Hairpin = tcpAndUDP("", 8080), true
		l.apply(l.n, l.e)
		l.check(
			probe{l.a, "192.0.2.1:8080", "10.10.0.1"}, probe{l.a, "[fd20::1]:8080", "fd10::1"},
			probe{l.b, "10.10.0.1:8080", "10.10.0.1"}, probe{l.b, "[fd10::1]:8080", "fd10::1"},
			probe{l.b, "10.10.0.2:4711", "10.10.0.3"}, probe{l.out, "192.0.2.1:8080", "192.0.2.2"},
		)
	})
}

func TestForeignPortIsNotTaken(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.e.Hairpin = true
	l.e.Ports = []firewall.PortMap{port(firewall.TCP, "", otherPort), port(firewall.UDP, "", otherPort)}
	l.apply(l.n, l.e)
	l.check(probe{l.b, "192.0.2.2:4712", "4712 10.10.0.3"}, probe{l.b, "[fd20::2]:4712", "4712 fd10::3"},
		probe{l.out, "192.0.2.1:4712", "192.0.2.2"})
}

func TestWithoutHairpin(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.e.Ports = tcpAndUDP("", hostOnly)
	l.apply(l.n, l.e)
	l.check(
		probe{l.out, "192.0.2.1:4713", "192.0.2.2"},
		probe{l.host, "192.0.2.1:4713", "192.0.2.1"},
		probe{l.host, "127.0.0.1:4713", "4713 127.0.0.1"}, // the host's own
		probe{l.b, "10.10.0.1:4713", ""},
	)
	// A link-local client cannot be sent on. It names its interface by number,
	// for names mean other interfaces in other namespaces.
	if got, err := lntest.Ask(t, l.out, "tcp", "[fe80::1%2]:4713", lntest.WaitForAnswer); !strings.HasPrefix(got, "4713 fe80:") {
		t.Errorf("from out to fe80::1: answer %q (%v), want the host's", got, err)
	}
	l.e.MasqueradeAll = true
	l.apply(l.n, l.e)
	l.check(
		probe{l.out, "192.0.2.1:4713", "10.10.0.1"}, probe{l.out, "[fd20::1]:4713", "fd10::1"},
		probe{l.host, "127.0.0.1:4713", "10.10.0.1"},
		probe{l.b, "10.10.0.1:4713", "10.10.0.1"},
	)
}

func TestRanges(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.n.IPv4, l.n.IPv6 = firewall.Published, firewall.Published
	for _, proto := range []firewall.Protocol{firewall.TCP, firewall.UDP} {
		l.e.Ports = append(l.e.Ports,
			firewall.PortMap{Protocol: proto, HostPort: 8000, HostPortEnd: 8002, ContainerPort: rangePort},
			firewall.PortMap{Protocol: proto, HostPort: rangePort, HostPortEnd: rangePort + 2, ContainerPort: rangePort})
	}
	l.apply(l.n, l.e)
	var probes []probe
	for i := range 3 {
		want := fmt.Sprint(rangePort + i)
		for _, first := range []int{8000, rangePort} {
			probes = append(probes,
				probe{l.out, fmt.Sprintf("192.0.2.1:%d", first+i), want + " 192.0.2.2"},
				probe{l.out, fmt.Sprintf("[fd20::1]:%d", first+i), want + " fd20::2"})
		}
	}
	for range 2 { // the second connection to a port goes there, too
		l.check(probes...)
	}
	l.check(probe{l.out, "192.0.2.1:8003", ""}, probe{l.out, "192.0.2.1:7999", ""})
}

func TestSources(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.n.IPv4, l.n.IPv6 = firewall.Published, firewall.Published
	l.e.Ports, l.e.Hairpin = tcpAndUDP("", 8080), true
	for i := range l.e.Ports {
		l.e.Ports[i].Sources = []netip.Prefix{netip.MustParsePrefix("192.0.2.77/24"), netip.MustParsePrefix("10.10.0.3/32"), netip.MustParsePrefix("fd10::/16")}
	}
	l.apply(l.n, l.e)
	l.check(
		probe{l.out, "192.0.2.1:8080", "192.0.2.2"}, probe{l.out, "[fd20::1]:8080", ""},
		probe{l.b, "10.10.0.1:8080", "10.10.0.1"}, probe{l.b, "[fd10::1]:8080", "fd10::1"},
		probe{l.c, "192.0.2.1:8080", ""}, probe{l.a, "10.10.0.1:8080", ""},
		probe{l.host, "192.0.2.1:8080", "192.0.2.1"}, probe{l.host, "127.0.0.1:8080", ""},
	)
	l.e.Ports[0].Sources = []netip.Prefix{}
	l.e.Ports[1].Sources = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	l.apply(l.n, l.e)
	l.checkOver([]string{"tcp"}, probe{l.out, "192.0.2.1:8080", ""})
	l.checkOver([]string{"udp"}, probe{l.c, "192.0.2.1:8080", "10.11.0.2"}, probe{l.out, "[fd20::1]:8080", ""})
}

// The words of the reference portmap plugin.
func TestOptions(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.e.Ports, l.e.Hairpin = tcpAndUDP("192.0.2.1", 8080), true
	l.e.ConditionsIPv4 = []string{"!", "-s", "192.0.2.0/24"}
	l.e.IPTables = &firewall.IPTablesOptions{MarkBit: 3}
	l.apply(l.n, l.e)
	l.check(
		probe{l.out, "192.0.2.1:8080", ""}, probe{l.host, "192.0.2.1:8080", ""},
		probe{l.c, "192.0.2.1:8080", "10.11.0.2"}, probe{l.b, "192.0.2.1:8080", "10.10.0.1"},
	)
	if text := runTool(t, "iptables-save", "-t", "nat"); !strings.Contains(text, "--set-xmark 0x8/0x8") {
		t.Errorf("bit 3 is not the mark: %s", text)
	}
	// Another program's chain: that program masquerades what it marks.
	l.e.ConditionsIPv4 = []string{"-d", "192.0.2.0/24"}
	l.e.IPTables = &firewall.IPTablesOptions{SetMarkChain: "THEIR-MARK"}
	runTool(t, "iptables", "-t", "nat", "-N", "THEIR-MARK")
	runTool(t, "iptables", "-t", "nat", "-A", "THEIR-MARK", "-j", "MARK", "--set-mark", "0x4000")
	l.apply(l.n, l.e)
	l.check(probe{l.out, "192.0.2.1:8080", "192.0.2.2"}, probe{l.c, "192.0.2.1:8080", "10.11.0.2"}, probe{l.b, "192.0.2.1:8080", ""})
	runTool(t, "iptables", "-t", "nat", "-A", "POSTROUTING", "-m", "mark", "--mark", "0x4000", "-j", "MASQUERADE")
	l.check(probe{l.out, "192.0.2.1:8080", "192.0.2.2"}, probe{l.b, "192.0.2.1:8080", "10.10.0.1"})
}

func TestMasquerade(t *testing.T) {
	t.Parallel()
	underPolicies(t, func(_ *testing.T, l *lab) {
		l.apply(firewall.Network{Name: "net1", Bridge: "br1"}, firewall.Endpoint{})
		l.e.Masquerade = firewall.Families{IPv4: true}
		l.apply(l.n, l.e)
		l.routeNeighbours()
		l.check(
			probe{l.a, "192.0.2.2:4711", "192.0.2.1"}, probe{l.a, "[fd20::2]:4711", "fd10::2"},
			probe{l.a, "10.11.0.2:4711", "10.11.0.1"},
			probe{l.a, "10.10.0.3:4711", "10.10.0.2"}, probe{l.b, "192.0.2.2:4711", "10.10.0.3"},
		)
		l.e.Masquerade = firewall.Families{IPv4: true, IPv6: true}
		l.e.Source = addrs("192.0.2.9")
		l.apply(l.n, l.e)
		l.check(probe{l.a, "192.0.2.2:4711", "192.0.2.9"}, probe{l.a, "[fd20::2]:4711", "fd20::1"})
	})
}

// Two owners that publish other ports for one container keep their masquerading.
func TestPublishBeside(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.e.Ports, l.e.Hairpin = tcpAndUDP("", 8080), true
	other := l.e
	other.Owner, other.Beside, other.Ports = "publisher:net/a/eth0", true, tcpAndUDP("", 8081)
	l.apply(l.n, l.e)
	l.apply(firewall.Network{}, other)
	if err := l.f.Verify(t.Context(), l.n, l.e); err != nil {
		t.Errorf("the first one differs: %v", err)
	}
	reached := func(port string) {
		t.Helper()
		l.check(probe{l.b, "192.0.2.1:" + port, "10.10.0.1"}, probe{l.host, "127.0.0.1:" + port, "10.10.0.1"}, probe{l.out, "192.0.2.1:" + port, "192.0.2.2"})
	}
	reached("8080")
	reached("8081")
	mustRemove(t, l.f, firewall.Network{}, other)
	reached("8080")
	l.apply(firewall.Network{}, other)
	mustRemove(t, l.f, firewall.Network{}, l.e)
	reached("8081")
}

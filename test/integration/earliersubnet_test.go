package integration

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	own "github.com/libnet-cni/libnet/internal/netlink"
)

// gatewaysOf are the IPv4 addresses of a bridge.
func (h *host) gatewaysOf(bridge string) (all []string) {
	h.t.Helper()
	l, err := netlink.LinkByName(bridge)
	h.check(err)
	addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
	h.check(err)
	for _, a := range addrs {
		all = append(all, a.IPNet.String())
	}
	slices.Sort(all)
	return all
}

// The gateway of a subnet that the network had before goes with the last attachment of that subnet,
// and another network can have the subnet then. It stays while an attachment uses it, also one of
// another network on the bridge, and an address that libnet did not put there stays in any case.
func TestGatewayOfEarlierSubnet(t *testing.T) {
	const (
		bridge              = "brl"
		earlier, now, admin = "10.31.0.1/24", "10.32.0.1/24", "10.33.0.1/24"
	)
	conf := func(name, bridge, subnet string) string {
		return edit(t, `{"cniVersion":"1.1.0","type":"bridge-ln","isDefaultGateway":true,"ipam":{"type":"ipam-ln"}}`,
			keys{"name": name, "bridge": bridge, "ipam.subnet": subnet})
	}
	was, is := conf("sub", bridge, "10.31.0.0/24"), conf("sub", bridge, "10.32.0.0/24")
	for name, leave := range map[string]func(h *host, c call){
		"DEL":                               func(h *host, c call) { h.must(c.with(is).as("DEL")) },
		"DEL with the configuration of ADD": func(h *host, c call) { h.must(c.as("DEL")) },
		"GC": func(h *host, c call) {
			h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, is, keys{"cni.dev/valid-attachments": raw(`[{"containerID":"c3","ifname":"eth0"}]`)})})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			c1 := attachment("bridge-ln", "c1", h.netns("c1"), was)
			c2 := attachment("bridge-ln", "c2", h.netns("c2"), was)
			c3 := attachment("bridge-ln", "c3", h.netns("c3"), is)
			// Of another network on the bridge, which names the subnet.
			o := attachment("bridge-ln", "o", h.netns("o"), conf("other", bridge, "10.31.0.0/24"))
			for _, c := range []call{c1, c2} {
				h.must(c.as("ADD"))
			}
			h.must(c3.as("ADD"))
			h.exec("ip", "address", "add", admin, "dev", bridge)
			want := func(when string, gateways ...string) {
				t.Helper()
				if got := h.gatewaysOf(bridge); !slices.Equal(got, gateways) {
					t.Fatalf("%s: addresses %q, want %q", when, got, gateways)
				}
				h.ping(c3.netns, netip.MustParseAddr("10.32.0.1"))
			}
			want("both subnets in use", earlier, now, admin)
			h.must(c2.with(is).as("DEL"))
			want("one of two is gone", earlier, now, admin)
			h.ping(c1.netns, netip.MustParseAddr("10.31.0.1"))
			leave(h, c1)
			want("the last one is gone", now, admin)
			elsewhere := attachment("bridge-ln", "e", h.netns("e"), conf("elsewhere", "bre", "10.31.0.0/24"))
			h.must(elsewhere.as("ADD"))
			h.must(elsewhere.as("DEL"))
			h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, elsewhere.stdin, keys{"cni.dev/valid-attachments": raw(`[]`)})})

			// As an earlier release left it.
			h.plant(bridge, earlier)
			h.exec(program(t, "lnctl"), "repair")
			want("repair", now, admin)

			h.exec("ip", "address", "del", admin, "dev", bridge)
			h.must(o.as("ADD"))
			h.plant(bridge, "10.34.0.1/24")
			h.exec(program(t, "lnctl"), "repair")
			want("repair with another network", earlier, now)
			h.ping(o.netns, netip.MustParseAddr("10.31.0.1"))
		})
	}
}

// plant adds an address as libnet does.
func (h *host) plant(bridge, addr string) {
	h.t.Helper()
	l, err := netlink.LinkByName(bridge)
	h.check(err)
	c, err := own.Open()
	h.check(err)
	defer c.Close()
	h.check(c.AddGateway(l.Attrs().Index, netip.MustParsePrefix(addr)))
}

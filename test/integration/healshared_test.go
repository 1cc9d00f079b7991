package integration

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// A flush takes the rules of all: the STATUS of any network, or of portmap-ln,
// finds that, whatever its own configuration needs now.
func TestHealByAnyNetwork(t *testing.T) {
	nat := `{"cniVersion": "1.1.0", "name": "nat", "type": "bridge-ln", "bridge": "brn", "isDefaultGateway": true, "gatewayMode": "nat", "ipam": {"type": "ipam-ln", "ranges": [[{"subnet": "10.78.0.0/24"}]]}}`
	plain := edit(t, nat, keys{"name": "plain", "gatewayMode": nil, "ipam.ranges": raw(`[[{"subnet": "10.79.0.0/24"}]]`)})
	for name, by := range map[string]struct {
		status call
		living bool // the network has a container
	}{
		"none on the same bridge":    {call{plugin: "bridge-ln", stdin: plain}, true},
		"none on another bridge":     {call{plugin: "bridge-ln", stdin: edit(t, plain, keys{"bridge": "bro"})}, true},
		"nat without containers":     {call{plugin: "bridge-ln", stdin: edit(t, plain, keys{"gatewayMode": "nat"})}, false},
		"its own, by iptables now":   {call{plugin: "bridge-ln", stdin: edit(t, nat, keys{"backend": "iptables"})}, false},
		"portmap-ln without a port":  {call{plugin: "portmap-ln", stdin: `{"cniVersion": "1.1.0", "name": "p", "type": "portmap-ln"}`}, false},
		"portmap-ln by iptables":     {call{plugin: "portmap-ln", stdin: `{"cniVersion": "1.1.0", "name": "p", "type": "portmap-ln", "backend": "iptables"}`}, false},
		"none, no container, bridge": {call{plugin: "bridge-ln", stdin: plain}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			c := attachment("bridge-ln", "c", h.netns("c"), nat)
			c.stdin = edit(t, nat, keys{"prevResult": raw(h.must(c.as("ADD")).stdout)})
			if by.living {
				h.must(attachment("bridge-ln", "d", h.netns("d"), by.status.stdin).as("ADD"))
			}
			h.nft("flush ruleset")
			h.must(by.status.as("STATUS"))
			if rules := h.ruleset(); !strings.Contains(rules, "10.78.0.2") {
				t.Errorf("the rules of another network are not back:\n%s", rules)
			}
			h.must(c.as("CHECK"))
		})
	}
}

// Two networks of different subnets have one bridge: if it is deleted, both are
// whole again, whichever comes first.
func TestHealBridgeOfTwoSubnets(t *testing.T) {
	a := `{"cniVersion": "1.1.0", "name": "a", "type": "bridge-ln", "bridge": "brs", "isDefaultGateway": true, "gatewayMode": "nat", "ipam": {"type": "ipam-ln", "ranges": [[{"subnet": "10.80.0.0/24"}]]}}`
	b := edit(t, a, keys{"name": "b", "gatewayMode": nil, "ipam.ranges": raw(`[[{"subnet": "10.81.0.0/24"}]]`)})
	for name, by := range map[string]func(h *host){
		"STATUS of a": func(h *host) { h.must(call{plugin: "bridge-ln", command: "STATUS", stdin: a}) },
		"STATUS of b": func(h *host) { h.must(call{plugin: "bridge-ln", command: "STATUS", stdin: b}) },
		"repair":      func(h *host) { h.exec(program(t, "lnctl"), "repair") },
		"ADD to a":    func(h *host) { h.must(attachment("bridge-ln", "new", h.netns("new"), a).as("ADD")) },
		"ADD to b":    func(h *host) { h.must(attachment("bridge-ln", "new", h.netns("new"), b).as("ADD")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			var checks []call
			for id, conf := range map[string]string{"a": a, "b": b} {
				c := attachment("bridge-ln", id, h.netns(id), conf)
				checks = append(checks, c.with(edit(t, conf, keys{"prevResult": raw(h.must(c.as("ADD")).stdout)})).as("CHECK"))
			}
			l, err := netlink.LinkByName("brs")
			h.check(err)
			h.check(netlink.LinkDel(l))
			by(h)
			for _, c := range checks {
				h.must(c)
			}
			h.ping(netnsPath("a"), netip.MustParseAddr("10.80.0.1"))
			h.ping(netnsPath("b"), netip.MustParseAddr("10.81.0.1"))
		})
	}
}

// STATUS and repair put back, each alone, the bridge settings that one attachment needs.
func TestHealBridgeSettings(t *testing.T) {
	conf := `{"cniVersion": "1.1.0", "name": "set", "type": "bridge-ln", "bridge": "brw", "isDefaultGateway": true, "gatewayMode": "nat", "runtimeConfig": {"portMappings": [{"hostPort": 8082, "containerPort": 80, "protocol": "tcp"}]}, "ipam": {"type": "ipam-ln", "ranges": [[{"subnet": "10.82.0.0/24"}]]}}`
	for name, lose := range map[string][]string{
		"gateway":         {"ip", "addr", "del", "10.82.0.1/24", "dev", "brw"},
		"forwarding":      {"sysctl", "-qw", "net.ipv4.conf.brw.forwarding=0"},
		"route_localnet":  {"sysctl", "-qw", "net.ipv4.conf.brw.route_localnet=0"},
		"bridge set down": {"ip", "link", "set", "brw", "down"},
	} {
		for _, by := range []string{"STATUS", "repair"} {
			t.Run(name+"/"+by, func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				c := attachment("bridge-ln", "c", h.netns("c"), conf)
				c.stdin = edit(t, conf, keys{"prevResult": raw(h.must(c.as("ADD")).stdout)})
				h.exec(lose[0], lose[1:]...)
				if r := h.run(c.as("CHECK")); r.code != 103 {
					t.Fatalf("CHECK: code %d: the test shows nothing", r.code)
				}
				if by == "STATUS" {
					h.must(call{plugin: "bridge-ln", command: "STATUS", stdin: conf})
				} else {
					h.exec(program(t, "lnctl"), "repair")
				}
				h.must(c.as("CHECK"))
				h.ping(netnsPath("c"), netip.MustParseAddr("10.82.0.1"))
			})
		}
	}
}

package integration

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// publishedBy is a container with a port on the host, published by bridge-ln or by
// portmap-ln behind it, and another container of the same network.
func (h *host) publishedBy(plugin string, more ...keys) (adds, checks []call) {
	h.t.Helper()
	net := `{"cniVersion":"1.1.0","name":"net","type":"bridge-ln","bridge":"br0","isDefaultGateway":true,"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.70.0.0/24"}]]}}`
	pub := `{"cniVersion":"1.1.0","name":"net","type":"portmap-ln"}`
	for _, k := range more {
		net = edit(h.t, net, k)
		if backend, has := k["backend"]; has {
			pub = edit(h.t, pub, keys{"backend": backend})
		}
	}
	ports := keys{"runtimeConfig.portMappings": raw(`[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]`)}
	conf := net
	if plugin == "bridge-ln" {
		conf = edit(h.t, net, ports)
	}
	c1 := attachment("bridge-ln", "c1", h.netns("c1"), conf)
	c2 := attachment("bridge-ln", "c2", h.netns("c2"), net)
	adds = []call{c1, c2}
	for _, a := range adds {
		prev := keys{"prevResult": raw(h.must(a.as("ADD")).stdout)}
		checks = append(checks, a.with(edit(h.t, a.stdin, prev)).as("CHECK"))
		if plugin == "portmap-ln" && a.cid == "c1" {
			p := attachment(plugin, "c1", a.netns, edit(h.t, edit(h.t, pub, ports), prev))
			h.must(p.as("ADD"))
			adds, checks = append(adds, p), append(checks, p.as("CHECK"))
		}
	}
	return adds, checks
}

// publishes has each client ask c1's port, and calls CHECK of all.
func (h *host) publishes(when string, checks []call) {
	h.t.Helper()
	for _, way := range []struct{ from, to string }{
		{"/proc/thread-self/ns/net", "127.0.0.1:8080"}, {netnsPath("world"), "192.0.2.1:8080"},
		{netnsPath("c1"), "192.0.2.1:8080"}, {netnsPath("c2"), "192.0.2.1:8080"},
	} {
		if _, err := lntest.Ask(h.t, h.open(way.from), "tcp", way.to, lntest.WaitForAnswer); err != nil {
			h.t.Errorf("%s: from %s to %s: %v", when, way.from, way.to, err)
		}
	}
	for _, c := range checks {
		if r := h.run(c); r.code != 0 {
			h.t.Errorf("%s: CHECK %s %s: code %d, %s", when, c.plugin, c.cid, r.code, r.msg)
		}
	}
}

// A bridge that is made anew carries what was published on it as before: by
// 127.0.0.1, by the host's address, and for the container itself where br_netfilter
// has the translation done inside the bridge.
func TestHealPorts(t *testing.T) {
	for _, plugin := range []string{"bridge-ln", "portmap-ln"} {
		for _, by := range []string{"STATUS", "ADD", "repair", "repair of a setting"} {
			t.Run(fmt.Sprintf("%s/%s", plugin, by), func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				h.check(lntest.Sysctl("bridge/bridge-nf-call-iptables", "1"))
				h.remote()
				adds, checks := h.publishedBy(plugin, keys{"ipMasq": true})
				lntest.Serve(t, h.open(netnsPath("c1")), 80)
				works := func(when string) { h.publishes(when, checks) }
				works("before")
				if by == "repair of a setting" {
					h.check(lntest.Sysctl("ipv4/conf/br0/route_localnet", "0"))
				} else {
					l, err := netlink.LinkByName("br0")
					h.check(err)
					h.check(netlink.LinkDel(l))
				}
				switch by {
				case "STATUS":
					h.must(adds[0].as("STATUS"))
				case "ADD":
					h.must(attachment("bridge-ln", "more", h.netns("more"), adds[1].stdin).as("ADD"))
				default:
					h.exec(program(t, "lnctl"), "repair")
				}
				works("after")
			})
		}
	}
}

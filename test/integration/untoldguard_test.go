package integration

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

// Where all records are lost, STATUS of a network closes the bridge of its living containers as
// its configuration says, and STATUS of another one says that it may be open. Others on the
// bridge open nothing.
func TestStatusClosesUntold(t *testing.T) {
	for name, row := range map[string]struct {
		keys    keys
		closing bool
	}{
		"nat":          {keys{"gatewayMode": "nat"}, true},
		"nat, routed":  {keys{"gatewayMode": raw(`{"ipv4":"nat","ipv6":"routed"}`)}, true},
		"internal":     {keys{"gatewayMode": nil, "internal": true, "isDefaultGateway": nil, "isGateway": true}, true},
		"nat iptables": {keys{"gatewayMode": "nat", "backend": "iptables"}, true},
		"open":         {keys{"gatewayMode": nil, "ipMasq": true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.world()
			h.route(netnsPath("world"), "10.83.0.0/24", hostAddr(false).String())
			const conf = `{"cniVersion":"1.1.0","type":"bridge-ln","bridge":"brl","isDefaultGateway":true,"ipam":{"type":"ipam-ln","subnet":"10.83.0.0/24"}}`
			own := edit(t, edit(t, conf, keys{"name": "shut", "ipam.rangeStart": "10.83.0.10", "ipam.rangeEnd": "10.83.0.19"}), row.keys)
			other := edit(t, conf, keys{"name": "other", "ipam.rangeStart": "10.83.0.20", "ipam.rangeEnd": "10.83.0.29", "backend": row.keys["backend"]})
			h.must(attachment("bridge-ln", "s", h.netns("s"), own).as("ADD"))
			s := netip.MustParseAddr("10.83.0.10")
			reach := func(when string, closed bool) {
				t.Helper()
				failed := t.Failed()
				if h.ping("", s); closed {
					h.noPing(netnsPath("world"), s)
				} else if row.keys["internal"] != true {
					h.ping(netnsPath("world"), s)
				}
				if !failed && t.Failed() {
					t.Fatalf("that was %s", when)
				}
			}
			reach("after ADD", row.closing)
			h.check(os.RemoveAll(stateDir))
			if row.keys["backend"] == "iptables" {
				h.exec("iptables", "-F")
			}
			h.nft("flush ruleset")
			reach("after the flush", false)
			status := func(conf string, says bool) {
				t.Helper()
				r := h.run(call{plugin: "bridge-ln", command: "STATUS", stdin: conf})
				if r.code != 0 || !strings.Contains(r.stderr, `bridge brl: no record tells of s eth0 in network "shut"`) ||
					strings.Contains(r.stderr, "or open to what") != says {
					t.Errorf("STATUS: %+v; want it to say %t that something may be open", r, says)
				}
			}
			status(other, true)
			for range 2 {
				status(own, false)
				reach("after STATUS", row.closing)
			}
			status(other, true)
			o := attachment("bridge-ln", "o", h.netns("o"), other)
			h.must(o.as("ADD"))
			reach("after ADD of another network", row.closing)
			h.must(o.as("DEL"))
			reach("after DEL of another network", row.closing)
			h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, other, keys{"cni.dev/valid-attachments": raw(`[]`)})})
			reach("after GC of another network", row.closing)
		})
	}
}

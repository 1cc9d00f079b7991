package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Doctor finds nothing at networks of all kinds, and repair deletes nothing.
func TestDoctorOfAllKinds(t *testing.T) {
	base := `{"cniVersion":"1.0.0","name":"net0","type":"bridge-ln","bridge":"brw","isDefaultGateway":true,"mtu":"auto","capabilities":{"portMappings":true},
		"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.86.0.0/24"}],[{"subnet":"fd86::/64"}]]}}`
	ports := raw(`[{"hostPort":8080,"containerPort":80,"protocol":"tcp"},{"hostPort":9000,"hostPortEnd":9009,"containerPort":9000,"protocol":"udp","hostIP":"192.0.2.1"}]`)
	second := func(k keys) string {
		return edit(t, edit(t, base, keys{"name": "net1", "bridge": "brv", "ipam.ranges": raw(`[[{"subnet":"10.87.0.0/24"}]]`)}), k)
	}
	for name, row := range map[string]struct {
		first  keys
		second string // another network of c; empty: none
		leaves bool   // the first attachment of c goes
	}{
		"plain":                  {},
		"masquerade":             {first: keys{"ipMasq": true}},
		"nat, hairpin off":       {first: keys{"gatewayMode": "nat", "hairpinMode": false}},
		"routed":                 {first: keys{"gatewayMode": "routed"}},
		"routed for IPv6":        {first: keys{"gatewayMode": raw(`{"ipv4":"nat","ipv6":"routed"}`)}},
		"trusted, with a mark":   {first: keys{"gatewayMode": "nat", "trustedInterfaces": raw(`["uplink"]`), "acceptFwMark": "0x10/0x30"}},
		"isolated":               {first: keys{"gatewayMode": "isolated", "isDefaultGateway": nil, "runtimeConfig": nil}},
		"internal":               {first: keys{"internal": true, "isDefaultGateway": nil}},
		"no icc, spoofing":       {first: keys{"icc": false, "macspoofchk": true}},
		"same bridge":            {first: keys{"ingressPolicy": "same-bridge"}},
		"snat":                   {first: keys{"ipMasq": true, "snatIPv4": "192.0.2.1"}},
		"iptables":               {first: keys{"backend": "iptables", "gatewayMode": "nat"}},
		"two networks":           {first: keys{"gatewayMode": "nat"}, second: second(keys{"gatewayMode": "nat"})},
		"two networks, one left": {first: keys{"gatewayMode": "nat"}, second: second(keys{"gatewayMode": "nat"}), leaves: true},
		"two networks, routed":   {first: keys{"gatewayMode": "nat"}, second: second(keys{"gatewayMode": "routed"})},
		"one bridge":             {first: keys{"gatewayMode": "nat"}, second: second(keys{"gatewayMode": "routed", "bridge": "brw", "ipam.ranges": raw(`[[{"subnet":"10.86.0.0/24","rangeStart":"10.86.0.100"}]]`)})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.world()
			conf := edit(t, edit(t, base, keys{"runtimeConfig.portMappings": ports}), row.first)
			if row.second != "" { // else both would have it
				conf = edit(t, conf, keys{"ipam.ranges": raw(`[[{"subnet":"10.86.0.0/24","rangeEnd":"10.86.0.99"}]]`)})
			}
			c := attachment("bridge-ln", "c", h.netns("c"), conf)
			h.must(c.as("ADD"))
			h.must(attachment("bridge-ln", "d", h.netns("d"), edit(t, conf, keys{"runtimeConfig": nil})).as("ADD"))
			if row.second != "" {
				other := attachment("bridge-ln", "c", netnsPath("c"), edit(t, row.second, keys{"runtimeConfig.portMappings": ports}))
				other.ifName = "eth1"
				h.must(other.as("ADD"))
			}
			if row.leaves {
				h.must(c.as("DEL"))
			}
			well(h)
		})
	}
	for name, keys := range map[string]keys{
		"portmap": {}, "portmap with conditions": {"conditionsV4": raw(`["ip","saddr","192.0.2.0/24"]`)}, "portmap by iptables": {"backend": "iptables"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.world()
			added := h.must(attachment("bridge-ln", "c", h.netns("c"), edit(t, base, nil)).as("ADD"))
			conf := edit(t, fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net0","type":"portmap-ln","prevResult":%s}`, added.stdout), keys)
			h.must(attachment("portmap-ln", "c", netnsPath("c"), edit(t, conf, map[string]any{"runtimeConfig.portMappings": ports})).as("ADD"))
			well(h)
		})
	}
}

// Repair leaves the networks of another state directory, with containers and without.
func TestRepairOfTwoStateDirectories(t *testing.T) {
	for name, there := range map[string]bool{"with a container": true, "after the last one": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			conf := `{"cniVersion":"1.0.0","name":"here","type":"bridge-ln","bridge":"brh","isDefaultGateway":true,"gatewayMode":"nat","ipam":{"type":"ipam-ln","subnet":"10.88.0.0/24"}}`
			h.must(attachment("bridge-ln", "c", h.netns("c"), conf).as("ADD"))
			other := attachment("bridge-ln", "o", h.netns("o"), edit(t, conf, keys{"name": "other", "bridge": "bro", "stateDir": "/run/other", "ipam.subnet": "10.89.0.0/24"}))
			h.must(other.as("ADD"))
			if !there {
				h.must(other.as("DEL"))
			}
			rules := h.exec("nft", "list", "ruleset")
			h.exec(program(t, "lnctl"), "repair")
			if diff := cmp.Diff(rules, h.exec("nft", "list", "ruleset")); diff != "" {
				t.Errorf("repair (-before +after):\n%s", diff)
			}
		})
	}
}

// well says that doctor finds nothing, and repair changes no element.
func well(h *host) {
	h.t.Helper()
	elements := func() []string {
		return slices.DeleteFunc(strings.Split(h.exec("nft", "--stateless", "list", "ruleset"), "\n"), func(line string) bool { return !strings.Contains(line, "comment") })
	}
	before := elements()
	if said := h.doctor(); strings.Contains(said, "✗") {
		h.t.Errorf("doctor:\n%s", said)
	}
	if said := h.exec(program(h.t, "lnctl"), "repair"); strings.Contains(said, "deleted") {
		h.t.Errorf("repair: %s", said)
	}
	if diff := cmp.Diff(before, elements()); diff != "" {
		h.t.Errorf("repair (-before +after):\n%s", diff)
	}
}

package integration

import (
	"strings"
	"testing"
)

// doctor sees an element that opens a closed bridge, also under the name of its guard,
// of which CHECK does not ask, and finds nothing at a guard that is as it was made.
func TestDoctorSeesGuard(t *testing.T) {
	nat := `{"cniVersion":"1.1.0","name":"shut","type":"bridge-ln","bridge":"brl","gatewayMode":"nat","ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.84.0.0/24"}],[{"subnet":"fd84::/64"}]]}}`
	for name, row := range map[string]struct {
		keys      keys
		nft, want string
	}{
		"nat":                  {want: ""},
		"nat and routed":       {keys: keys{"gatewayMode": raw(`{"ipv4":"nat","ipv6":"routed"}`)}},
		"isolated":             {keys: keys{"gatewayMode": "isolated"}},
		"trusted, with a mark": {keys: keys{"trustedInterfaces": raw(`["lo"]`), "acceptFwMark": "0x10/0x30"}},
		"none":                 {keys: keys{"gatewayMode": nil, "icc": false}},
		"routed by hand":       {nft: `routed { ipv4 . "brl" comment "libnet-bridge:brl" }`, want: "(IPv4 routed, IPv6 nat), and its networks ask for (IPv4 nat, IPv6 nat)"},
		"trusted by hand":      {nft: `trusted { "lo" . "brl" comment "libnet-bridge:brl" }`, want: "trusted lo), and its networks ask for (IPv4 nat, IPv6 nat)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.must(attachment("bridge-ln", "c", h.netns("c"), edit(t, nat, row.keys)).as("ADD"))
			if row.nft != "" {
				h.exec("nft", "add element inet libnet "+row.nft)
			}
			said := h.doctor()
			if finds := strings.Contains(said, "guard"); finds != (row.want != "") || !strings.Contains(said, row.want) {
				t.Errorf("doctor, want %q:\n%s", row.want, said)
			}
		})
	}
}

// An element that another program adds to our sets is found by doctor, whatever owner
// stands in it, and deleted by repair, which leaves those that an attachment asked for.
// CHECK finds those that open the attachment's bridge.
func TestElementsByHand(t *testing.T) {
	routed := `{"cniVersion":"1.1.0","name":"shut","type":"bridge-ln","bridge":"brl","isDefaultGateway":true,"gatewayMode":"routed","capabilities":{"portMappings":true},
		"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.84.0.0/24"}],[{"subnet":"fd84::/64"}]]}}`
	const guard, container, unknown = "libnet-bridge:brl", "libnet:shut/c/eth0", "libnet:shut/x/eth0"
	for name, row := range map[string]struct {
		conf, set, elem string
		owner           string
		check           bool // CHECK finds it
	}{
		"an open port, under the container's name":  {routed, "open4", "10.84.0.2 . tcp . 22", container, true},
		"an open port, under the guard's name":      {routed, "open4", "10.84.0.2 . tcp . 22", guard, true},
		"an open port, under an unknown name":       {routed, "open6", "fd84::2 . tcp . 22", unknown, true},
		"open ports by range":                       {routed, "openspan4", "0.0.0.0-255.255.255.255 . 10.84.0.2 . tcp . 1-1023", container, true},
		"a port of another address":                 {routed, "open4", "10.84.0.9 . tcp . 22", "by hand", false},
		"an open port where no rule looks at it":    {edit(t, routed, keys{"gatewayMode": "nat"}), "open4", "10.84.0.2 . tcp . 22", container, false},
		"a neighbour, under the guard's name":       {routed, "inside", `"eth0" . "brl"`, guard, true},
		"a neighbour, under an unknown name":        {edit(t, routed, keys{"gatewayMode": nil, "internal": true, "isDefaultGateway": nil}), "inside", `"eth0" . "brl"`, unknown, true},
		"a neighbour on the way out":                {edit(t, routed, keys{"gatewayMode": nil, "internal": true, "isDefaultGateway": nil}), "inside", `"brl" . "eth0"`, guard, true},
		"trusted, under the container's name":       {routed, "trusted", `"eth0" . "brl"`, container, true},
		"routed, under the container's name":        {edit(t, routed, keys{"gatewayMode": "nat"}), "routed", `ipv4 . "brl"`, container, true},
		"a published port, under the guard's name":  {routed, "anyport4", "tcp . 9090 : 10.84.0.2 . 90", guard, false},
		"no masquerade, under the container's name": {edit(t, routed, keys{"gatewayMode": "nat"}), "home4", `10.84.0.2 . "eth0"`, container, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.exec("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
			c := attachment("bridge-ln", "c", h.netns("c"), row.conf)
			added := h.must(c.as("ADD"))
			check := c.with(edit(t, row.conf, keys{"prevResult": raw(added.stdout)})).as("CHECK")
			h.must(check)
			rules := h.exec("nft", "list", "ruleset")
			if said := h.doctor(); strings.Contains(said, "✗ elements") || strings.Contains(said, "✗ guards") {
				t.Fatalf("doctor, before:\n%s", said)
			}
			h.exec("nft", "add element inet libnet "+row.set+" { "+strings.Replace(row.elem+" ", " : ", ` comment "`+row.owner+`" : `, 1)+comment(row.elem, row.owner)+"}")
			if said := h.doctor(); !strings.Contains(said, "✗ elements") && !strings.Contains(said, "✗ guards") || !strings.Contains(said, "lnctl repair") {
				t.Errorf("doctor:\n%s", said)
			}
			if r := h.run(check); (r.code != 0) != row.check {
				t.Errorf("CHECK: %+v", r)
			}
			h.exec(program(t, "lnctl"), "repair")
			if now := h.exec("nft", "list", "ruleset"); now != rules {
				t.Errorf("after repair:\n%s\nbefore:\n%s", now, rules)
			}
			h.must(check)
		})
	}
}

// comment is for an element that is none of a map, where the comment stands before the colon.
func comment(elem, owner string) string {
	if strings.Contains(elem, " : ") {
		return ""
	}
	return `comment "` + owner + `" `
}

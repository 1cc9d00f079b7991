package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// healNets are networks of several kinds.
func healNets(t *testing.T) []string {
	var all []string
	for i, k := range []keys{
		{"bridge": "br0", "gatewayMode": "nat", "icc": false},
		{"bridge": "br1", "internal": true},
		{"bridge": "br2", "gatewayMode": "routed", "macspoofchk": true},
	} {
		conf := `{"cniVersion": "1.1.0", "type": "bridge-ln", "isGateway": true, "ipam": {"type": "ipam-ln"}}`
		conf = edit(t, conf, keys{"name": fmt.Sprintf("net%d", i), "ipam.ranges": []any{[]any{keys{"subnet": fmt.Sprintf("10.7%d.0.0/24", i)}}, []any{keys{"subnet": fmt.Sprintf("fd7%d::/64", i)}}}})
		all = append(all, edit(t, conf, k))
	}
	return all
}

// healed is a host with a container on each of these networks; check is CHECK of
// all of them.
func (h *host) healed(confs []string) (adds []call, check func(when string)) {
	h.t.Helper()
	var checks []call
	for i, conf := range confs {
		a := attachment("bridge-ln", fmt.Sprintf("c%d", i), h.netns(fmt.Sprintf("c%d", i)), conf)
		result := h.must(a.as("ADD")).stdout
		adds = append(adds, a)
		checks = append(checks, a.with(edit(h.t, conf, keys{"prevResult": raw(result)})).as("CHECK"))
	}
	return adds, func(when string) {
		h.t.Helper()
		for _, c := range checks {
			if r := h.run(c); r.code != 0 {
				h.t.Errorf("%s: CHECK %s: code %d, %s", when, c.cid, r.code, r.msg)
			}
		}
	}
}

// One STATUS, or one ADD, of any network puts back what all networks of the host
// lost: rules, bridges with their addresses, MACs and ports.
func TestHeal(t *testing.T) {
	for _, by := range []string{"STATUS", "ADD", "repair"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			confs := healNets(t)
			adds, check := h.healed(confs)
			check("before")
			h.nft("flush ruleset")
			for _, br := range []string{"br0", "br1", "br2"} {
				l, err := netlink.LinkByName(br)
				h.check(err)
				if by == "STATUS" || by == "repair" || br == "br0" { // an ADD makes its own bridge only
					h.check(netlink.LinkDel(l))
				}
			}
			switch by {
			case "STATUS":
				h.must(adds[0].as("STATUS"))
			case "ADD":
				more := attachment("bridge-ln", "more", h.netns("more"), confs[0])
				h.must(more.as("ADD"))
				check("with one more")
				h.must(more.as("DEL"))
			case "repair":
				if out := h.exec(program(t, "lnctl"), "repair"); !strings.Contains(out, "bridge br0 made anew") || !strings.Contains(out, "0 problems") {
					t.Errorf("repair: %s", out)
				}
			}
			check("after")
			for i, a := range adds {
				h.must(a.as("STATUS"))
				h.ping(a.netns, netip.MustParseAddr(fmt.Sprintf("10.7%d.0.1", i)))
			}
		})
	}
}

// STATUS beside itself, ADD and DEL: all succeed, and what lives is whole after.
func TestHealAtOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	confs := healNets(t)
	adds, check := h.healed(confs)
	var spaces []string
	for i := range 6 {
		spaces = append(spaces, h.netns(fmt.Sprintf("x%d", i)))
	}
	for round := range 3 {
		h.nft("flush ruleset")
		for _, br := range []string{"br0", "br1"} {
			l, err := netlink.LinkByName(br)
			h.check(err)
			h.check(netlink.LinkDel(l))
		}
		var calls []call
		for i, ns := range spaces {
			x := attachment("bridge-ln", fmt.Sprintf("x%d", i), ns, confs[i%3])
			calls = append(calls, x.as([]string{"ADD", "DEL"}[round%2]), adds[i%3].as("STATUS"))
		}
		h.atOnce(calls)
		for _, a := range adds { // what came while another was at it is seen to now
			h.must(a.as("STATUS"))
		}
		check(fmt.Sprintf("round %d", round))
	}
}

// A container's own rules come back as they were made, whatever configuration
// the network has by now.
func TestHealAsMade(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	conf := `{"cniVersion": "1.1.0", "name": "as-made", "type": "bridge-ln", "isGateway": true, "bridge": "brm", "ipMasq": true, "macspoofchk": true, "ipam": {"type": "ipam-ln", "ranges": [[{"subnet": "10.76.0.0/24"}]]}}`
	now := edit(t, conf, keys{"ipMasq": nil, "macspoofchk": nil})
	first := attachment("bridge-ln", "first", h.netns("first"), conf)
	first.stdin = edit(t, conf, keys{"prevResult": raw(h.must(first.as("ADD")).stdout)})
	second := attachment("bridge-ln", "second", h.netns("second"), now)
	second.stdin = edit(t, now, keys{"prevResult": raw(h.must(second.as("ADD")).stdout)})
	check := func(when string) {
		t.Helper()
		rules := h.ruleset()
		for addr, want := range map[string]bool{`10.76.0.2 . "brm" comment`: true, `10.76.0.3 . "brm" comment`: false} {
			_, masq, _ := strings.Cut(rules, "set masquerade4")
			masq, _, _ = strings.Cut(masq, "\n\t}")
			if strings.Contains(masq, addr) != want {
				t.Errorf("%s: %q among the masqueraded: want %v:\n%s", when, addr, want, masq)
			}
		}
		h.must(first.as("CHECK"))
		h.must(second.as("CHECK"))
	}
	check("before")
	h.nft("flush ruleset")
	h.must(call{plugin: "bridge-ln", command: "STATUS", stdin: now})
	check("after")
	h.must(first.as("DEL"))
	h.must(second.as("DEL"))
}

// STATUS puts back rules of each backend, and of a network that has none but
// published ports, after each way to lose them.
func TestHealBackends(t *testing.T) {
	modes := map[string]keys{"nat": {"gatewayMode": "nat"}, "ports only": {}, "masquerade": {"ipMasq": true}}
	losses := map[string][]string{
		"nft flush ruleset": {"nft flush ruleset"},
		"iptables -F":       {"iptables -F", "iptables -t nat -F", "ip6tables -F", "ip6tables -t nat -F"},
		"iptables -t nat":   {"iptables -t nat -F", "ip6tables -t nat -F"},
	}
	for mode, k := range modes {
		for _, plugin := range []string{"bridge-ln", "portmap-ln"} {
			for loss, commands := range losses {
				for _, backend := range []string{"nftables", "iptables"} {
					if backend == "nftables" && loss != "nft flush ruleset" {
						continue
					}
					t.Run(strings.Join([]string{mode, plugin, loss, backend}, "/"), func(t *testing.T) {
						t.Parallel()
						h := newHost(t)
						h.remote()
						adds, checks := h.publishedBy(plugin, k, keys{"backend": backend})
						lntest.Serve(t, h.open(netnsPath("c1")), 80)
						h.publishes("before", checks)
						for _, c := range commands {
							words := strings.Fields(c)
							h.exec(words[0], words[1:]...)
						}
						for _, a := range adds {
							h.must(a.as("STATUS"))
						}
						h.publishes("after", checks)
					})
				}
			}
		}
	}
}

package integration

import (
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// A misspelt key has no effect. ADD, CHECK and STATUS say so in one line, of which DEL and GC
// need nothing; with "strict" the former refuse it and change nothing, and the latter work.
func TestMisspeltKeys(t *testing.T) {
	for _, tt := range []struct {
		plugin, conf string
		spoil        keys
		says         string
		strict       string // the key
	}{
		{"bridge-ln", good, keys{"gatewaymod": "isolated"}, "gatewaymod is no key of bridge-ln, but gatewayMode is", "strict"},
		{"overlay-ln", `{"cniVersion":"1.1.0","name":"net","type":"overlay-ln","nodes":["192.0.2.1"],"subnet":"10.5.0.0/16"}`,
			keys{"internl": true}, "internl is no key of overlay-ln, but internal is", "strict"},
		{"ipam-ln", good, keys{"ipam.excludes": raw(`["10.1.0.2"]`)}, "ipam.excludes is no key of ipam-ln, but ipam.exclude is", "ipam.strict"},
		{"portmap-ln", edit(t, `{"cniVersion":"1.1.0","name":"net","type":"portmap-ln"}`, keys{"prevResult": prevResult("eth0")}),
			keys{"conditionV4": raw(`["-s","10.0.0.0/8"]`)}, "conditionV4 is no key of portmap-ln, but conditionsV4 is", "strict"},
	} {
		t.Run(tt.plugin, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.check(netlink.AddrAdd(h.link("lo"), &netlink.Addr{IPNet: &net.IPNet{IP: net.IP{192, 0, 2, 1}, Mask: net.CIDRMask(32, 32)}}))
			c := attachment(tt.plugin, "c1", h.netns("c1"), edit(t, tt.conf, tt.spoil))
			strict := c.with(edit(t, c.stdin, keys{tt.strict: true}))
			before := h.snapshot()
			for _, verb := range []string{"ADD", "STATUS", "CHECK"} {
				r := h.run(strict.as(verb))
				key, right := strings.Fields(tt.says)[0], strings.TrimSuffix(tt.says[strings.LastIndex(tt.says, "but ")+4:], " is")
				if r.code != codeConfig || !strings.HasPrefix(r.msg, key+": ") || !strings.Contains(r.msg, right) || r.stderr != "" {
					t.Errorf("strict %s: code %d, %q, stderr %q; want 7 with %s and %s", verb, r.code, r.msg, r.stderr, key, right)
				}
			}
			h.same(before)

			line := tt.plugin + `: network "net": ` + tt.says + `; with "strict": true this is an error` + "\n"
			added := h.run(c.as("ADD"))
			check := c
			if tt.plugin != "portmap-ln" {
				check = c.with(edit(t, c.stdin, keys{"prevResult": raw(added.stdout)}))
			}
			for verb, r := range map[string]reply{"ADD": added, "CHECK": h.run(check.as("CHECK")), "STATUS": h.run(c.as("STATUS"))} {
				if r.code != 0 || r.stderr != line {
					t.Errorf("%s: code %d, %s, stderr %q, want %q", verb, r.code, r.msg, r.stderr, line)
				}
			}
			for _, c := range []call{strict.as("DEL"), c.as("DEL"), c.as("GC"), strict.as("GC")} {
				if r := h.run(c); r.code != 0 || r.stderr != "" {
					t.Errorf("%s: code %d, %s, stderr %q", c.command, r.code, r.msg, r.stderr)
				}
			}
		})
	}
}

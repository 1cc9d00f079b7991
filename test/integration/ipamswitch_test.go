package integration

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestSwitchUnderLeases has host-local and ipam-ln take turns on one
// directory. Each honours what the other gave, and takes it back.
func TestSwitchUnderLeases(t *testing.T) {
	t.Parallel()
	const each = 20
	h := newHost(t)
	conf, ns := edit(t, pool(t, "10.1.0.0/25"), keys{"cniVersion": "1.0.0", "ipam.type": "host-local"}), h.netns("pod")
	turns := []string{"host-local", "ipam-ln", "host-local", "ipam-ln"}
	given := map[string]netip.Addr{}
	for turn, plugin := range turns {
		for i := range each {
			c := attachment(plugin, fmt.Sprintf("t%d-%d", turn, i), ns, conf)
			given[c.cid] = h.theAddress(h.must(c.as("ADD")))
		}
		h.holdsJust(given)
	}
	seen := map[netip.Addr]bool{}
	for cid, a := range given {
		if seen[a] {
			t.Errorf("%s of %s is given twice", a, cid)
		}
		seen[a] = true
	}
	for i := range each {
		for turn := range turns {
			cid := fmt.Sprintf("t%d-%d", turn, i)
			for _, plugin := range turns[:2] {
				h.must(attachment(plugin, cid, ns, conf).as("CHECK"))
			}
			// The other one than gave it.
			h.must(attachment(turns[(turn+1)%len(turns)], cid, ns, conf).as("DEL"))
			delete(given, cid)
		}
		h.holdsJust(given)
	}
	if rest := leases(t, "net"); len(rest) > 0 {
		t.Errorf("leases left: %v", rest)
	}
	// And all of the pool can be given again, by turns.
	for i := range 125 {
		c := attachment(turns[i%2], fmt.Sprintf("c%d", i), ns, conf)
		given[c.cid] = h.theAddress(h.must(c.as("ADD")))
	}
	h.holdsJust(given)
	for _, plugin := range turns[:2] {
		if r := h.run(attachment(plugin, "one-more", ns, conf).as("ADD")); r.code == 0 {
			t.Errorf("%s gave an address out of a full pool: %s", plugin, r.stdout)
		}
	}
}

// TestSwitchInCrowd has both at work at the same time.
func TestSwitchInCrowd(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	conf := edit(t, pool(t, "10.1.0.0/24"), keys{"cniVersion": "1.0.0"})
	adds := added(h.netns("pod"), conf, 0, 160)
	for i := range adds {
		if i%2 == 1 {
			adds[i].plugin = "host-local"
			adds[i].stdin = edit(t, conf, keys{"ipam.type": "host-local"})
		}
	}
	given := map[string]netip.Addr{}
	for i, r := range h.inCrowd(adds, false) {
		if r.code != 0 {
			t.Fatalf("%s %s: code %d: %s", adds[i].plugin, adds[i].cid, r.code, r.msg)
		}
		given[adds[i].cid] = h.theAddress(r.reply)
	}
	h.holdsJust(given)
	for _, command := range []string{"CHECK", "DEL"} {
		for i, r := range h.inCrowd(as(command, adds), false) {
			if r.code != 0 {
				t.Errorf("%s %s %s: code %d: %s", adds[i].plugin, command, adds[i].cid, r.code, r.msg)
			}
		}
	}
	h.holdsJust(nil)
}

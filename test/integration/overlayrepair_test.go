package integration

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/state"
)

// An ADD that brings another host of its network makes the host's rules, route and
// forwarding entry before it writes the host into the network's record: lnctl repair leaves
// them until no ADD is at work.
func TestRepairBesideADDWithAnotherHost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.world()
	two := `{"cniVersion":"1.1.0","name":"ov","type":"overlay-ln","bridge":"bov","subnet":"10.5.0.0/16",
		"nodes":[{"address":"192.0.2.1"},{"address":"192.0.2.2"}],"ipam":{"type":"ipam-ln"}}`
	three := edit(t, two, keys{"nodes": raw(`[{"address":"192.0.2.1"},{"address":"192.0.2.2"},{"address":"192.0.2.3"}]`)})
	h.must(attachment("overlay-ln", "a", h.netns("a"), two).as("ADD"))
	dir := state.New(stateDir)
	before, err := dir.LoadNetwork("ov")
	h.check(err)
	h.must(attachment("overlay-ln", "b", h.netns("b"), three).as("ADD"))
	h.check(dir.SaveNetwork(before)) // as it is until the ADD ends
	has := func() (all []bool) {
		for _, args := range [][]string{{"nft", "list", "set", "inet", "libnet", "hosts4"}, {"ip", "route"}} {
			all = append(all, strings.Contains(h.exec(args[0], args[1:]...), map[string]string{"nft": "192.0.2.3", "ip": "10.5.2.0/24"}[args[0]]))
		}
		return all
	}
	expect := func(when string, want bool) {
		t.Helper()
		if got := has(); got[0] != want || got[1] != want {
			t.Errorf("%s: rules %t, route %t, want %t", when, got[0], got[1], want)
		}
	}
	release, err := dir.Own(t.Context(), "ov", "b", "eth0", state.OnlyExisting)
	h.check(err)
	expect("after ADD", true)
	out, err := exec.Command(program(t, "lnctl"), "repair").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use") {
		t.Errorf("repair beside an ADD: %v: %s", err, out)
	}
	expect("after repair beside an ADD", true)
	release()
	h.exec(program(t, "lnctl"), "repair")
	expect("after repair alone", false)
}

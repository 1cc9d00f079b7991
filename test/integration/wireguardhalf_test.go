package integration

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// A change of keys that stops half-way, as the agent of one host is away: each host has both
// devices, and ADD, CHECK, STATUS, GC and what an operator runs know both. With its own agent
// away, too, ADD makes again what is gone. Once all are back, the change comes to its end.
func TestWireGuardHalfWay(t *testing.T) {
	t.Parallel()
	r := newRotating(t, 3)
	all := r.containers()
	r.pingAll(all...)
	c := r.capture()
	r.agents.procs["h3"].kill(t)
	if out, err := r.lnctlOn("h1", "overlay", "rotate-keys", "net0", "--wait", "0s"); err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	for _, h := range r.agents.hosts[:2] {
		r.await("both devices of "+h, func() bool { return len(r.devices(h)) == 2 && len(r.privateKeys(h)) == 2 })
	}
	if out, err := r.lnctlOn("h1", "overlay", "rotate-keys"); err == nil {
		t.Errorf("another change is not refused: %s", out)
	}
	r.pingAll(all...)
	r.whole(all...)
	late := r.agents.attach("h1", "late", r.keys)
	r.pingAll(append(all, late)...)
	for _, h := range r.agents.hosts[:2] {
		r.await("quiet on "+h, func() bool { return r.checks(all...) })
		r.wellOn(h)
	}
	r.agents.procs["h1"].kill(t)
	for _, name := range r.devices("h1") {
		r.agents.in(netnsPath("h1"), func() { r.agents.check(netlink.LinkDel(r.secure.link(name))) })
	}
	r.shout(all[0], all[1:]...)
	c.sealed("without devices")
	if !r.kernel { // which has them made again, by what the node file tells
		r.await("both devices again", func() bool { return len(r.devices("h1")) == 2 })
	}
	again := r.agents.attach("h1", "again", r.keys)
	if got := r.devices("h1"); len(got) != 2 {
		t.Errorf("after an ADD h1 has %v, want both devices", got)
	}
	for _, to := range all {
		r.await("way to "+to.host, func() bool { return r.reaches(again, to) && r.reaches(to, again) })
	}
	c.sealed("half-way")
	for _, h := range []string{"h1", "h3"} {
		r.start(h)
	}
	for _, h := range r.agents.hosts {
		r.await("one device of "+h, func() bool { return len(r.devices(h)) == 1 && len(r.privateKeys(h)) == 1 })
		r.awaitPeers(h, 2)
	}
	r.pingAll(append(all, late, again)...)
	r.whole(append(all, late, again)...)
	c.sealed("come to its end")
}

// A network that ln-agent kept gets a list of nodes while it has the second of its two devices, or
// is not to be encrypted any more: the first ADD takes that device away, with its routes.
func TestWireGuardSpareGoes(t *testing.T) {
	for name, keys := range map[string]func(r *rotating) map[string]any{
		"nodes with keys": func(r *rotating) map[string]any {
			for _, h := range r.agents.hosts {
				r.secure.keys[h] = r.keygen(keyFile(h))
			}
			return r.with("h1", r.agents.hosts, nil)
		},
		"VXLAN": func(*rotating) map[string]any { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRotating(t, 2)
			all := r.containers()
			first := r.devices("h1")
			r.rotate("h1")
			second := r.devices("h1")
			if len(second) != 1 || second[0] == first[0] {
				t.Fatalf("devices were %v, and are %v", first, second)
			}
			r.agents.procs["h1"].kill(t)
			c := r.capture()
			conf := r.agents.conf(0, "h1", keys(r))
			r.agents.check(os.WriteFile(confDir("h1")+"/net0.conf", []byte(conf), 0o600))
			if !r.kernel { // which takes its own device away then
				r.await("end of "+second[0], func() bool { return !slices.Contains(r.devices("h1"), second[0]) })
			}
			late := attachment("overlay-ln", "late", r.agents.netns("late"), conf)
			r.agents.mustOn("h1", late.as("ADD"))
			r.shout(all[0], all[1])
			c.sealed(name)
			got := r.devices("h1")
			if slices.Contains(got, second[0]) {
				t.Errorf("devices are %v: %s is left", got, second[0])
			}
			r.agents.in(netnsPath("h1"), func() {
				out, err := exec.Command("ip", "route", "show").CombinedOutput()
				r.agents.check(err)
				if want := len(got); strings.Count(string(out), "unreachable") != want {
					t.Errorf("want %d unreachable routes, got\n%s", want, out)
				}
			})
			r.agents.mustOn("h1", late.as("DEL"))
		})
	}
}

// whole wants STATUS, CHECK and GC to be content with containers.
func (r *rotating) whole(all ...container) {
	r.agents.t.Helper()
	r.await("CHECK that is content", func() bool { return r.checks(all...) })
	for _, p := range all {
		r.agents.mustOn(p.host, call{plugin: "overlay-ln", command: "STATUS", stdin: p.call.stdin})
	}
}

// checks says whether CHECK is content with all of these. While an agent changes something, it may
// be a moment behind.
func (r *rotating) checks(all ...container) bool {
	r.agents.t.Helper()
	for _, p := range all {
		check := p.call.as("CHECK")
		check.stdin = edit(r.agents.t, check.stdin, map[string]any{"prevResult": decode(r.agents.t, r.agents.mustOn(p.host, p.call.as("ADD")).stdout)})
		if r.tryOn(p.host, check).code != 0 {
			return false
		}
	}
	return true
}

package kill

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestKillConnect kills lnctl connect, lnctl disconnect, and the DEL that takes what was
// connected along, at system calls of theirs. What comes next, whether the same again or a
// DEL of the container, leaves nothing.
func TestKillConnect(t *testing.T) {
	for name, kill := range map[string]func(*guestBench, int) bool{
		"connect": (*guestBench).killConnect, "disconnect": (*guestBench).killDisconnect, "DEL": (*guestBench).killDelOfBoth,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuestBench(t)
			g.eachPoint(0, func(n int) bool { return kill(g, n) })
			t.Logf("%s: %s, %d leftovers", name, g.total, g.bad)
		})
	}
}

// guestBench is a bench whose container is on the network "kill", and connects to "aside".
type guestBench struct {
	*bench
	total count
}

const asideConfs = "/run/confs"

func newGuestBench(t *testing.T) *guestBench {
	t.Helper()
	chain := []plugin{{"bridge-ln", named + `"type":"bridge-ln","bridge":"br-kill","gatewayMode":"nat",` + ipam + `}`}}
	aside := strings.NewReplacer(`"name":"kill"`, `"name":"aside"`, "br-kill", "br-aside", "10.91.", "10.94.", "fd91:", "fd94:").Replace(chain[0].conf)
	g := &guestBench{bench: &bench{host: newHost(t, chain), scenario: scenario{name: "connect", chain: chain}}}
	g.check(os.Mkdir(asideConfs, 0o700))
	g.check(os.WriteFile(asideConfs+"/aside.conf", []byte(aside), 0o600))
	for ifName, conf := range map[string]string{"eth0": chain[0].conf, "eth1": aside} { // a neighbour keeps both bridges
		_, err := (&host{t, []plugin{{"bridge-ln", conf}}}).add(call{id: c0.id, netns: c0.netns, ifName: ifName})
		g.check(err)
	}
	result := g.attached()
	g.check(g.lnctl("connect", nil).err())
	g.check(g.del(c1, result))
	g.before = g.snapshot()
	return g
}

func (g *guestBench) attached() string {
	g.t.Helper()
	result, err := g.add(c1)
	g.check(err)
	return result
}

func (g *guestBench) lnctl(verb string, visit func(*tracer, point)) reply {
	g.t.Helper()
	c := call{args: []string{verb, "aside", "c1"}}
	if verb == "connect" {
		c.args = append(c.args, "--conf-dir", asideConfs, "--publish", "8080:80")
	}
	return g.run(plugin{name: "lnctl"}, c, "", visit)
}

func (g *guestBench) killConnect(n int) (killed bool) {
	g.t.Helper()
	result := g.attached()
	var where string
	g.lnctl("connect", killAt(n, &g.total, &where))
	killed = where != ""
	switch n % 3 {
	case 1: // one that was whole is refused
		if r := g.lnctl("connect", nil); r.err() != nil && !strings.Contains(r.stderr, "already, by eth1") {
			g.fail("connect killed %s, then repeated: %v", where, r.err())
		}
		g.check(g.lnctl("disconnect", nil).err())
	case 2: // one that had begun is taken back
		if r := g.lnctl("disconnect", nil); r.err() != nil && !strings.Contains(r.stderr, "is not on network") {
			g.fail("connect killed %s, then disconnect: %v", where, r.err())
		}
	}
	if err := g.del(c1, result); err != nil {
		g.fail("connect killed %s: %v", where, err)
	}
	g.compare(fmt.Sprintf("connect killed %s", where))
	return killed
}

func (g *guestBench) killDisconnect(n int) (killed bool) {
	g.t.Helper()
	result := g.attached()
	g.check(g.lnctl("connect", nil).err())
	var where string
	g.lnctl("disconnect", killAt(n, &g.total, &where))
	killed = where != ""
	if n%2 == 1 {
		if r := g.lnctl("disconnect", nil); r.err() != nil && !strings.Contains(r.stderr, "is not on network") {
			g.fail("disconnect killed %s, then repeated: %v", where, r.err())
		}
	}
	if err := g.del(c1, result); err != nil {
		g.fail("disconnect killed %s: %v", where, err)
	}
	g.compare(fmt.Sprintf("disconnect killed %s", where))
	return killed
}

func (g *guestBench) killDelOfBoth(n int) (killed bool) {
	g.t.Helper()
	result := g.attached()
	g.check(g.lnctl("connect", nil).err())
	p := g.chainOf()[0]
	var where string
	g.run(p, call{command: "DEL", id: c1.id, netns: c1.netns}, with(p.conf, "prevResult", result), killAt(n, &g.total, &where))
	killed = where != ""
	if err := g.del(c1, result); err != nil { // a runtime repeats it
		g.fail("DEL killed %s: %v", where, err)
	}
	g.compare(fmt.Sprintf("DEL killed %s", where))
	return killed
}

package kill

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fewHandOvers is the distance between the points of a hand-over that are tried if
// not all are.
const fewHandOvers = 41

// TestKillHandOver kills DEL of the attachment that has the ports of a container
// before and after each system call. Whatever comes next, DEL of the same or first
// ADD of the attachment that waits, that one has the ports then, CHECK says so, and
// its DEL leaves the host as it was.
func TestKillHandOver(t *testing.T) {
	t.Parallel()
	// Without IPv6: two default routes of it are one to the kernel.
	conf := func(name, subnet string) []plugin {
		fixed := strings.Replace(ports, `"hostPort":0`, `"hostPort":8081`, 1)
		return []plugin{{"bridge-ln", fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"bridge-ln","bridge":"br-%[1]s","gatewayMode":"nat","ipam":{"type":"ipam-ln","subnet":%q},%s}`, name, subnet, fixed)}}
	}
	first := newHost(t, conf("kill1", "10.91.0.0/29"))
	second := &host{t, conf("kill2", "10.92.0.0/29")}
	eth1 := call{id: c1.id, netns: c1.netns, ifName: "eth1"}
	b := &bench{host: first}
	round := func(n int, total *count, compare bool) (killed bool) {
		_, err := first.add(c1)
		b.check(err)
		result, err := second.add(eth1)
		b.check(err)
		var where string
		del := call{command: "DEL", id: c1.id, netns: c1.netns}
		r := first.run(first.chain[0], del, first.chain[0].conf, killAt(n, total, &where))
		if killed = r.status.Signaled() && r.status.Signal() == unix.SIGKILL; !killed {
			b.check(r.err())
		}
		where = fmt.Sprintf("DEL killed %s", where)
		if n/2%2 == 1 {
			if again, err := second.add(eth1); err != nil || again != result {
				b.fail("%s: ADD of the other attachment again: %v, %s, want %s", where, err, again, result)
			}
		}
		if err := first.del(c1, ""); err != nil {
			b.fail("%s: DEL again: %v", where, err)
		}
		if err := second.checkAll(eth1, result); err != nil {
			b.fail("%s: CHECK of the other attachment: %v", where, err)
		}
		if lines, err := nftLines(); err != nil || !strings.Contains(strings.Join(lines, "\n"), "kill2/c1/eth1") {
			b.fail("%s: the other attachment has no rules: %v", where, err)
		}
		b.check(second.del(eth1, result))
		if compare {
			b.compare(where)
		}
		return killed
	}
	var total count
	round(1<<30, &total, false)
	b.before = b.snapshot()
	for n, by := 0, step(t, fewHandOvers); round(n, &total, true); n += by {
	}
	t.Logf("%s, %d leftovers", total, b.bad)
}

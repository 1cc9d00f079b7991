package kill

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKillChild kills the process that a DEL leaves to wait for the kernel, the plugin, or
// both, before that process has the link removed, and while it waits: before the plugin's
// next call, and before its last. A DEL that lives on has removed all; after one that was
// killed an ADD, or another DEL, finds what it needs.
func TestKillChild(t *testing.T) {
	t.Parallel()
	b := newBench(t, scenarios()[0])
	for _, when := range []string{"before it sends", "while it waits", "at the end of DEL"} {
		for _, victim := range []struct {
			name          string
			child, plugin bool
		}{{"the child", true, false}, {"the plugin", false, true}, {"both", true, true}} {
			for _, again := range []bool{false, true} {
				where := fmt.Sprintf("%s killed %s, ADD follows: %t", victim.name, when, again)
				result, err := b.add(c1)
				b.check(err)
				child, done := 0, false
				r := b.run(b.chainOf()[0], call{command: "DEL", id: c1.id, netns: c1.netns}, with(b.chainOf()[0].conf, "prevResult", result), func(tr *tracer, p point) {
					if pid, is := tr.ofChild(p); is {
						child = pid
					}
					ofPlugin := child != 0 && p.tid != child && !p.after
					reached := map[string]bool{
						"before it sends": child != 0, "while it waits": ofPlugin, "at the end of DEL": ofPlugin && p.nr == unix.SYS_EXIT_GROUP,
					}
					if done || !reached[when] {
						return
					}
					done = true
					if victim.child {
						_ = unix.Kill(child, unix.SIGKILL)
					}
					if victim.plugin {
						tr.kill()
					}
				})
				if !done {
					t.Fatalf("%s: DEL has no child", where)
				}
				if !r.killed() {
					b.check(r.err())
					b.gone(where)
				}
				if again {
					if result, err = b.add(c1); err == nil {
						err = b.ready(result)
					}
					if err != nil {
						b.fail("%s: %v", where, err)
					}
				}
				b.check(b.restore(result))
				b.compare(where)
			}
		}
	}
}

package kill

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// few is the distance between the points that are tried if not all are. It is
// no multiple of 2: both sides of calls are among them.
const few = 61

// TestKill kills ADD and DEL by SIGKILL before and after each system call.
// Then ADD succeeds, and makes all that it makes otherwise, and DEL leaves the
// host as it was.
func TestKill(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name+" ADD", func(t *testing.T) {
			t.Parallel()
			newBench(t, s).killAdd()
		})
		if s.cold {
			continue
		}
		t.Run(s.name+" DEL", func(t *testing.T) {
			t.Parallel()
			newBench(t, s).killDel()
		})
	}
}

// killAt returns what kills a plugin at its n-th point, and says at which. Of a point of a
// process that it leaves behind it kills one of the two, or both.
func killAt(n int, c *count, where *string) func(*tracer, point) {
	return func(tr *tracer, p point) {
		at := 2 * p.index
		if p.after {
			at++
		}
		if at != n {
			return
		}
		*where = p.String()
		c.points++
		if p.netmsg {
			c.netlink++
		}
		child, is := tr.ofChild(p)
		if is {
			c.children++
		}
		if is && c.children%3 != 0 {
			*where += " of a child, which is killed"
			_ = unix.Kill(child, unix.SIGKILL)
		}
		if !is || c.children%3 != 1 {
			tr.kill()
		}
	}
}

// eachPoint calls try with the points of a plugin until it was not killed.
func (b *bench) eachPoint(start int, try func(n int) (killed bool)) {
	b.t.Helper()
	for n, by := start, step(b.t, few); try(n); n += by {
	}
}

func (b *bench) killAdd() {
	b.t.Helper()
	var total count
	for i, p := range b.chainOf() {
		b.eachPoint(i, func(n int) bool { return b.killAddAt(i, p, n, &total) })
	}
	b.t.Logf("%s, ADD: %s, %d leftovers", b.name, total, b.bad)
}

// killAddAt kills ADD of the i-th plugin at its n-th point.
func (b *bench) killAddAt(i int, p plugin, n int, total *count) (killed bool) {
	b.t.Helper()
	prev, conf := "", p.conf
	if i > 0 {
		prev = b.first(i)
		conf = with(conf, "prevResult", prev)
	}
	var where string
	r := b.run(p, call{command: "ADD", id: c1.id, netns: c1.netns}, conf, killAt(n, total, &where))
	killed = where != ""
	where = fmt.Sprintf("%s ADD killed %s", p.name, where)
	b.still(where)
	if !r.killed() {
		if err := r.err(); err != nil {
			b.fail("%s, but not the plugin: %v", where, err)
		}
	}
	result := ""
	if n/2%2 == 1 {
		var err error
		if result, err = b.add(c1); err == nil {
			err = b.ready(result)
		}
		if err != nil {
			b.fail("%s, then repeated: %v", where, err)
		}
	}
	if err := b.restore(result); err != nil {
		b.fail("%s: %v", where, err)
	}
	b.compare(where)
	return killed
}

// first runs ADD of the first n plugins and returns their result.
func (b *bench) first(n int) string {
	b.t.Helper()
	h := &host{b.t, b.chainOf()[:n]}
	result, err := h.add(c1)
	b.check(err)
	return result
}

func (b *bench) killDel() {
	b.t.Helper()
	var total count
	for i, p := range b.chainOf() {
		b.eachPoint(i, func(n int) bool { return b.killDelAt(i, p, n, &total) })
	}
	b.t.Logf("%s, DEL: %s, %d leftovers", b.name, total, b.bad)
}

// killDelAt kills DEL of the i-th plugin at its n-th point, after that of the
// plugins behind it.
func (b *bench) killDelAt(i int, p plugin, n int, total *count) (killed bool) {
	b.t.Helper()
	result, err := b.add(c1)
	if err != nil {
		b.t.Fatalf("ADD: %v", err)
	}
	b.datagram()
	behind := &host{b.t, b.chainOf()[i+1:]}
	b.check(behind.del(c1, result))
	var where string
	r := b.run(p, call{command: "DEL", id: c1.id, netns: c1.netns}, with(p.conf, "prevResult", result), killAt(n, total, &where))
	killed = where != ""
	where = fmt.Sprintf("%s DEL killed %s", p.name, where)
	b.still(where)
	if !r.killed() {
		if err := r.err(); err != nil {
			b.fail("%s, but not the plugin: %v", where, err)
		}
		if i == 0 { // the one that makes links
			b.gone(where)
		}
	}
	if n/2%2 == 1 { // the runtime changes its mind: what was half taken away is whole again
		if result, err = b.add(c1); err == nil {
			err = b.ready(result)
		}
		if err != nil {
			b.fail("%s, then ADD: %v", where, err)
		}
	}
	if err := b.restore(result); err != nil {
		b.fail("%s: %v", where, err)
	}
	b.compare(where)
	return killed
}

// gone says that nothing of the attachment is there as soon as DEL says so: neither end of
// its link, nor its lock.
func (b *bench) gone(where string) {
	b.t.Helper()
	lines, err := linkLines()
	b.check(err)
	lntest.Enter(b.t, netns, func() {
		inside, err := linkLines()
		b.check(err)
		lines = append(lines, inside...)
	})
	for _, line := range lines {
		if strings.Contains(line, "/"+c1.id+"/") || strings.HasPrefix(line, "link eth0 ") {
			b.fail("%s: DEL has ended, and left %s", where, line)
		}
	}
}

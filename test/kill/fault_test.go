package kill

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// errnos are what a system call fails with.
var errnos = []unix.Errno{unix.ENOMEM, unix.EIO, unix.ENOSPC, unix.EINTR, unix.EBUSY, unix.EPERM, unix.EMFILE}

// fewFaults is the distance between the faults that are tried if not all are.
// It is no multiple of the number of errnos: each is among them.
const fewFaults = 277

// TestFault has each system call of ADD and of DEL fail once, with each errno.
// ADD fails and leaves nothing, or succeeds and CHECK agrees; DEL that succeeds
// leaves nothing, and DEL that fails does so when it is repeated.
func TestFault(t *testing.T) {
	if !canFail {
		t.Skip("the registers of this machine are not known to the test")
	}
	for _, s := range scenarios() {
		t.Run(s.name+" ADD", func(t *testing.T) {
			t.Parallel()
			newBench(t, s).faults("ADD", (*bench).failAdd)
		})
		if s.cold {
			continue
		}
		t.Run(s.name+" DEL", func(t *testing.T) {
			t.Parallel()
			newBench(t, s).faults("DEL", (*bench).failDel)
		})
	}
}

// fault is a system call of a plugin, by its index, and how it fails.
type fault struct {
	plugin int // in the chain
	index  int
	errno  unix.Errno
	where  string // set once it has happened
	begun  bool   // it came after the plugin had begun to read
	took   time.Duration
}

// visit has the call fail.
func (f *fault) visit(t testing.TB) func(*tracer, point) {
	return func(tr *tracer, p point) {
		reads := p.nr == unix.SYS_READ && p.args[0] == 0
		if f.where == "" {
			f.begun = f.begun || reads
		}
		if p.index != f.index || p.after {
			return
		}
		f.where = fmt.Sprintf("%v, %v", p, f.errno)
		tr.fail(t, p, f.errno)
	}
}

// ofComfort says that ADD does without the setting that was refused, as under a read-only
// /proc/sys: with duplicate address detection a bridge's own address works a second later.
func (f *fault) ofComfort() bool {
	return f.errno == unix.EPERM && strings.Contains(f.where, "/accept_dad)")
}

// tally is how the faults went.
type tally struct{ tried, failed int }

// faults tries every fault of every plugin until the plugin makes no such call.
func (b *bench) faults(command string, try func(*bench, *fault) (failed bool)) {
	b.t.Helper()
	var sum tally
	for i := range b.chainOf() {
		for n, by := i, step(b.t, fewFaults); ; n += by {
			f, failed := b.fault(i, n, try)
			if f.where == "" {
				break
			}
			sum.tried++
			if failed {
				sum.failed++
			}
		}
	}
	b.t.Logf("%s, %s: %d faults, of which %d were overcome; %d wrong", b.name, command, sum.tried, sum.tried-sum.failed, b.bad)
}

// fault tries fault number n of the i-th plugin, and again where the plugin took long: it is
// the machine that is slow, unless it is slow each time.
func (b *bench) fault(i, n int, try func(*bench, *fault) (failed bool)) (f *fault, failed bool) {
	b.t.Helper()
	for range 3 {
		f = &fault{plugin: i, index: n / len(errnos), errno: errnos[n%len(errnos)]}
		if failed = try(b, f); f.took <= slow {
			return f, failed
		}
	}
	b.fail("%s, fails %s: took %s, and as long before", b.chainOf()[i].name, f.where, f.took)
	return f, failed
}

// failAdd has one call of ADD fail.
func (b *bench) failAdd(f *fault) (failed bool) {
	b.t.Helper()
	p, prev := b.chainOf()[f.plugin], ""
	conf, between := p.conf, b.before
	if f.plugin > 0 {
		prev = b.first(f.plugin)
		conf, between = with(conf, "prevResult", prev), b.snapshot()
	}
	r := b.run(p, call{command: "ADD", id: c1.id, netns: c1.netns}, conf, f.visit(b.t))
	where := fmt.Sprintf("%s ADD, fails %s", p.name, f.where)
	failed = r.err() != nil
	result := r.stdout
	if failed {
		result = ""
		b.holdError(f, r, where)
		// A result that could not be printed is of an ADD that was complete: it is
		// taken back as by DEL, which leaves the network's bridge.
		if complete := strings.Contains(f.where, "write(/memfd:kill"); !b.cold || !complete {
			b.sameAs(between, where+", says "+r.message())
		}
	} else {
		err := b.addRest(f.plugin, &result)
		switch {
		case err != nil:
		case f.ofComfort():
			err = b.checkAll(c1, result)
		default:
			err = b.ready(result)
		}
		if err != nil {
			b.fail("%s, succeeds: %v", where, err)
		}
	}
	if err := b.restore(result); err != nil {
		b.fail("%s: %v", where, err)
	}
	b.compare(where + ", then DEL")
	return failed
}

// holdError holds an error against the protocol, and notes its time. The Go runtime
// may give up before the plugin begins.
func (b *bench) holdError(f *fault, r reply, where string) {
	b.t.Helper()
	if f.begun && !r.said() {
		b.fail("%s: no error as the spec wants it: %v", where, r.err())
	}
	f.took = r.took
}

// slow is more than a plugin takes that does not wait for what cannot come.
const slow = 5 * time.Second

// addRest runs ADD of the plugins behind the i-th.
func (b *bench) addRest(i int, result *string) (err error) {
	b.t.Helper()
	*result, err = b.addFrom(c1, i+1, *result)
	return err
}

// failDel has one call of DEL fail.
func (b *bench) failDel(f *fault) (failed bool) {
	b.t.Helper()
	result, err := b.add(c1)
	if err != nil {
		b.t.Fatalf("ADD: %v", err)
	}
	b.datagram()
	i, p := f.plugin, b.chainOf()[f.plugin]
	behind, before := &host{b.t, b.chainOf()[i+1:]}, &host{b.t, b.chainOf()[:i]}
	b.check(behind.del(c1, result))
	r := b.run(p, call{command: "DEL", id: c1.id, netns: c1.netns}, with(p.conf, "prevResult", result), f.visit(b.t))
	where := fmt.Sprintf("%s DEL, fails %s", p.name, f.where)
	if failed = r.err() != nil; failed {
		where += ", says " + r.message()
		b.holdError(f, r, where)
		err = b.restore(result)
	} else {
		err = before.del(c1, result)
	}
	if err != nil {
		b.fail("%s: %v", where, err)
	}
	b.compare(where)
	return failed
}

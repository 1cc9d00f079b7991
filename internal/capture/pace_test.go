package capture

import (
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// dial returns a socket of a namespace, for queries to the server outside.
func (l *lab) dial(path string) (c net.Conn) {
	l.t.Helper()
	l.must(lntest.In(l.t, path, func() (err error) {
		c, err = net.Dial("udp", "192.0.2.2:53")
		return err
	}))
	l.t.Cleanup(func() { _ = c.Close() })
	return c
}

// mayRun is where the thread may run.
func mayRun(t *testing.T) (set unix.CPUSet) {
	t.Helper()
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Error(err)
	}
	return set
}

// eachCPU calls fn on each CPU in turn. The test's thread ends with the test.
func eachCPU(t *testing.T, fn func(only unix.CPUSet)) {
	t.Helper()
	may := mayRun(t)
	for cpu := range cpus() {
		if !may.IsSet(cpu) {
			continue
		}
		var only unix.CPUSet
		only.Set(cpu)
		if err := unix.SchedSetaffinity(0, &only); err != nil {
			t.Fatal(err)
		}
		fn(only)
	}
}

// A query is answered on the CPU that sends it.
func TestSameCPU(t *testing.T) {
	l := newLab(t, "0")
	var answered atomic.Pointer[unix.CPUSet]
	l.start(Config{Respond: func(q Query) []byte {
		set := mayRun(t)
		answered.Store(&set)
		return respond(q)
	}})
	c, times := l.dial(l.a), 0
	eachCPU(t, func(only unix.CPUSet) {
		times++
		// The kernel sends a first query later, once it has found the neighbour.
		if !lntest.Await(lntest.WaitForAnswer, func() bool {
			_, err := exchange(c, "ours")
			l.must(err)
			return *answered.Load() == only
		}) {
			t.Errorf("a query is sent on CPU %x, and answered on %x", only[0], answered.Load()[0])
		}
	})
	if times == 0 {
		t.Error("no CPU was tried")
	}
}

// A thread that finds many queries at once lets the askers run first, until few come again.
func TestPace(t *testing.T) {
	l := newLab(t, "0")
	var held atomic.Pointer[chan struct{}]
	var policy atomic.Uint32 // of the thread that answered last
	l.start(Config{Respond: func(q Query) []byte {
		if release := held.Load(); release != nil {
			<-*release
		}
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Error(err)
			return nil
		}
		policy.Store(a.Policy)
		return respond(q)
	}})
	c := l.dial(l.a)
	eachCPU(t, func(unix.CPUSet) {}) // stays on the last one
	becomes := func(want uint32) {
		t.Helper()
		if !lntest.Await(lntest.WaitForAnswer, func() bool {
			_, err := exchange(c, "ours")
			l.must(err)
			return policy.Load() == want
		}) {
			t.Errorf("the policy is %d, want %d", policy.Load(), want)
		}
	}
	becomes(unix.SCHED_NORMAL)
	release := make(chan struct{})
	held.Store(&release)
	const many = 20
	before := sumOf(t, columnCame)
	for range many {
		_, err := c.Write([]byte("ours, of many"))
		l.must(err)
	}
	if !lntest.Await(lntest.WaitForAnswer, func() bool { return sumOf(t, columnCame) >= before+many }) {
		t.Errorf("%d queries have come, want %d", sumOf(t, columnCame)-before, many)
	}
	held.Store(nil)
	close(release)
	if !lntest.Await(lntest.WaitForAnswer, func() bool { return policy.Load() == unix.SCHED_BATCH }) {
		t.Errorf("the policy is %d after many queries", policy.Load())
	}
	becomes(unix.SCHED_NORMAL)
}

// Another policy, and how nice a thread is, stay as the administrator has them.
func TestPolicyStays(t *testing.T) {
	lntest.Isolate(t) // a thread of its own, which ends with the test
	is := func(want uint32) {
		t.Helper()
		if a, err := unix.SchedGetAttr(0, 0); err != nil || a.Policy != want || want != unix.SCHED_IDLE && a.Nice != 3 {
			t.Errorf("scheduled by %+v (%v), want policy %d", a, err, want)
		}
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 3); err != nil {
		t.Fatal(err)
	}
	p := newPace()
	is(unix.SCHED_NORMAL)
	p.came(few + 1)
	is(unix.SCHED_BATCH)
	for range inARow - 1 {
		p.came(few)
		is(unix.SCHED_BATCH)
	}
	p.came(1)
	is(unix.SCHED_NORMAL)
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE, Nice: 3}, 0); err != nil {
		t.Fatal(err)
	}
	p = newPace()
	p.came(few + 1)
	is(unix.SCHED_IDLE)
}

package capture

import (
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/plain"
)

// none is no CPU.
const none = -1

// cpus is how many CPUs there are, with those that are off between them.
func cpus() int {
	if text, err := plain.ReadFile("/sys/devices/system/cpu/online"); err == nil { // as 0-3,8
		list := strings.TrimSpace(string(text))
		if last, err := strconv.Atoi(list[strings.LastIndexAny(list, "-,")+1:]); err == nil {
			return last + 1
		}
	}
	return runtime.NumCPU()
}

// stay binds the thread to a CPU, if it may run there. The asker's thread puts its query into
// the queue itself and then waits, so its CPU turns to the answer at once. Left to choose, the
// kernel would wake another CPU instead, and wait for it, and that one would wake the asker's: it
// takes twice the time, of the CPUs and of the asker.
func stay(cpu int) {
	var may, only unix.CPUSet
	if cpu == none || unix.SchedGetaffinity(0, &may) != nil || !may.IsSet(cpu) {
		return
	}
	only.Set(cpu)
	_ = unix.SchedSetaffinity(0, &only)
}

const (
	// inARow is how often few queries have to come at once until that is taken for the rule.
	inARow = 32
	// tryAgain is how often messages are received one by one until it is tried again whether
	// several come at once.
	tryAgain = 8
	// few is how many queries one asker has at once: for an A and for an AAAA record.
	few = 2
)

// pace is how queries come, and what the thread that waits for them does about it.
//
// If many come at once it lets the askers run first, though it could run: as a batch job
// (SCHED_BATCH). Then more of them ask before it runs, and all are answered in one go, for half
// the CPU time each. Of few queries each is answered as soon as it comes.
type pace struct {
	alone, calm int // how often in a row one message came, and few did
	batch, may  bool
}

func newPace() *pace {
	policy, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	return &pace{may: errno == 0 && policy == unix.SCHED_NORMAL} // another one is the administrator's
}

// single says that messages are received one by one, as they come alone.
func (p *pace) single() bool { return p.alone >= inARow && p.alone%tryAgain != 0 }

// came takes note of the messages that came at once.
func (p *pace) came(n int) {
	p.alone++
	p.calm++
	if n > 1 {
		p.alone = 0
	}
	if n > few {
		p.calm = 0
	}
	switch {
	case p.calm == 0 && !p.batch:
		p.as(unix.SCHED_BATCH)
	case p.calm == inARow && p.batch:
		p.as(unix.SCHED_NORMAL)
	}
}

// as has the thread scheduled by a policy.
func (p *pace) as(policy uintptr) {
	if !p.may {
		return
	}
	p.batch = policy == unix.SCHED_BATCH
	var priority int32
	_, _, _ = unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, policy, uintptr(unsafe.Pointer(&priority)))
}

package ipamstore

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// state says whether the index can be trusted. After each change of ours the
// pool's directory gets a modification time that only we know, kept here as
// well. A later change by another program gives the directory the kernel's time;
// a crash of ours leaves clean false. Either way the index is rebuilt.
type state struct {
	boot     string    // the boot that wrote it; "" if there is no index
	stamp    time.Time // the directory's modification time
	clean    bool      // no change is under way
	problems int       // files in the directory that are no leases
}

const (
	stateFile = "state"
	stateSize = 160 // bytes, padded: one write replaces it whole
	stateMark = "ipamstore1"
)

func (st state) bytes() []byte {
	word := "dirty"
	if st.clean {
		word = "clean"
	}
	b := append(make([]byte, 0, stateSize), stateMark+" "...)
	b = append(append(b, st.boot...), ' ')
	b = append(strconv.AppendInt(b, st.stamp.Unix(), 10), ' ')
	b = append(strconv.AppendInt(b, int64(st.stamp.Nanosecond()), 10), ' ')
	b = append(append(b, word...), ' ')
	b = strconv.AppendInt(b, int64(st.problems), 10)
	for len(b) < stateSize-1 {
		b = append(b, ' ')
	}
	return append(b, '\n')
}

// parseState returns the zero state for anything that is not one.
func parseState(data []byte) state {
	f := strings.Fields(string(data))
	if len(data) != stateSize || len(f) != 6 || f[0] != stateMark {
		return state{}
	}
	sec, err1 := strconv.ParseInt(f[2], 10, 64)
	nsec, err2 := strconv.ParseInt(f[3], 10, 64)
	problems, err3 := strconv.Atoi(f[5])
	if err1 != nil || err2 != nil || err3 != nil {
		return state{}
	}
	return state{boot: f[1], stamp: time.Unix(sec, nsec), clean: f[4] == "clean", problems: problems}
}

// newBoot settles what an earlier boot left in t. With RebootRelease, leases
// that are proven to be older than this boot are removed:
//
//   - all, if no program has changed the directory since our index was last right
//     (known), as that was before the reboot;
//   - else those the index of the earlier boot lists, if their file is still
//     the same;
//   - and those whose file was last written before the machine started.
//
// Any other lease may be host-local's of this boot and is honoured.
func (x *session) newBoot(t *table, known bool) error {
	for _, e := range t.entries {
		e.Netns, e.NetnsID = "", "" // no namespace survives
	}
	if x.s.conf.RebootPolicy == RebootKeep {
		return x.idx.Remove(coolingFile)
	}
	old := x.stale(t, known)
	gone := map[netip.Addr]bool{}
	var errs []error
	for o, e := range t.entries {
		e.addrs = slices.DeleteFunc(e.addrs, func(l leased) bool {
			if !old(o, l) {
				return false
			}
			if err := x.dir.Remove(l.addr.String()); err != nil {
				errs = append(errs, err)
				return false
			}
			gone[l.addr] = true
			return true
		})
		if len(e.addrs) == 0 {
			delete(t.entries, o)
		}
	}
	t.files = slices.DeleteFunc(t.files, func(h Held) bool { return gone[h.Addr] })
	return errors.Join(append(errs, x.idx.Remove(coolingFile))...)
}

// stale returns the test by which newBoot picks leases of an earlier boot.
func (x *session) stale(t *table, known bool) func(Owner, leased) bool {
	known = known && x.state.boot != ""
	started := x.s.bootStart().UnixNano()
	return func(o Owner, l leased) bool {
		old := t.listed[o]
		listed := old != nil && x.state.boot != "" && old.has(l)
		return known || listed || l.since < started
	}
}

// bootStart returns a time before which nothing of this boot can have been
// written, by the clock as it was when that was written. The clock may have
// been set forward since the machine started (a board without a battery), so
// the age of /dev, which is made early, counts as well if it is greater.
func bootStart() time.Time {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Unix(0, 0)
	}
	start := time.Now().Add(-time.Duration(up.Nano()))
	var dev unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, "/dev", 0, unix.STATX_BTIME, &dev)
	if err != nil || dev.Mask&unix.STATX_BTIME == 0 {
		return time.Unix(0, 0) // no second witness: nothing is proven
	}
	if made := time.Unix(dev.Btime.Sec, int64(dev.Btime.Nsec)); made.Before(start) {
		start = made
	}
	return start.Add(-2 * time.Second)
}

// uptime is a clock that setting the time does not disturb.
func uptime() time.Duration {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return 0
	}
	return time.Duration(up.Nano())
}

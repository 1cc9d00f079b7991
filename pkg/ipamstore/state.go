package ipamstore

import (
	"math/rand/v2"
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

// stamp gives the directory a modification time of our own and returns it.
// File systems that keep whole seconds only get a second in the past, which
// the kernel's clock will not produce either.
func (d dir) stamp() (time.Time, error) {
	want := time.Unix(time.Now().Unix(), rand.Int64N(1e9))
	for range 2 {
		ts, err := unix.TimeToTimespec(want)
		if err != nil {
			return want, err
		}
		if err := unix.UtimesNanoAt(d.fd, ".", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}, 0); err != nil {
			return want, err
		}
		if got, err := d.mtime(); err != nil || got.Equal(want) {
			return want, err
		}
		want = time.Unix(rand.Int64N(8e8)+1e8, 0)
	}
	return want, unix.EINVAL
}

func (d dir) mtime() (time.Time, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return time.Time{}, err
	}
	return time.Unix(st.Mtim.Unix()), nil
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

package pooldir

import (
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// Stamp gives the directory a modification time of our own and returns it.
// File systems that keep whole seconds only get a second in the past, which
// the kernel's clock will not produce either.
func (d Dir) Stamp() (time.Time, error) {
	want := time.Unix(time.Now().Unix(), rand.Int64N(1e9))
	for range 2 {
		ts, err := unix.TimeToTimespec(want)
		if err != nil {
			return want, err
		}
		if err := unix.UtimesNanoAt(d.Fd, ".", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}, 0); err != nil {
			return want, err
		}
		if got, err := d.Mtime(); err != nil || got.Equal(want) {
			return want, err
		}
		want = time.Unix(rand.Int64N(8e8)+1e8, 0)
	}
	return want, unix.EINVAL
}

func (d Dir) Mtime() (time.Time, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.Fd, &st); err != nil {
		return time.Time{}, err
	}
	return time.Unix(st.Mtim.Unix()), nil
}

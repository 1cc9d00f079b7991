package lntest

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime is how long this process has computed (unix.RUSAGE_SELF), or the calling thread
// (unix.RUSAGE_THREAD).
func CPUTime(t testing.TB, of int) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(of, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

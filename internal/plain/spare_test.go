package plain

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Not parallel: the limit is the process's.
func TestSpare(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	free, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0) // the lowest that is free
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(free)
	limit := unix.Rlimit{Cur: uint64(free) + 4, Max: before.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
	if _, err := Spare(64); !errors.Is(err, unix.EMFILE) {
		t.Errorf("64 of few: %v, want EMFILE", err)
	}
	closeAll, err := Spare(2)
	if err != nil {
		t.Fatalf("a failed Spare keeps descriptors: %v", err)
	}
	closeAll()
	closeAll()
	if closeAll, err = Spare(2); err != nil {
		t.Fatalf("descriptors stay open: %v", err)
	}
	closeAll()
}

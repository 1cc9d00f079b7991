package flock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process of its own holds the locks: this test program, started again.
func TestMain(m *testing.M) {
	if path := os.Getenv("FLOCK_TEST_HOLD"); path != "" {
		fd, err := unix.Open(path, unix.O_RDWR, 0)
		if err == nil {
			err = errors.Join(Lock(context.Background(), fd, unix.LOCK_EX, time.Minute, path), LockByte(context.Background(), fd, 7, time.Minute, path))
		}
		fmt.Println("held", err)
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// hold starts a process that holds the lock of the whole file and that of byte
// 7, and returns its ID and what ends it.
func hold(t *testing.T, path string) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "FLOCK_TEST_HOLD="+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	if _, err := stdout.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, func() { _ = stdin.Close() }
}

// newFile returns the path of an empty file, and what opens it.
func newFile(t *testing.T) (path string, open func() int) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, func() int {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
}

func TestLocks(t *testing.T) {
	path, open := newFile(t)
	pid, end := hold(t, path)
	held := fmt.Sprintf("process %d", pid)
	for name, lock := range map[string]func(time.Duration) error{
		"file": func(d time.Duration) error { return Lock(t.Context(), open(), unix.LOCK_SH, d, path) },
		"byte": func(d time.Duration) error { return LockByte(t.Context(), open(), 7, d, path) },
	} {
		if err := lock(50 * time.Millisecond); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), held) {
			t.Errorf("%s: got %v, want ErrLocked and %s", name, err, held)
		}
	}
	if err := LockByte(t.Context(), open(), 8, time.Minute, path); err != nil {
		t.Errorf("another byte: %v", err)
	}
	err := LockByte(t.Context(), open(), 8, 50*time.Millisecond, path)
	if !errors.Is(err, ErrLocked) || !strings.HasSuffix(err.Error(), "; held by this process") {
		t.Errorf("got %v, want this process: the other holds another byte", err)
	}
	got := make(chan error)
	go func() { got <- LockByte(context.Background(), open(), 7, time.Minute, path) }()
	end() // and with the process its locks
	if err := <-got; err != nil {
		t.Errorf("after the holder ended: %v", err)
	}
}

// The holder is named while others take and free so many locks that /proc/locks, which
// is read in parts, does not have all that are held.
func TestHolderAmongMany(t *testing.T) {
	path, open := newFile(t)
	pid, _ := hold(t, path)
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	for i := range 4 {
		busy.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := takeAndFree(filepath.Join(dir, fmt.Sprint(i)), 100); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	held := fmt.Sprintf("process %d", pid)
	for n := range 300 {
		if err := Lock(t.Context(), open(), unix.LOCK_EX, time.Microsecond, path); !strings.Contains(err.Error(), held) {
			t.Errorf("call %d: got %v, want %s", n, err, held)
			break
		}
	}
	stop()
	busy.Wait()
}

// takeAndFree takes n locks of a file and frees them in this order.
func takeAndFree(path string, n int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	for _, kind := range []int16{unix.F_WRLCK, unix.F_UNLCK} {
		for at := range n {
			l := unix.Flock_t{Type: kind, Whence: unix.SEEK_SET, Start: 2 * at, Len: 1}
			if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &l); err != nil {
				return err
			}
		}
	}
	return nil
}

// A caller that gives up again and again keeps one thread and one descriptor; the next
// to ask gets the lock that these wait for, on its own descriptor.
func TestGivenUp(t *testing.T) {
	path, open := newFile(t)
	_, end := hold(t, path)
	for name, lock := range map[string]func(fd int, d time.Duration) error{
		"file": func(fd int, d time.Duration) error { return Lock(t.Context(), fd, unix.LOCK_EX, d, path) },
		"byte": func(fd int, d time.Duration) error { return LockByte(t.Context(), fd, 7, d, path) },
	} {
		before := descriptors(t, path)
		for range 20 {
			if err := lock(open(), time.Millisecond); !errors.Is(err, ErrLocked) {
				t.Fatalf("%s: got %v", name, err)
			}
		}
		if n := descriptors(t, path) - before; n != 1 {
			t.Errorf("%s: %d descriptors are left, want 1", name, n)
		}
	}
	fd := open()
	got := make(chan error)
	go func() { got <- LockByte(context.Background(), fd, 7, time.Minute, path) }()
	end()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if err := LockByte(t.Context(), open(), 7, 10*time.Millisecond, path); !errors.Is(err, ErrLocked) {
		t.Errorf("beside its holder: %v", err)
	}
	_ = unix.Close(fd)
	if err := LockByte(t.Context(), open(), 7, time.Minute, path); err != nil {
		t.Errorf("when that one has closed its descriptor: %v", err)
	}
}

// descriptors counts those of a file that this process has.
func descriptors(t *testing.T, path string) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if name, _ := os.Readlink("/proc/self/fd/" + fd.Name()); name == path {
			n++
		}
	}
	return n
}

func TestParseLock(t *testing.T) {
	for line, want := range map[string]held{
		"1: FLOCK  ADVISORY  WRITE 708 08:01:123 0 EOF": {"FLOCK", "08:01:123", 708, 0, 1<<63 - 1},
		"2: OFDLCK ADVISORY  WRITE -1 00:13:9 7 7":      {"OFDLCK", "00:13:9", -1, 7, 7},
		"2: -> OFDLCK ADVISORY WRITE -1 00:13:9 7 7":    {},
		"":                       {},
		"1: POSIX ADVISORY READ": {},
	} {
		if got, ok := parseLock(line); got != want || ok != (want != held{}) {
			t.Errorf("%q: got %+v, %t", line, got, ok)
		}
	}
}

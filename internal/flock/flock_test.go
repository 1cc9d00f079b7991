package flock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process of its own holds the locks: this test program, started again.
func TestMain(m *testing.M) {
	if path := os.Getenv("FLOCK_TEST_HOLD"); path != "" {
		fd, err := unix.Open(path, unix.O_RDWR, 0)
		if err == nil {
			err = errors.Join(Lock(context.Background(), fd, unix.LOCK_EX, time.Second, path), LockByte(context.Background(), fd, 7, time.Second, path))
		}
		fmt.Println("held", err)
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
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
	defer func() { _ = cmd.Wait() }()
	if _, err := stdout.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	open := func() int {
		fd, err := unix.Open(path, unix.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	held := fmt.Sprintf("process %d", cmd.Process.Pid)
	for name, lock := range map[string]func(time.Duration) error{
		"file": func(d time.Duration) error { return Lock(t.Context(), open(), unix.LOCK_SH, d, path) },
		"byte": func(d time.Duration) error { return LockByte(t.Context(), open(), 7, d, path) },
	} {
		if err := lock(50 * time.Millisecond); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), held) {
			t.Errorf("%s: got %v, want ErrLocked and %s", name, err, held)
		}
	}
	if err := LockByte(t.Context(), open(), 8, time.Second, path); err != nil {
		t.Errorf("another byte: %v", err)
	}
	got := make(chan error)
	go func() { got <- LockByte(context.Background(), open(), 7, 10*time.Second, path) }()
	_ = stdin.Close() // the process ends, and with it its locks
	if err := <-got; err != nil {
		t.Errorf("after the holder ended: %v", err)
	}
}

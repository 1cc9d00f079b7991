// Package flock waits for flock(2) locks with a bound, and names who holds one.
package flock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/plain"
)

// ErrLocked says that a lock was not free in time.
var ErrLocked = errors.New("locked")

// Lock takes the lock of an open file; how is unix.LOCK_EX or unix.LOCK_SH. It
// waits until ctx ends or timeout has passed, 0 for none; then the error is ErrLocked, says
// who holds the file at path, and the descriptor is not the caller's any more.
func Lock(ctx context.Context, fd, how int, timeout time.Duration, path string) error {
	err := flock(fd, how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return wait(ctx, fd, func() error { return flock(fd, how) }, timeout, path)
	}
	return err
}

// LockByte is Lock for one byte of a file open for writing, which need not be
// there: as many locks in a file as there are numbers (fcntl(2), open file
// description locks). It has nothing to do with those of Lock.
func LockByte(ctx context.Context, fd int, at int64, timeout time.Duration, path string) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: at, Len: 1}
	set := func(cmd int) error {
		for {
			if err := unix.FcntlFlock(uintptr(fd), cmd, &lock); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	}
	err := set(unix.F_OFD_SETLK)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return wait(ctx, fd, func() error { return set(unix.F_OFD_SETLKW) }, timeout, path)
	}
	return err
}

// wait blocks in lock on a goroutine of its own, as locks know no timeout. When
// the wait is given up that goroutine stays until the lock is free, and then
// frees it again.
func wait(ctx context.Context, fd int, lock func() error, timeout time.Duration, path string) error {
	if err := plain.StartPoller(); err != nil { // for the timer
		return fmt.Errorf("wait for lock %s: %w", path, err)
	}
	if timeout != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not free within %s", timeout))
		defer cancel()
	}
	got := make(chan error)
	go func() {
		err := lock()
		select {
		case got <- err:
		case <-ctx.Done():
			_ = unix.Close(fd)
		}
	}()
	select {
	case err := <-got:
		return err
	case <-ctx.Done():
		return fmt.Errorf("lock %s: %w: %w%s", path, ErrLocked, context.Cause(ctx), holder(path))
	}
}

// holder describes who holds the lock, as the end of an error message; "" if
// that cannot be found out.
func holder(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ""
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(read("/proc/locks")) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			return "; held by " + describe(pid)
		}
	}
	return holderOfByte(file)
}

// holderOfByte is holder for locks of which /proc/locks names no process.
func holderOfByte(file string) string {
	all, _ := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	for _, info := range all {
		for line := range strings.Lines(read(info)) {
			if !strings.HasPrefix(line, "lock:") || !strings.Contains(line, "OFDLCK") || !strings.Contains(line, file) || strings.Contains(line, "->") {
				continue
			}
			if pid, err := strconv.Atoi(strings.Split(info, "/")[2]); err == nil && pid != os.Getpid() {
				return "; held by " + describe(pid)
			}
		}
	}
	return ""
}

func read(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	data, _ := io.ReadAll(io.LimitReader(file, 1<<20))
	return string(data)
}

// describe names a process: its ID, command line and, if it is stopped, that.
func describe(pid int) string {
	out := "process " + strconv.Itoa(pid)
	if cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(cmd) > 0 {
		cmd = bytes.ReplaceAll(bytes.TrimRight(cmd, "\x00"), []byte{0}, []byte{' '})
		out += fmt.Sprintf(" (%.80s)", cmd)
	}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := bytes.LastIndexByte(stat, ')'); i >= 0 && len(stat) > i+2 && (stat[i+2] == 'T' || stat[i+2] == 't') {
		out += ", which is stopped"
	}
	return out
}

func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

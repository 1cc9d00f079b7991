// Package flock waits for file locks with a bound, and names the holder of one.
package flock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// ErrLocked says that a lock was not free in time.
var ErrLocked error = &sentinel.Error{Text: "locked"}

// Lock takes the flock(2) lock of an open file; how is unix.LOCK_EX or
// unix.LOCK_SH. It waits until ctx ends or timeout has passed, 0 for none; then
// the error is ErrLocked, names the holder of the file at path, and the descriptor is
// not the caller's any more.
func Lock(ctx context.Context, fd, how int, timeout time.Duration, path string) error {
	take := func(fd int, wait bool) error {
		op := how
		if !wait {
			op |= unix.LOCK_NB
		}
		return again(func() error { return unix.Flock(fd, op) })
	}
	return lock(ctx, fd, timeout, path, wanted{how: how, at: wholeFile}, take)
}

// LockByte is Lock for one byte of a file open for writing, which need not be
// there: as many locks in a file as there are numbers (fcntl(2), open file
// description locks). It has nothing to do with those of Lock.
func LockByte(ctx context.Context, fd int, at int64, timeout time.Duration, path string) error {
	take := func(fd int, wait bool) error {
		cmd := unix.F_OFD_SETLK
		if wait {
			cmd = unix.F_OFD_SETLKW
		}
		byteLock := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: at, Len: 1}
		return again(func() error { return unix.FcntlFlock(uintptr(fd), cmd, &byteLock) })
	}
	return lock(ctx, fd, timeout, path, wanted{how: unix.LOCK_EX, at: at}, take)
}

// again calls fn until no signal interrupts it.
func again(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// lock takes a lock at once or waits for it.
func lock(ctx context.Context, fd int, timeout time.Duration, path string, w wanted, take func(fd int, wait bool) error) error {
	err := take(fd, false)
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
		return err
	}
	if err := plain.StartPoller(); err != nil { // for the timer
		return fmt.Errorf("wait for lock %s: %w", path, err)
	}
	if timeout != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not free within %s", timeout))
		defer cancel()
	}
	return wait(ctx, fd, path, w, take)
}

// wait blocks on a goroutine of its own, as locks know no timeout. A caller that gives up
// leaves that goroutine where it is, for the next caller that wants the same lock: they
// never are more than have waited at once.
func wait(ctx context.Context, fd int, path string, w wanted, take func(fd int, wait bool) error) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	w.dev, w.ino = uint64(st.Dev), st.Ino
	own := adopt(w)
	if own == nil {
		own = &waiter{fd: fd, done: make(chan struct{})}
		go own.run(take)
	}
	select {
	case <-own.done:
		return own.handTo(fd)
	case <-ctx.Done():
	}
	if !own.leave(w) { // it got the lock in this very moment
		return own.handTo(fd)
	}
	if own.fd != fd {
		_ = unix.Close(fd)
	}
	return fmt.Errorf("lock %s: %w: %w%s", path, ErrLocked, context.Cause(ctx), holder(path, w))
}

package flock

import (
	"errors"

	"golang.org/x/sys/unix"
)

// TryByte is LockByte without waiting: false if another holds the byte.
func TryByte(fd int, at int64) (bool, error) {
	byteLock := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: at, Len: 1}
	err := again(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &byteLock) })
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

// Try is Lock without waiting: false if another holds the lock.
func Try(fd, how int) (bool, error) {
	err := again(func() error { return unix.Flock(fd, how|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

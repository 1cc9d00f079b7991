package iptables

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openLock opens the lock file, made if missing. Where its directory takes
// nothing new, as on a read-only file system, rules are to be removed all the
// same: then a file that is there is opened for reading, which is enough to lock
// it, and where there is none the root directory stands for it.
func openLock(path string) (int, error) {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		var fd int
		if fd, err = unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600); err == nil {
			return fd, nil
		}
		err = &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if !unwritable(err) {
		return -1, err
	}
	for _, other := range []string{path, "/"} {
		if fd, openErr := unix.Open(other, unix.O_RDONLY|unix.O_CLOEXEC, 0); openErr == nil {
			return fd, nil
		}
	}
	return -1, err
}

func unwritable(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, fs.ErrPermission)
}

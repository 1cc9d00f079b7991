package pooldir

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// LockFile is the file below a directory that Lock locks, host-local's.
const LockFile = "lock"

// Lock takes the lock that host-local takes, and returns the descriptor
// that holds it. It waits until the context ends or timeout has passed. If the
// directory or the lock file was replaced meanwhile, it returns ErrReplaced.
func Lock(ctx context.Context, d Dir, timeout time.Duration) (int, error) {
	fd, err := OpenAt(d.Fd, LockFile, unix.O_RDONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, ErrReplaced // the directory was removed
	}
	if err != nil {
		return -1, d.Fail("open", LockFile, err)
	}
	path := filepath.Join(d.path, LockFile)
	err = flock.Lock(ctx, fd, unix.LOCK_EX, timeout, path)
	if errors.Is(err, flock.ErrLocked) {
		return -1, err // the waiting goroutine owns fd
	}
	if err != nil {
		err = Failure("lock", path, err)
	}
	if err == nil {
		err = stillThere(fd, d)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// ErrReplaced is returned by Lock for a directory that another one has replaced.
var ErrReplaced error = &sentinel.Error{Text: "directory was replaced while waiting for its lock"}

// stillThere guards against a directory that was removed (a folk remedy for
// leaked leases) while we waited: that lock protects nothing any more.
func stillThere(fd int, d Dir) error {
	var held, named unix.Stat_t
	if err := unix.Fstat(fd, &held); err != nil {
		return d.Fail("lock", LockFile, err)
	}
	err := unix.Fstatat(d.Fd, LockFile, &named, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (held.Ino != named.Ino || held.Dev != named.Dev) {
		return ErrReplaced
	}
	if err != nil {
		return d.Fail("lock", LockFile, err)
	}
	return nil
}

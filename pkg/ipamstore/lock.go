package ipamstore

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
)

const lockFile = "lock"

// lockPool takes the lock that host-local takes, and returns the descriptor
// that holds it. It waits until the context ends or timeout has passed. If the
// directory or the lock file was replaced meanwhile, it returns errReplaced.
func lockPool(ctx context.Context, d dir, timeout time.Duration) (int, error) {
	fd, err := openAt(d.fd, lockFile, unix.O_RDONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, errReplaced // the directory was removed
	}
	if err != nil {
		return -1, d.fail("open", lockFile, err)
	}
	path := filepath.Join(d.path, lockFile)
	err = flock.Lock(ctx, fd, unix.LOCK_EX, timeout, path)
	if errors.Is(err, ErrLocked) {
		return -1, err // the waiting goroutine owns fd
	}
	if err != nil {
		err = &ioError{"lock", path, err}
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

var errReplaced = errors.New("directory was replaced while waiting for its lock")

// stillThere guards against a directory that was removed (a folk remedy for
// leaked leases) while we waited: that lock protects nothing any more.
func stillThere(fd int, d dir) error {
	var held, named unix.Stat_t
	if err := unix.Fstat(fd, &held); err != nil {
		return d.fail("lock", lockFile, err)
	}
	err := unix.Fstatat(d.fd, lockFile, &named, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (held.Ino != named.Ino || held.Dev != named.Dev) {
		return errReplaced
	}
	if err != nil {
		return d.fail("lock", lockFile, err)
	}
	return nil
}

package state

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
)

// OneAtATime keeps every other caller waiting until release is called, whatever
// its network. It makes the root directory, and no file. The error is
// flock.ErrLocked if it takes too long.
func (d *Dir) OneAtATime(ctx context.Context) (release func(), err error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err := unix.Open(d.root, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(d.root, 0o700); err != nil {
			return nil, err
		}
		fd, err = unix.Open(d.root, flags, 0)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.root, Err: err}
	}
	err = flock.Lock(ctx, fd, unix.LOCK_EX, lockTimeout, d.root)
	if err != nil {
		if !errors.Is(err, flock.ErrLocked) {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	return func() { _ = unix.Close(fd) }, nil
}

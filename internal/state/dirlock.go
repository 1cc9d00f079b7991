package state

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
)

// OneAtATime keeps every other caller waiting until release is called, whatever
// its network. It makes the directory of networks, and no file. The error is
// flock.ErrLocked if it takes too long.
func (d *Dir) OneAtATime(ctx context.Context) (release func(), err error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	dir := filepath.Join(d.root, "networks")
	fd, err := unix.Open(dir, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		fd, err = unix.Open(dir, flags, 0)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	err = flock.Lock(ctx, fd, unix.LOCK_EX, lockTimeout, dir)
	if err != nil {
		if !errors.Is(err, flock.ErrLocked) {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	return func() { _ = unix.Close(fd) }, nil
}

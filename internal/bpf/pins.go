package bpf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
)

// Pins is the directory around those of pins, in a bpffs.
const Pins = Root + "/libnet"

// lockTimeout bounds the wait for another call that changes what is pinned, which takes well
// below a millisecond.
const lockTimeout = 10 * time.Second

// soNetnsCookie is SO_NETNS_COOKIE (asm-generic/socket.h, Linux 5.14).
const soNetnsCookie = 71

// NetnsDir is the directory of pins of a kind, in a version, that are of the calling thread's
// network namespace: links are numbered in each apart. Before Linux 5.14 it is named by the
// namespace's inode.
func NetnsDir(kind string, version int) (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	id, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, soNetnsCookie)
	_ = unix.Close(fd)
	if errors.Is(err, unix.ENOPROTOOPT) {
		var st unix.Stat_t
		err = unix.Stat("/proc/thread-self/ns/net", &st)
		id = st.Ino
	}
	if err != nil { // by another number the pins of this namespace would not be found
		return "", fmt.Errorf("look at own network namespace: %w", err)
	}
	return filepath.Join(Pins, fmt.Sprintf("%s-%d-v%d", kind, id, version)), nil
}

// LockDir opens a directory of pins, and locks it until the descriptor is closed. With create it
// is made if it is missing. The errors wrap os.ErrNotExist, os.ErrPermission, ErrUnsupported if
// no bpffs can be had, and flock.ErrLocked.
func LockDir(ctx context.Context, dir string, create bool) (fd int, err error) {
	for {
		fd, err = lockDir(ctx, dir)
		if errors.Is(err, os.ErrNotExist) && create {
			if err = MakeDir(dir); err == nil {
				continue
			}
		}
		if fd >= 0 || err != nil {
			return fd, err
		}
	}
}

// lockDir returns -1 if the directory was removed meanwhile.
func lockDir(ctx context.Context, dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	if err := flock.Lock(ctx, fd, unix.LOCK_EX, lockTimeout, dir); err != nil {
		if !errors.Is(err, flock.ErrLocked) {
			_ = unix.Close(fd)
		}
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Nlink == 0 {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// MakeDir makes a directory of pins. Pins may be removed by a call that ends at the same time.
func MakeDir(dir string) error {
	err := EnsureFS()
	if err != nil {
		return err
	}
	for range 10 {
		if err = os.MkdirAll(dir, 0o700); !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return err
}

// RemoveRoot removes the directory around those of pins, unless there are others; missing is
// success. A caller that may not has none.
func RemoveRoot(path string) error {
	err := unix.Rmdir(path)
	for _, fine := range []error{unix.ENOENT, unix.ENOTEMPTY, unix.EACCES, unix.EROFS} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	return err
}

// MakePinned makes a map, and pins it.
func MakePinned(path string, s MapSpec) (*Map, error) {
	m, err := NewMap(s)
	if err != nil {
		return nil, err
	}
	if err := Pin(m.FD(), path); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Program opens a pinned program, or loads it and pins it.
func Program(path string, load func() (int, error)) (int, error) {
	fd, err := Pinned(path)
	if !errors.Is(err, ErrNotFound) {
		return fd, err
	}
	if fd, err = load(); err != nil {
		return -1, err
	}
	if err := Pin(fd, path); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

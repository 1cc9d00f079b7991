// Package plain reads files without Go's poller, and starts that where it can
// fail.
//
// The poller starts with the first file of package os, timer or process, takes
// two descriptors, and ends the process if it gets none (runtime.netpollinit):
// in a plugin without an answer, and in the middle of its work. After its first change a
// plugin reads files by this package, and calls StartPoller before it waits or starts a
// process.
package plain

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/sorting"
)

// Open opens a file for reading, as os.Open does, without the poller. For the writer of a
// FIFO it does not wait: the path may stand in a configuration.
func Open(path string) (*os.File, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err == nil {
			_ = unix.SetNonblock(fd, false) // else os.NewFile starts the poller
			return os.NewFile(uintptr(fd), path), nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// ReadFile is os.ReadFile without the poller.
func ReadFile(path string) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}

// ReadDir is os.ReadDir without the poller.
func ReadDir(path string) ([]fs.DirEntry, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	all, err := f.ReadDir(-1)
	sorting.Stable(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all, errors.Join(err, f.Close())
}

// StartPoller starts Go's poller, or says why it could not start, by opening
// what it opens.
func StartPoller() error {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		_ = unix.Close(wake)
	}
	_ = unix.Close(poll)
	if err != nil {
		return os.NewSyscallError("eventfd2", err)
	}
	time.AfterFunc(time.Hour, func() {}).Stop() // the first timer starts it
	return nil
}

// Package pooldir is the folder of a pool of addresses: its names, its files, which are
// opened below it and never through a symbolic link, and its lock.
package pooldir

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Dir is an open directory. The files below it are opened relative to it and never through
// a symbolic link.
type Dir struct {
	Fd   int // -1 if it could not be opened
	path string
}

// Open opens a directory. The error is an ErrIO.
func Open(path string) (Dir, error) {
	fd, err := OpenAt(unix.AT_FDCWD, path, unix.O_DIRECTORY|unix.O_PATH)
	if err != nil {
		return Dir{Fd: -1}, Failure("open", path, err)
	}
	return Dir{fd, path}, nil
}

// Sub opens the directory name below d.
func (d Dir) Sub(name string) (Dir, error) {
	path := filepath.Join(d.path, name)
	fd, err := OpenAt(d.Fd, name, unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("not a directory, or a symbolic link, which is not followed: %w", err)
	}
	if err != nil {
		return Dir{Fd: -1}, Failure("open", path, err)
	}
	return Dir{fd, path}, nil
}

// Ensure opens the directory name below d and makes it if it is missing.
func (d Dir) Ensure(name string, perm uint32) (Dir, error) {
	sub, err := d.Sub(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return sub, err
	}
	if err := unix.Mkdirat(d.Fd, name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return Dir{Fd: -1}, d.Fail("make", name, err)
	}
	return d.Sub(name)
}

// Close closes the directory; one that is not open is left as it is.
func (d Dir) Close() {
	if d.Fd >= 0 {
		_ = unix.Close(d.Fd)
	}
}

// Fail is Failure for the file name of the directory; "" is the directory itself.
func (d Dir) Fail(op, name string, err error) error {
	return Failure(op, filepath.Join(d.path, name), err)
}

// Read returns up to limit bytes of a regular file, and its state.
func (d Dir) Read(name string, limit int) ([]byte, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := OpenAt(d.Fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return nil, st, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, st, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, st, errNotRegular
	}
	buf := make([]byte, min(int64(limit), st.Size))
	n, err := ReadAt(fd, buf)
	return buf[:n], st, err
}

var errNotRegular error = &sentinel.Error{Text: "not a regular file"}

// Update writes data at offset off of a file, which is made if missing.
func (d Dir) Update(name string, data []byte, off int64) error {
	fd, err := OpenAt(d.Fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err == nil {
		err = errors.Join(WriteAt(fd, data, off), unix.Close(fd))
	}
	if err != nil {
		return d.Fail("write", name, err)
	}
	return nil
}

// Replace gives a file new content at once: it is the old or the new one.
func (d Dir) Replace(name string, data []byte) error {
	_ = unix.Unlinkat(d.Fd, Draft, 0)
	if err := d.Update(Draft, data, 0); err != nil {
		return err
	}
	if err := unix.Renameat(d.Fd, Draft, d.Fd, name); err != nil {
		return d.Fail("write", name, err)
	}
	return nil
}

// ReplaceSynced is Replace for a file that is wanted after a power cut.
func (d Dir) ReplaceSynced(name string, data []byte) error {
	fd, err := OpenAt(d.Fd, Draft, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW)
	if err == nil {
		err = errors.Join(WriteAt(fd, data, 0), unix.Fsync(fd), unix.Close(fd))
	}
	if err == nil {
		err = unix.Renameat(d.Fd, Draft, d.Fd, name)
	}
	if err != nil {
		return d.Fail("write", name, err)
	}
	return d.Sync()
}

// Remove unlinks a file; a missing one is success.
func (d Dir) Remove(name string) error {
	if err := unix.Unlinkat(d.Fd, name, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d.Fail("remove", name, err)
	}
	return nil
}

// Sync makes the names in the directory survive a power cut.
func (d Dir) Sync() error {
	fd, err := OpenAt(d.Fd, ".", unix.O_DIRECTORY)
	if err == nil {
		err = errors.Join(unix.Fsync(fd), unix.Close(fd))
	}
	if err != nil {
		return d.Fail("sync", "", err)
	}
	return nil
}

// OpenAt is openat(2), repeated when a signal interrupts it.
func OpenAt(fd int, name string, flags int) (int, error) {
	for {
		n, err := unix.Openat(fd, name, flags|unix.O_CLOEXEC, 0o600)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// ReadAt fills buf from the start of a file; a short file is no error.
func ReadAt(fd int, buf []byte) (int, error) {
	for n := 0; ; {
		m, err := unix.Pread(fd, buf[n:], int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n += max(m, 0); err != nil || m == 0 || n == len(buf) {
			return n, err
		}
	}
}

// WriteAt writes all of data at offset off.
func WriteAt(fd int, data []byte, off int64) error {
	for len(data) > 0 {
		n, err := unix.Pwrite(fd, data, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		data, off = data[n:], off+int64(n)
	}
	return nil
}

// ErrIO is what every ioError is by errors.Is.
var ErrIO error = &sentinel.Error{Text: "storage error"}

// Failure wraps an error of the operating system on a file; errors.Is finds both
// ErrIO and err.
func Failure(op, path string, err error) error { return &ioError{op, path, err} }

// ioError is an error of the operating system on one of our files.
type ioError struct {
	op, path string
	err      error
}

func (e *ioError) Error() string        { return e.op + " " + e.path + ": " + e.err.Error() }
func (e *ioError) Unwrap() error        { return e.err }
func (e *ioError) Is(target error) bool { return target == ErrIO }

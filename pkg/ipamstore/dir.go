package ipamstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dir is an open directory. What lies below it is opened relative to it and
// never through a symbolic link.
type dir struct {
	fd   int
	path string
}

func openDir(path string) (dir, error) {
	fd, err := openAt(unix.AT_FDCWD, path, unix.O_DIRECTORY|unix.O_PATH)
	if err != nil {
		return dir{fd: -1}, &ioError{"open", path, err}
	}
	return dir{fd, path}, nil
}

// sub opens the directory name below d.
func (d dir) sub(name string) (dir, error) {
	path := filepath.Join(d.path, name)
	fd, err := openAt(d.fd, name, unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("not a directory, or a symbolic link, which is not followed: %w", err)
	}
	if err != nil {
		return dir{fd: -1}, &ioError{"open", path, err}
	}
	return dir{fd, path}, nil
}

// ensure opens the directory name below d and makes it if it is missing.
func (d dir) ensure(name string, perm uint32) (dir, error) {
	sub, err := d.sub(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return sub, err
	}
	if err := unix.Mkdirat(d.fd, name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return dir{fd: -1}, d.fail("make", name, err)
	}
	return d.sub(name)
}

func (d dir) close() {
	if d.fd >= 0 {
		_ = unix.Close(d.fd)
	}
}

func (d dir) fail(op, name string, err error) error {
	return &ioError{op, filepath.Join(d.path, name), err}
}

// read returns up to limit bytes of a regular file, and its state.
func (d dir) read(name string, limit int) ([]byte, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := openAt(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
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
	n, err := readAt(fd, buf)
	return buf[:n], st, err
}

var errNotRegular = errors.New("not a regular file")

// update writes data at offset off of a file, which is made if missing.
func (d dir) update(name string, data []byte, off int64) error {
	fd, err := openAt(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err == nil {
		err = errors.Join(writeAt(fd, data, off), unix.Close(fd))
	}
	if err != nil {
		return d.fail("write", name, err)
	}
	return nil
}

// replace gives a file new content at once: it is the old or the new one.
func (d dir) replace(name string, data []byte) error {
	const tmp = "tmp"
	_ = unix.Unlinkat(d.fd, tmp, 0)
	if err := d.update(tmp, data, 0); err != nil {
		return err
	}
	if err := unix.Renameat(d.fd, tmp, d.fd, name); err != nil {
		return d.fail("write", name, err)
	}
	return nil
}

// remove unlinks a file; a missing one is success.
func (d dir) remove(name string) error {
	if err := unix.Unlinkat(d.fd, name, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d.fail("remove", name, err)
	}
	return nil
}

// entries lists the directory.
func (d dir) entries() ([]fs.DirEntry, error) {
	fd, err := openAt(d.fd, ".", unix.O_DIRECTORY)
	if err != nil {
		return nil, d.fail("read", "", err)
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer func() { _ = f.Close() }()
	list, err := f.ReadDir(-1)
	if err != nil {
		return nil, d.fail("read", "", err)
	}
	return list, nil
}

func openAt(fd int, name string, flags int) (int, error) {
	for {
		n, err := unix.Openat(fd, name, flags|unix.O_CLOEXEC, 0o600)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// readAt fills buf from the start of a file; a short file is no error.
func readAt(fd int, buf []byte) (int, error) {
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

func writeAt(fd int, data []byte, off int64) error {
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

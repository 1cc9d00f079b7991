package pooldir

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Entries lists the directory.
func (d Dir) Entries() ([]fs.DirEntry, error) {
	fd, err := OpenAt(d.Fd, ".", unix.O_DIRECTORY)
	if err != nil {
		return nil, d.Fail("read", "", err)
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer func() { _ = f.Close() }()
	list, err := f.ReadDir(-1)
	if err != nil {
		return nil, d.Fail("read", "", err)
	}
	return list, nil
}

// Names lists the directory, in no order.
func (d Dir) Names() ([]string, error) {
	fd, err := OpenAt(d.Fd, ".", os.O_RDONLY)
	if err != nil {
		return nil, d.Fail("read", "", err)
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, d.Fail("read", "", err)
	}
	return names, nil
}

// Count returns how many files of the directory are not own. It is names
// without the names: a full /16 has 65533 of them.
func (d Dir) Count(own func(name string) bool) (int, error) {
	fd, err := OpenAt(d.Fd, ".", os.O_RDONLY)
	if err != nil {
		return 0, d.Fail("read", "", err)
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 64<<10)
	files := 0
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return 0, d.Fail("read", "", err)
		}
		if n == 0 {
			return files, nil
		}
		for entries := buf[:n]; len(entries) > direntName; {
			size := binary.NativeEndian.Uint16(entries[direntSize:])
			name, _, _ := bytes.Cut(entries[direntName:size], []byte{0})
			if s := string(name); s != "." && s != ".." && !own(s) {
				files++
			}
			entries = entries[size:]
		}
	}
}

// Where struct linux_dirent64 has the size of the entry, and its name
// (getdents64(2)).
const (
	direntSize = 16
	direntName = 19
)

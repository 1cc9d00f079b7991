package state

import (
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// slots is how many bytes the file of given addresses has, each for the addresses
// of one hash. It has holes: a page is used once an address of it was given.
const slots = 1 << 20

// GiveAddrs notes that addresses are given to an attachment, and returns those
// that may have been given before: an earlier owner may have left connections.
// Two addresses can have one slot, so some are returned that were not. Nothing
// is ever taken back; the file goes with the directory, mostly at the next boot.
func (d *Dir) GiveAddrs(addrs []netip.Addr) (again []netip.Addr, err error) {
	path := filepath.Join(d.root, "addresses")
	fd, err := openGiven(path)
	if err != nil {
		return addrs, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	for _, a := range addrs {
		h := fnv.New64a()
		_, _ = h.Write(a.AsSlice())
		at := int64(h.Sum64() % slots)
		var given [1]byte
		n, err := unix.Pread(fd, given[:], at)
		if err != nil {
			return addrs, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 1 && given[0] != 0 {
			again = append(again, a)
			continue
		}
		if _, err := unix.Pwrite(fd, []byte{1}, at); err != nil {
			return addrs, &fs.PathError{Op: "write", Path: path, Err: err}
		}
	}
	return again, nil
}

func openGiven(path string) (int, error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Open(path, flags, 0o600)
	if err != unix.ENOENT {
		return fd, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return -1, err
	}
	return unix.Open(path, flags, 0o600)
}

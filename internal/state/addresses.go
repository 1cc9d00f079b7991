package state

import (
	"encoding/binary"
	"hash/fnv"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// slots is how many bytes the file of given addresses has, each for the addresses
// of one hash. It has holes: a page is used once an address of it was given.
const slots = 1 << 20

// After the slots come bridges, a word each at a place by the name: those that were made
// while the file was there, so that it has all addresses which were given on them.
const (
	bridgeSlots = 1 << 9
	bridgeWord  = 8 // bytes
)

// Given is what was known when addresses were given.
type Given struct {
	// Again are those that may have been given before: an earlier owner may have left
	// connections. Two addresses can have one slot, so some are here that were not.
	Again []netip.Addr
	// Noted says that all addresses which were given on the bridge by means of this directory are
	// known: the bridge was made when the directory was there. It is false where that cannot be
	// told, as after the directory was removed.
	Noted bool
}

// GiveAddrs notes that addresses are given to an attachment, on a bridge. Nothing is ever taken
// back; the file goes with the directory, mostly at the next boot. With an error all were given.
func (d *Dir) GiveAddrs(addrs []netip.Addr, bridge string, mac net.HardwareAddr) (Given, error) {
	path := filepath.Join(d.root, "addresses")
	fd, err := openGiven(path)
	if err != nil {
		return Given{Again: addrs}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	given := Given{Noted: noted(fd, bridge, mac)}
	if given.Again, err = giveAddrs(fd, path, addrs); err != nil {
		return Given{Again: addrs}, err
	}
	return given, nil
}

func giveAddrs(fd int, path string, addrs []netip.Addr) (again []netip.Addr, err error) {
	for _, a := range addrs {
		h := fnv.New64a()
		_, _ = h.Write(a.AsSlice())
		at := int64(h.Sum64() % slots)
		var given [1]byte
		n, err := unix.Pread(fd, given[:], at)
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 1 && given[0] != 0 {
			again = append(again, a)
			continue
		}
		if _, err := unix.Pwrite(fd, []byte{1}, at); err != nil {
			return nil, &fs.PathError{Op: "write", Path: path, Err: err}
		}
	}
	return again, nil
}

// NoteBridge notes that a bridge was made just now. Of two with one place the later one is
// noted.
func (d *Dir) NoteBridge(name string, mac net.HardwareAddr) error {
	path := filepath.Join(d.root, "addresses")
	fd, err := openGiven(path)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	word, at := bridgeNote(name, mac)
	if _, err := unix.Pwrite(fd, word[:], at); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func noted(fd int, name string, mac net.HardwareAddr) bool {
	word, at := bridgeNote(name, mac)
	var noted [bridgeWord]byte
	n, err := unix.Pread(fd, noted[:], at)
	return err == nil && n == len(noted) && noted == word
}

// bridgeNote is what tells a bridge from others and earlier ones, and where it stands.
func bridgeNote(name string, mac net.HardwareAddr) (word [bridgeWord]byte, at int64) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	at = slots + int64(h.Sum64()%bridgeSlots)*bridgeWord
	_, _ = h.Write(append([]byte{0}, mac...))
	binary.NativeEndian.PutUint64(word[:], h.Sum64())
	return word, at
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

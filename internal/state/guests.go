package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/plain"
)

// A guest is an attachment that an operator added to a running container: its runtime does not
// know of it, so no DEL comes for it. It is an empty file, named for the network and the
// interface, in a directory named for the container: most containers have none, and then
// every question is one system call.

// Guest names a guest of a container.
type Guest struct{ Network, IfName string }

func (d *Dir) guestFile(network, containerID, ifName string) (string, error) {
	if err := errors.Join(CheckName(network), CheckName(containerID), CheckName(ifName)); err != nil {
		return "", err
	}
	return filepath.Join(d.root, "guests", containerID, network+":"+ifName), nil
}

// AddGuest notes that an attachment is a guest. The caller owns it (see Own).
func (d *Dir) AddGuest(network, containerID, ifName string) error {
	path, err := d.guestFile(network, containerID, ifName)
	if err != nil {
		return err
	}
	for range tries { // RemoveGuest of another one may remove the directory
		var fd int
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			fd, err = unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		}
		if err == nil {
			return unix.Close(fd)
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) { // of MkdirAll, as it went meanwhile
			break
		}
	}
	return &fs.PathError{Op: "create", Path: path, Err: err}
}

// RemoveGuest forgets that an attachment is a guest. Missing is success.
func (d *Dir) RemoveGuest(network, containerID, ifName string) error {
	path, err := d.guestFile(network, containerID, ifName)
	if err != nil {
		return err
	}
	if err := unix.Unlink(path); absent(err) {
		return nil
	} else if err != nil {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return errors.Join(removeDir(filepath.Dir(path)), removeDir(filepath.Dir(filepath.Dir(path))))
}

// IsGuest says whether an attachment is a guest.
func (d *Dir) IsGuest(network, containerID, ifName string) bool {
	path, err := d.guestFile(network, containerID, ifName)
	return err == nil && unix.Access(path, unix.F_OK) == nil
}

// Guests returns the guests of a container, whether their attachments are made yet or not.
func (d *Dir) Guests(containerID string) (all []Guest, err error) {
	if err := CheckName(containerID); err != nil {
		return nil, err
	}
	dir := filepath.Join(d.root, "guests", containerID)
	if absent(unix.Access(dir, unix.F_OK)) { // the usual case, in one call
		return nil, nil
	}
	entries, err := plain.ReadDir(dir)
	if absent(err) {
		err = nil
	}
	for _, e := range entries {
		if network, ifName, ok := strings.Cut(e.Name(), ":"); ok {
			all = append(all, Guest{network, ifName})
		}
	}
	return all, err
}

// HasHost says whether a container has an attachment that is no guest, recorded in any
// network. It reads no record.
func (d *Dir) HasHost(containerID string) (bool, error) {
	networks, err := d.EndpointNetworks()
	for _, network := range networks {
		entries, readErr := plain.ReadDir(d.endpointDir(network))
		if readErr != nil && !absent(readErr) {
			err = errors.Join(err, readErr)
		}
		for _, e := range entries {
			id, ifName, ok := strings.Cut(e.Name(), ":")
			ifName, record := strings.CutSuffix(ifName, ".json")
			if ok && record && id == containerID && !d.IsGuest(network, id, ifName) {
				return true, nil
			}
		}
	}
	return false, err
}

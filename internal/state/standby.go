package state

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/plain"
)

// Standby are the attachments of a container that wait for ports of the host
// which another attachment of the same container has published.
type Standby struct {
	ContainerID string
	Waiting     []Waiting // in the order in which they came
}

// Waiting is one of them.
type Waiting struct {
	Network, IfName string
	// Publication: the record is one of a publication, else of an endpoint.
	Publication bool
	Ports       []Port // only what of the host they take counts
}

func (d *Dir) portsDir() string { return filepath.Join(d.root, "ports") }

func (d *Dir) standbyFile(containerID string) (string, error) {
	if err := CheckName(containerID); err != nil {
		return "", err
	}
	return filepath.Join(d.portsDir(), containerID+".json"), nil
}

// LoadStandby returns which attachments of a container wait; none is success.
func (d *Dir) LoadStandby(containerID string) (Standby, error) {
	s := Standby{ContainerID: containerID}
	path, err := d.standbyFile(containerID)
	if err == nil {
		err = read(path, &s)
	}
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return s, err
}

// SaveStandby writes what LoadStandby returns, and removes the file with the last
// that waits. The caller has the lock of OwnPorts.
func (d *Dir) SaveStandby(s Standby) error {
	path, err := d.standbyFile(s.ContainerID)
	if err != nil {
		return err
	}
	if len(s.Waiting) == 0 {
		_ = unix.Unlink(draft(path))
		return remove(path)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return replace(path, data)
}

// Standbys returns the IDs of all containers with attachments that wait.
func (d *Dir) Standbys() ([]string, error) {
	entries, err := plain.ReadDir(d.portsDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []string
	for _, e := range entries {
		if id, is := strings.CutSuffix(e.Name(), ".json"); is && !strings.HasPrefix(id, ".") {
			all = append(all, id)
		}
	}
	return all, err
}

// OwnPorts keeps every other process that asks for it from the published ports of a
// container, in whatever network, until release is called. The error is
// flock.ErrLocked if it takes too long. Ask for it after Own.
func (d *Dir) OwnPorts(ctx context.Context, containerID string) (release func(), err error) {
	path := filepath.Join(d.portsDir(), "lock") // never removed: all containers share it
	fd, err := openLock(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(containerID))
	if err := flock.LockByte(ctx, fd, int64(h.Sum64()>>2), lockTimeout, path); err != nil {
		if !errors.Is(err, flock.ErrLocked) {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	return func() { _ = unix.Close(fd) }, nil
}

package state

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/jsonw"
	"github.com/libnet-cni/libnet/internal/plain"
)

// SaveNetwork writes or replaces the record of a network.
func (d *Dir) SaveNetwork(n Network) error {
	path, err := d.networkFile(n.Name)
	if err != nil {
		return err
	}
	unlock, err := d.lockRecord(n.Name) // the first ADDs of a network all write it
	if err != nil {
		return err
	}
	defer unlock()
	return d.replaceRecord(path, n)
}

// lockRecord keeps other writers of a network's record out.
func (d *Dir) lockRecord(network string) (unlock func(), err error) {
	return d.locked(network, Create, func(fd int, lock string) error {
		return flock.LockByte(context.Background(), fd, networkByte, lockTimeout, lock)
	})
}

// SwapNetwork replaces the record of a network if it still has the fingerprint that
// old has. Otherwise, and where there is none, it changes nothing: swapped is false.
func (d *Dir) SwapNetwork(old, n Network) (swapped bool, err error) {
	path, err := d.networkFile(n.Name)
	if err != nil || !d.HasNetwork(n.Name, old.Fingerprint) { // before a lock file is made
		return false, err
	}
	unlock, err := d.lockRecord(n.Name)
	if err != nil {
		return false, err
	}
	defer unlock()
	if !d.HasNetwork(n.Name, old.Fingerprint) {
		return false, nil
	}
	return true, d.replaceRecord(path, n)
}

// CreateNetwork writes the record of a new network; ErrExists when there is one.
func (d *Dir) CreateNetwork(n Network) error {
	path, err := d.networkFile(n.Name)
	if err != nil {
		return err
	}
	return create(path, n.encode())
}

// LoadNetwork reads the record of a network; ErrNotFound when there is none.
func (d *Dir) LoadNetwork(name string) (Network, error) {
	var n Network
	path, err := d.networkFile(name)
	if err == nil {
		err = read(path, &n)
	}
	return n, err
}

// HasNetwork says whether the record of a network is there with this
// fingerprint. It decodes nothing.
func (d *Dir) HasNetwork(name, fingerprint string) bool {
	path, err := d.networkFile(name)
	if err != nil {
		return false
	}
	data, err := readFile(path)
	var field jsonw.Object
	field.String("Fingerprint", fingerprint)
	return err == nil && bytes.Contains(data, bytes.Trim(field.Bytes(), "{}"))
}

// DeleteNetwork removes the record of a network, its lock file and its directory,
// unless an attachment is recorded in it. Missing is success. The caller is in
// Alone, or made the record and knows of no other process.
func (d *Dir) DeleteNetwork(name string) error {
	path, err := d.networkFile(name)
	if err != nil {
		return err
	}
	if has, err := d.hasEndpoint(name, ""); has || err != nil {
		return err
	}
	_ = unix.Unlink(draft(path))
	if err := remove(path); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	return errors.Join(remove(d.layersFile(name)), remove(d.lockFile(name)), removeDir(d.endpointDir(name)), removeDir(dir))
}

// removeDir deletes a directory if it is empty; otherwise it stays, as it does
// when another process just put something into it.
func removeDir(path string) error {
	err := os.Remove(path)
	if absent(err) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return err
}

// Networks returns every network's record in the order of their names, and
// what could not be read, joined.
func (d *Dir) Networks() ([]Network, error) {
	root := filepath.Join(d.root, "networks")
	entries, err := plain.ReadDir(root)
	if absent(err) {
		return nil, nil
	}
	errs := []error{err}
	var all []Network
	for _, e := range entries {
		n, err := d.LoadNetwork(e.Name())
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, n)
	}
	return all, errors.Join(errs...)
}

// SaveEndpoint writes or replaces the record of an attachment.
func (d *Dir) SaveEndpoint(e Endpoint) error {
	path, err := d.endpointFile(e.Network, e.ContainerID, e.IfName)
	if err != nil {
		return err
	}
	return replace(path, e.encode())
}

// CreateEndpoint writes the record of a new attachment; ErrExists when there is
// one.
func (d *Dir) CreateEndpoint(e Endpoint) error {
	path, err := d.endpointFile(e.Network, e.ContainerID, e.IfName)
	if err != nil {
		return err
	}
	return create(path, e.encode())
}

// LoadEndpoint reads the record of an attachment; ErrNotFound when there is
// none.
func (d *Dir) LoadEndpoint(network, containerID, ifName string) (Endpoint, error) {
	var e Endpoint
	path, err := d.endpointFile(network, containerID, ifName)
	if err == nil {
		err = read(path, &e)
	}
	return e, err
}

// DeleteEndpoint removes the record of an attachment; missing is success.
func (d *Dir) DeleteEndpoint(network, containerID, ifName string) error {
	path, err := d.endpointFile(network, containerID, ifName)
	if err != nil {
		return err
	}
	_ = unix.Unlink(draft(path))
	return remove(path)
}

// Endpoints returns every attachment recorded for a network, and what could
// not be read, joined.
func (d *Dir) Endpoints(network string) ([]Endpoint, error) {
	if err := CheckName(network); err != nil {
		return nil, err
	}
	return records[Endpoint](d.endpointDir(network))
}

// records reads every record of a directory, and returns what could not be read, joined.
func records[T any](dir string) ([]T, error) {
	var all []T
	err := list(dir, func(path string) error {
		var r T
		err := read(path, &r)
		if errors.Is(err, ErrNotFound) {
			return nil // deleted meanwhile
		}
		if err == nil {
			all = append(all, r)
		}
		return err
	})
	return all, err
}

// EndpointNetworks returns the names of the networks that may have attachments
// recorded, whether they have a record themselves or not.
func (d *Dir) EndpointNetworks() ([]string, error) {
	entries, err := plain.ReadDir(filepath.Join(d.root, "networks"))
	if absent(err) {
		return nil, nil
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all, err
}

// Recorded says whether a network has a record, without reading it.
func (d *Dir) Recorded(network string) bool {
	path, err := d.networkFile(network)
	return err == nil && unix.Access(path, unix.F_OK) == nil
}

// Orphans returns the names of networks that have attachments recorded, and no record
// themselves. It reads none.
func (d *Dir) Orphans() ([]string, error) {
	names, err := d.EndpointNetworks()
	var all []string
	for _, name := range names {
		if d.Recorded(name) {
			continue
		}
		has, hasErr := d.hasEndpoint(name, "")
		if err = errors.Join(err, hasErr); has {
			all = append(all, name)
		}
	}
	return all, err
}

// SaveSandbox writes or replaces the record of a sandbox.
func (d *Dir) SaveSandbox(s Sandbox) error {
	path, err := d.sandboxFile(s.ID)
	if err != nil {
		return err
	}
	return replace(path, s.encode())
}

// LoadSandbox reads the record of a sandbox; ErrNotFound when there is none.
func (d *Dir) LoadSandbox(id string) (Sandbox, error) {
	var s Sandbox
	path, err := d.sandboxFile(id)
	if err == nil {
		err = read(path, &s)
	}
	return s, err
}

// DeleteSandbox removes the record of a sandbox; missing is success.
func (d *Dir) DeleteSandbox(id string) error {
	path, err := d.sandboxFile(id)
	if err != nil {
		return err
	}
	return remove(path)
}

// HasReady says whether an attachment of the network is complete. It reads no
// more records than it takes to find one.
func (d *Dir) HasReady(network string) (bool, error) {
	return d.AnyEndpoint(network, func(e Endpoint) bool { return e.Phase == PhaseReady })
}

// Writable says why no record could be written now; nil if one could. It
// leaves nothing behind but the root directory.
func (d *Dir) Writable() error {
	if err := os.MkdirAll(d.root, 0o700); err != nil {
		return err
	}
	if err := unix.Access(d.root, unix.W_OK|unix.X_OK); err != nil {
		return &fs.PathError{Op: "write to", Path: d.root, Err: err}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.root, &st); err != nil {
		return &fs.PathError{Op: "look at the file system of", Path: d.root, Err: err}
	}
	if st.Blocks > 0 && st.Bavail == 0 || st.Files > 0 && st.Ffree == 0 {
		return &fs.PathError{Op: "write to", Path: d.root, Err: unix.ENOSPC}
	}
	return nil
}

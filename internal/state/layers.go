package state

import (
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A network's record may keep layers: what its configuration was laid upon. Most have none, and
// then one call of access says so: an empty file beside the record tells of them, or, beside a
// record without, that they are unknown. It is made before they are recorded, and removed after,
// while the record is locked.

func (d *Dir) layersFile(network string) string {
	return filepath.Join(d.root, "networks", network, "layered")
}

// Layers returns the layers in the record of a network, nil if it has none, and whether there is a
// record that tells: one that was rebuilt does not.
func (d *Dir) Layers(network string) (layers []byte, recorded bool, err error) {
	path, err := d.networkFile(network)
	if err != nil {
		return nil, false, err
	}
	if absent(unix.Access(d.layersFile(network), unix.F_OK)) {
		return nil, unix.Access(path, unix.F_OK) == nil, nil
	}
	n, err := d.LoadNetwork(network)
	if Missing(err) {
		return nil, false, nil
	}
	return n.Layers, err == nil && len(n.Layers) > 0, err
}

// replaceRecord writes the record of a network, and what tells of its layers. The caller has
// locked it.
func (d *Dir) replaceRecord(path string, n Network) error {
	mark := d.layersFile(n.Name)
	if len(n.Layers) == 0 && !n.Rebuilt {
		if err := replace(path, n.encode()); err != nil {
			return err // the record of before has layers
		}
		return remove(mark)
	}
	fd, err := unix.Open(mark, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: mark, Err: err}
	}
	_ = unix.Close(fd)
	return replace(path, n.encode())
}

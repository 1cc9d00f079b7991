package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// nodeFiles is the folder of node files.
const nodeFiles = "overlay"

// NodeFile returns the path of a network's node file.
func (d *Dir) NodeFile(network string) (string, error) {
	if err := CheckName(network); err != nil {
		return "", err
	}
	return filepath.Join(d.root, nodeFiles, network+".json"), nil
}

// SaveNodes writes or replaces the node file of a network.
func (d *Dir) SaveNodes(network string, data []byte) error {
	path, err := d.NodeFile(network)
	if err != nil {
		return err
	}
	return replace(path, data)
}

// LoadNodes reads the node file of a network; ErrNotFound when there is none.
// Any other than a regular file, as a FIFO, is an error.
func (d *Dir) LoadNodes(network string) ([]byte, error) {
	path, err := d.NodeFile(network)
	if err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("is no regular file: remove it")
	}
	return readFile(path)
}

// HasNodes says whether a network has a node file: an agent looks after it.
func (d *Dir) HasNodes(network string) (bool, error) {
	path, err := d.NodeFile(network)
	if err == nil {
		_, err = os.Lstat(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// DeleteNodes removes the node file of a network; a missing one is success.
func (d *Dir) DeleteNodes(network string) error {
	path, err := d.NodeFile(network)
	if err != nil {
		return err
	}
	return errors.Join(remove(draft(path)), remove(path))
}

// seenFile is beside the record of a network, with which it goes.
func (d *Dir) seenFile(network string) (string, error) {
	path, err := d.networkFile(network)
	return filepath.Join(filepath.Dir(path), "hosts"), err
}

// SaveSeen writes or replaces what a call has seen of the other hosts of a network.
func (d *Dir) SaveSeen(network string, data []byte) error {
	path, err := d.seenFile(network)
	if err != nil {
		return err
	}
	return replace(path, data)
}

// LoadSeen reads that; ErrNotFound when there is none.
func (d *Dir) LoadSeen(network string) ([]byte, error) {
	path, err := d.seenFile(network)
	if err != nil {
		return nil, err
	}
	return readFile(path)
}

// DeleteSeen removes that; missing is success.
func (d *Dir) DeleteSeen(network string) error {
	path, err := d.seenFile(network)
	if err != nil {
		return err
	}
	return errors.Join(remove(draft(path)), remove(path))
}

// NodeFiles returns the names of the networks that have a node file.
func (d *Dir) NodeFiles() ([]string, error) {
	var all []string
	err := list(filepath.Join(d.root, nodeFiles), func(path string) error {
		if name := strings.TrimSuffix(filepath.Base(path), ".json"); CheckName(name) == nil && name[0] != '.' {
			all = append(all, name)
		}
		return nil
	})
	return all, err
}

package state

import (
	"errors"
	"path/filepath"
)

// CreateSandbox writes the record of a new sandbox; ErrExists when there is one.
func (d *Dir) CreateSandbox(s Sandbox) error {
	path, err := d.sandboxFile(s.ID)
	if err != nil {
		return err
	}
	return create(path, s.encode())
}

// Sandboxes returns every sandbox's record in the order of their IDs, and what
// could not be read, joined.
func (d *Dir) Sandboxes() ([]Sandbox, error) {
	var all []Sandbox
	err := list(filepath.Join(d.root, "sandboxes"), func(path string) error {
		var s Sandbox
		err := read(path, &s)
		if errors.Is(err, ErrNotFound) {
			return nil // deleted meanwhile
		}
		if err == nil {
			all = append(all, s)
		}
		return err
	})
	return all, err
}

package state

import "path/filepath"

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
	return records[Sandbox](filepath.Join(d.root, "sandboxes"))
}

package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultPath is where records are kept unless told otherwise.
const DefaultPath = "/run/libnet"

// maxRecord bounds the size of a record that is read, in bytes.
const maxRecord = 1 << 20

var (
	// ErrNotFound says that there is no such record.
	ErrNotFound = errors.New("no such record")
	// ErrExists says that there is such a record already.
	ErrExists = errors.New("record exists")
	// ErrCorrupt says that a record cannot be read; it has been set aside
	// under its name with the suffix ".corrupt".
	ErrCorrupt = errors.New("unreadable record")
	// ErrBadName says that a name cannot be a file of ours.
	ErrBadName = errors.New("bad name")
)

// Dir is a directory of records. It holds nothing open; the zero value is not
// usable.
type Dir struct{ root string }

// New returns the records below root; an empty root is DefaultPath. It touches
// no file: directories are made by the first write.
func New(root string) *Dir {
	if root == "" {
		root = DefaultPath
	}
	return &Dir{root: root}
}

// Path returns the root of the records.
func (d *Dir) Path() string { return d.root }

// CheckName says why name cannot be used as a file name of ours; nil if it can.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%w %q", ErrBadName, name)
	case strings.ContainsAny(name, "/:\x00"):
		return fmt.Errorf("%w %q: '/' and ':' are not allowed", ErrBadName, name)
	case len(name) > 200:
		return fmt.Errorf("%w %.20q…: %d bytes, at most 200 are allowed", ErrBadName, name, len(name))
	}
	return nil
}

func (d *Dir) networkFile(name string) (string, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	return filepath.Join(d.root, "networks", name, "network.json"), nil
}

func (d *Dir) endpointDir(network string) string {
	return filepath.Join(d.root, "networks", network, "endpoints")
}

func (d *Dir) endpointFile(network, containerID, ifName string) (string, error) {
	if err := errors.Join(CheckName(network), CheckName(containerID), CheckName(ifName)); err != nil {
		return "", err
	}
	return filepath.Join(d.endpointDir(network), containerID+":"+ifName+".json"), nil
}

func (d *Dir) sandboxFile(id string) (string, error) {
	if err := CheckName(id); err != nil {
		return "", err
	}
	return filepath.Join(d.root, "sandboxes", id+".json"), nil
}

// replace makes the JSON of v the file at path, whatever was there.
func replace(path string, v any) error { return write(path, v, os.Rename) }

// create makes the JSON of v the file at path; ErrExists if there is one.
func create(path string, v any) error {
	err := write(path, v, func(tmp, path string) error {
		return errors.Join(os.Link(tmp, path), os.Remove(tmp))
	})
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrExists, path)
	}
	return err
}

// write puts the JSON of v into a temporary file beside path and moves it
// there by place. The directories above are made when missing, for root alone.
func write(path string, v any, place func(tmp, path string) error) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	tmp, err := createTemp(path)
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = place(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, remove(tmp.Name()))
	}
	return nil
}

func createTemp(path string) (*os.File, error) {
	dir, pattern := filepath.Dir(path), ".new-*"
	tmp, err := os.CreateTemp(dir, pattern)
	if !errors.Is(err, fs.ErrNotExist) {
		return tmp, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.CreateTemp(dir, pattern)
}

// read decodes the file at path into v. A missing file is ErrNotFound; one
// that cannot be decoded is set aside and reported as ErrCorrupt.
func read(path string, v any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	if errors.Is(err, unix.ELOOP) {
		return setAside(path, errors.New("is a symbolic link"))
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return setAside(path, err)
	}
	return nil
}

func setAside(path string, why error) error {
	return errors.Join(fmt.Errorf("%w %s: %w", ErrCorrupt, path, why), os.Rename(path, path+".corrupt"))
}

// remove deletes the file at path; a missing one is success.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// list calls fn for every record file of dir. A missing directory holds none.
func list(dir string, fn func(path string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".json") {
			errs = append(errs, fn(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}

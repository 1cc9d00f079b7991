package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// DefaultPath is where records are kept unless told otherwise.
const DefaultPath = "/run/libnet"

// maxRecord bounds the size of a record that is read, in bytes. A published port
// takes some 90 bytes of it, and there may be 65536. A node file has a line of some
// 100 bytes for each host of its network.
const (
	maxRecord   = 16 << 20
	maxNodeFile = 64 << 20
)

var (
	// ErrNotFound says that there is no such record.
	ErrNotFound error = &sentinel.Error{Text: "no such record"}
	// ErrExists says that there is such a record already.
	ErrExists error = &sentinel.Error{Text: "record exists"}
	// ErrCorrupt says that a record cannot be read; it has been set aside
	// under its name with the suffix ".corrupt".
	ErrCorrupt error = &sentinel.Error{Text: "unreadable record"}
	// ErrBadName says that a name cannot be a file of ours.
	ErrBadName error = &sentinel.Error{Text: "bad name"}
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
	return filepath.Join(d.endpointDir(network), endpointFile(Endpoint{ContainerID: containerID, IfName: ifName})), nil
}

func (d *Dir) sandboxFile(id string) (string, error) {
	if err := CheckName(id); err != nil {
		return "", err
	}
	return filepath.Join(d.root, "sandboxes", id+".json"), nil
}

// draft is the name that a record has for a moment before it replaces another.
// The next writer, or the caller that deletes the record, removes a draft that a killed
// process left.
func draft(path string) string {
	return filepath.Join(filepath.Dir(path), draftPrefix+filepath.Base(path))
}

const draftPrefix = ".new-"

func isDraft(name string) bool { return strings.HasPrefix(name, draftPrefix) }

// replace makes data the file at path, whatever was there.
func replace(path string, data []byte) error {
	return write(path, data, func(file string) (err error) {
		for range tries {
			if err = link(file, draft(path)); errors.Is(err, fs.ErrExist) {
				_ = unix.Unlink(draft(path))
				continue
			}
			if err == nil {
				err = unix.Rename(draft(path), path)
			}
			if !errors.Is(err, fs.ErrNotExist) {
				break
			}
		}
		return err
	})
}

// create makes data the file at path; ErrExists if there is one.
func create(path string, data []byte) error {
	err := write(path, data, func(file string) error { return link(file, path) })
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrExists, path)
	}
	return err
}

func link(file, path string) error {
	return unix.Linkat(unix.AT_FDCWD, file, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
}

// tries bounds what is begun anew after another process replaced the same file or
// removed its directory meanwhile. Each try takes some 10 us.
const tries = 1000

// write puts data into a file without a name, which a killed process cannot
// leave behind, and has place name it. It needs a file system with O_TMPFILE, as
// tmpfs, ext4, xfs and btrfs are. The DEL of a network's last attachment removes
// the directory as well, so it may take more than one try.
func write(path string, data []byte, place func(file string) error) (err error) {
	for range tries {
		err = writeOnce(path, data, place)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EPERM) { // O_TMPFILE in a directory that goes
			return err
		}
	}
	return err
}

func writeOnce(path string, data []byte, place func(file string) error) error {
	if most := limit(path); len(data) > most {
		return &fs.PathError{Op: "write", Path: path, Err: fmt.Errorf("record %w", errTooLarge)}
	}
	fd, err := openUnnamed(filepath.Dir(path))
	if err != nil {
		return &fs.PathError{Op: "create a file beside", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := unix.Write(fd, data)
	if err == nil && n < len(data) {
		err = unix.ENOSPC // what the next write would say
	}
	if err == nil {
		err = place("/proc/self/fd/" + strconv.Itoa(fd))
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// openUnnamed makes a file without a name in dir, and dir if it is missing, for
// root alone.
func openUnnamed(dir string) (int, error) {
	const flags = unix.O_WRONLY | unix.O_TMPFILE | unix.O_CLOEXEC
	fd, err := unix.Open(dir, flags, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		return fd, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return -1, err
	}
	return unix.Open(dir, flags, 0o600)
}

// read decodes the file at path into v. A missing file is ErrNotFound; one
// that cannot be decoded is set aside and reported as ErrCorrupt.
func read(path string, v any) error {
	data, err := readFile(path)
	if errors.Is(err, unix.ELOOP) {
		return setAside(path, errors.New("is a symbolic link"))
	}
	if errors.Is(err, errTooLarge) {
		return setAside(path, err)
	}
	if err != nil {
		return err
	}
	if r, ok := v.(decoder); ok && len(data) < reflectFrom {
		err = r.decode(data)
	} else {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return setAside(path, err)
	}
	return nil
}

// reflectFrom is the size of a record, in bytes, from which encoding/json is faster: of 2000 ports.
const reflectFrom = 128 << 10

// decoder is a record that is read without encoding/json.
type decoder interface{ decode(data []byte) error }

var errTooLarge error = &sentinel.Error{Text: "is larger than any can be"}

func limit(path string) int {
	if filepath.Base(filepath.Dir(path)) == nodeFiles {
		return maxNodeFile
	}
	return maxRecord
}

// readFile returns the content of a record; ErrNotFound if there is none.
func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if absent(err) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	data, most := make([]byte, 0, 1024), limit(path)
	for {
		if len(data) == cap(data) { // larger than most are: ask how large
			var st unix.Stat_t
			_ = unix.Fstat(fd, &st) // 0: bit by bit
			data = slices.Grow(data, max(len(data), int(min(st.Size, int64(most)))-len(data)+1))
		}
		n, err := unix.Read(fd, data[len(data):cap(data)])
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return data, nil
		}
		if data = data[:len(data)+n]; len(data) > most {
			return nil, errTooLarge
		}
	}
}

func setAside(path string, why error) error {
	return errors.Join(fmt.Errorf("%w %s: %w", ErrCorrupt, path, why), os.Rename(path, path+".corrupt"))
}

// readHead returns the beginning of a record, in which is what stands before its configuration.
func readHead(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	data := make([]byte, 1024)
	n, err := unix.Read(fd, data)
	return data[:max(0, n)], err
}

// remove deletes the file at path; a missing one is success.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !absent(err) {
		return err
	}
	return nil
}

// absent says that there is no such file, and with these directories cannot be.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// list calls fn for every record file of dir. A missing directory holds none.
func list(dir string, fn func(path string) error) error {
	entries, err := plain.ReadDir(dir)
	if err != nil && !absent(err) {
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

// endpointFile is the name of an attachment's file.
func endpointFile(e Endpoint) string { return e.ContainerID + ":" + e.IfName + ".json" }

// Missing says that there is no record that can be read.
func Missing(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt)
}

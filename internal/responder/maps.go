package responder

import (
	"context"
	_ "embed" // of the program
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/plain"
)

// program is what program/respond.c makes of it; see make bpf.
//
//go:embed program/respond.bin
var program []byte

// sums are the hashes of source and program.
//
//go:embed program/respond.sum
var sums string

// license lets the program call all helpers that it calls: none is for GPL only.
const license = "Apache-2.0"

// programName is of this release's program: links keep the one that they came with. countsName
// is of the map that it counts in.
func programName() string { return "respond-" + release() }
func countsName() string  { return countsPrefix() + release() }

func release() string { return strconv.FormatUint(hash(sums), 16) }

// lockTimeout bounds the wait for another call that changes the maps, which takes well below a
// millisecond.
const lockTimeout = 10 * time.Second

// maps are open, and locked.
type maps struct {
	dir           string
	lock, program int
	names         *bpf.Map
}

// errNone says that nothing is pinned.
var errNone = errors.New("no names are in the kernel")

// open opens and locks what is pinned; errNone if nothing is. With create it makes what is
// missing.
func open(ctx context.Context, dir string, create bool) (_ *maps, err error) {
	if err := bpf.Supported(); err != nil {
		return nil, err
	}
	m := &maps{dir: dir, lock: -1, program: -1}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	for m.lock < 0 {
		if m.lock, err = lockDir(ctx, dir); errors.Is(err, os.ErrNotExist) && create {
			if err = makeDir(dir); err == nil {
				continue
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrPermission) && create:
			return nil, fmt.Errorf("%w: %w", bpf.ErrUnsupported, err)
		case (errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission)) && !create:
			return nil, errNone // in a user namespace: a call that may not open it put nothing there
		default:
			return nil, err
		}
	}
	return m, m.load(create)
}

// makeDir makes the directory of the pins, in a bpffs.
func makeDir(dir string) error {
	if err := bpf.EnsureFS(); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o700)
}

// lockDir returns a descriptor of the directory, locked; -1 if it was removed meanwhile.
func lockDir(ctx context.Context, dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	if err := flock.Lock(ctx, fd, unix.LOCK_EX, lockTimeout, dir); err != nil {
		if !errors.Is(err, flock.ErrLocked) {
			_ = unix.Close(fd)
		}
		return -1, fmt.Errorf("names in the kernel: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Nlink == 0 {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// load opens the map and the program, or with create makes them.
func (m *maps) load(create bool) (err error) {
	path := filepath.Join(m.dir, "names")
	m.names, err = bpf.PinnedMap(path, namesSpec)
	if errors.Is(err, bpf.ErrNotFound) && create {
		m.names, err = pinnedMap(path, namesSpec)
	}
	if errors.Is(err, bpf.ErrNotFound) {
		return errNone // a process was killed before it made the map
	}
	if err != nil {
		return err
	}
	if !create {
		return nil
	}
	path = filepath.Join(m.dir, programName())
	m.program, err = bpf.Pinned(path)
	if errors.Is(err, bpf.ErrNotFound) {
		m.program, err = m.loadProgram(path)
	}
	return err
}

func pinnedMap(path string, s bpf.MapSpec) (*bpf.Map, error) {
	made, err := bpf.NewMap(s)
	if err != nil {
		return nil, err
	}
	if err := bpf.Pin(made.FD(), path); err != nil {
		made.Close()
		return nil, err
	}
	return made, nil
}

func (m *maps) loadProgram(path string) (int, error) {
	scratch, err := bpf.NewMap(scratchSpec)
	if err != nil {
		return -1, err
	}
	defer scratch.Close() // the program has it
	counts := filepath.Join(m.dir, countsName())
	// One may be there of a process that was killed before it made the program.
	if err := unix.Unlink(counts); err != nil && !errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("names in the kernel: remove %s: %w", counts, err)
	}
	if err := bpf.Pin(scratch.FD(), counts); err != nil {
		return -1, err
	}
	fd, err := bpf.LoadFilter("ln_respond", license, program, m.names, scratch)
	if err != nil {
		return -1, err
	}
	if err := bpf.Pin(fd, path); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// removeIfEmpty removes the pins if nothing is in the map: nothing was asked for, or all has
// gone. Programs of links that are still there go with the links.
func (m *maps) removeIfEmpty() error {
	if empty, err := m.names.Empty(); !empty || err != nil {
		return err
	}
	return removeDir(m.dir)
}

func removeDir(dir string) error {
	pins, err := plain.ReadDir(dir)
	errs := []error{err}
	for _, pin := range pins { // a program of an earlier release may be there
		errs = append(errs, unix.Unlink(filepath.Join(dir, pin.Name())))
	}
	errs = append(errs, unix.Rmdir(dir))
	_ = unix.Rmdir(filepath.Dir(dir)) // unless there are other state directories
	return errors.Join(errs...)
}

// close unlocks.
func (m *maps) close() {
	if m.names != nil {
		m.names.Close()
	}
	for _, fd := range []int{m.program, m.lock} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

package responder

import (
	"context"
	_ "embed" // of the program
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sentinel"
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

// maps are open, and locked.
type maps struct {
	dir           string
	lock, program int
	names         *bpf.Map // nil: it is missing
}

// errNone says that there is no directory of pins, or none that this caller may see.
var errNone error = &sentinel.Error{Text: "no names are in the kernel"}

// open opens and locks what is pinned; errNone if there is no directory of it. With create it
// makes what is missing.
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
	m.lock, err = bpf.LockDir(ctx, dir, create)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrPermission) && create:
		return nil, fmt.Errorf("%w: %w", bpf.ErrUnsupported, err)
	case (errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EACCES)) && !create:
		return nil, fmt.Errorf("%w: %w", errNone, err) // in a user namespace: a call that may not open it put nothing there
	default:
		return nil, fmt.Errorf("names in the kernel: %w", err)
	}
	return m, m.load(create)
}

// load opens the map and the program, or with create makes them.
func (m *maps) load(create bool) (err error) {
	m.names, err = bpf.PinnedMap(filepath.Join(m.dir, namesPin), namesSpec)
	if errors.Is(err, bpf.ErrNotFound) && create {
		m.names, err = m.anew()
	}
	if errors.Is(err, bpf.ErrNotFound) { // see forget
		return nil
	}
	if err != nil || !create {
		return err
	}
	m.program, err = bpf.Program(filepath.Join(m.dir, programName()), m.loadProgram)
	return err
}

// The pins beside those of programs. The map has another name once it has the names of all
// attachments: it was made anew, without them, if it was lost.
const (
	namesPin = "names"
	wholePin = "whole"
)

// anew makes the map. What is pinned beside it was of another one, which was lost.
func (m *maps) anew() (*bpf.Map, error) {
	if err := removePins(m.dir); err != nil {
		return nil, err
	}
	return bpf.MakePinned(filepath.Join(m.dir, namesPin), namesSpec)
}

// isWhole says that the map has the names of all attachments.
func isWhole(dir string) (bool, error) {
	for _, pin := range []string{namesPin, wholePin} {
		err := unix.Access(filepath.Join(dir, pin), unix.F_OK)
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		if err != nil {
			return false, &os.PathError{Op: "look for", Path: filepath.Join(dir, pin), Err: err}
		}
	}
	return true, nil
}

func (m *maps) loadProgram() (int, error) {
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
	return bpf.LoadFilter("ln_respond", license, program, m.names, scratch)
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
	return errors.Join(removePins(dir), unix.Rmdir(dir), bpf.RemoveRoot(filepath.Dir(dir)))
}

// removePins removes all that is pinned: a program of an earlier release may be there.
func removePins(dir string) error {
	pins, err := plain.ReadDir(dir)
	errs := []error{err}
	for _, pin := range pins {
		errs = append(errs, unix.Unlink(filepath.Join(dir, pin.Name())))
	}
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

package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/inotify"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// Follower tells which records of attachments changed. The kernel notes a change
// before the call that makes it returns, so Changes misses no record of an ADD
// that has returned, and names none of a DEL that has.
//
// inotify is used without its library: that one hands events to a goroutine, so
// a reader would not know when it has seen all that there were.
type Follower struct {
	dir  *Dir
	file *os.File // inotify
	raw  syscall.RawConn
	// again says that a Changes is at work, or left something for the next one.
	again atomic.Bool

	mu      sync.Mutex
	fd      int                        // of file; -1: closed
	watched map[int32]string           // paths by watch
	known   map[string]map[string]bool // of directories of endpoints: their files
	left    []string                   // directories that are watched no more
	whole   bool                       // everything has to be read again
	// services says that ServicesNote may return something else than before.
	services bool
	buf      []byte
}

// Change is a record that was written or is gone.
type Change struct {
	Network, ContainerID, IfName string
	Record                       *Endpoint // nil: gone
}

const (
	dirEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ONLYDIR | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	// fileEvents are of directories of records: these are linked and renamed as a
	// whole, never written in place.
	fileEvents = dirEvents | unix.IN_DELETE | unix.IN_MOVED_FROM
	// followBuffer takes some hundred events at once, in bytes.
	followBuffer = 32 << 10
)

// Follow begins to follow the records of all networks. It makes the directory of
// networks if it is missing. The first Changes names every record there is.
func (d *Dir) Follow() (*Follower, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("follow %s: %w", d.root, inotify.Explain(err))
	}
	file := os.NewFile(uintptr(fd), "inotify")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("follow %s: %w", d.root, err), file.Close())
	}
	f := &Follower{
		dir: d, file: file, raw: raw, fd: fd, watched: map[int32]string{}, known: map[string]map[string]bool{},
		whole: true, buf: make([]byte, followBuffer),
	}
	f.again.Store(true)
	return f, nil
}

// Close ends it; a Wait then returns os.ErrClosed.
func (f *Follower) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fd = -1
	return f.file.Close()
}

// Wait returns once there may be something for Changes.
func (f *Follower) Wait() error {
	return f.raw.Read(func(fd uintptr) bool {
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		return err != nil || n > 0
	})
}

// Descriptor is of the file that becomes readable when there may be something for Changes;
// -1 after Close.
func (f *Follower) Descriptor() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fd
}

// Again says that a Changes is at work, which may have read what made the file of Descriptor
// readable, or that the last one left something for the next one. Else there is nothing for
// Changes before that file is readable.
func (f *Follower) Again() bool { return f.again.Load() }

// Changes calls fn for every record that changed since the last call, in any
// order; in between the record may have had other contents. What cannot be read
// is told, and is as if it were not there. Then it calls services, if any record or what
// ServicesNote returns may have changed, and does again the next time if that failed.
func (f *Follower) Changes(fn func(Change), services func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.again.Store(true)
	defer func() { f.again.Store(f.whole || f.services) }()
	changed, err := f.drain()
	if changed == nil && err == nil && !f.whole && !f.services {
		return nil
	}
	if f.whole {
		f.whole = false
		if changed == nil {
			changed = map[string]bool{}
		}
		err = errors.Join(err, f.begin(changed))
	}
	for _, path := range sorting.Keys(changed) {
		err = errors.Join(err, f.tell(path, fn))
	}
	f.forget()
	failed := services()
	f.services = failed != nil
	return errors.Join(err, failed)
}

// forget forgets directories that are gone, unless they are there anew.
func (f *Follower) forget() {
	for _, dir := range f.left {
		again := slices.Contains(slices.Collect(maps.Values(f.watched)), dir)
		if !again && len(f.known[dir]) == 0 {
			delete(f.known, dir)
		}
	}
	f.left = nil
}

// drain reads the events that there are, and returns the files that changed.
func (f *Follower) drain() (changed map[string]bool, err error) {
	if f.fd < 0 {
		return nil, os.ErrClosed
	}
	var errs []error
	for {
		// It does not wait, and mostly there is nothing: Go's scheduler is not told.
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(f.fd), uintptr(unsafe.Pointer(&f.buf[0])), uintptr(len(f.buf)))
		if errno != 0 || n == 0 {
			if errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR {
				errs = append(errs, errno)
			}
			return changed, errors.Join(errs...)
		}
		if changed == nil {
			changed = map[string]bool{}
		}
		errs = append(errs, f.take(f.buf[:n], changed))
	}
}

// take looks at events, as inotify(7) lays them out.
func (f *Follower) take(b []byte, changed map[string]bool) error {
	var errs []error
	for len(b) >= unix.SizeofInotifyEvent {
		wd, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
		size := int(binary.NativeEndian.Uint32(b[12:]))
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size]), "\x00")
		b = b[unix.SizeofInotifyEvent+size:]
		dir := f.watched[wd]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			f.whole = true
		case mask&unix.IN_IGNORED != 0: // the directory is gone
			delete(f.watched, wd)
			f.left = append(f.left, dir)
			f.whole = f.whole || dir == f.networks()
			f.services = true
		case mask&unix.IN_MOVE_SELF != 0:
			f.whole = true
		case name != "" && dir != "":
			errs = append(errs, f.came(dir, name, changed))
		}
	}
	return errors.Join(errs...)
}

func (f *Follower) networks() string { return filepath.Join(f.dir.root, "networks") }

// came notes what changed in a directory: the name of a network, the directory
// of its endpoints, or a record.
func (f *Follower) came(dir, name string, changed map[string]bool) error {
	path := filepath.Join(dir, name)
	switch {
	case f.known[dir] != nil:
		if isRecord(name) {
			changed[path] = true
		}
	case path == f.servicesDir():
		return f.watchServices()
	case dir == f.servicesDir():
		f.services = f.services || path == f.dir.servicesNote()
	case dir == f.networks():
		return f.watchNetwork(path, changed)
	case name == filepath.Base(f.dir.endpointDir("n")):
		return f.watchEndpoints(path, changed)
	}
	return nil
}

// begin watches every directory anew and has all that is there, or was, looked at.
func (f *Follower) begin(changed map[string]bool) error {
	for dir, files := range f.known {
		for name := range files {
			changed[filepath.Join(dir, name)] = true
		}
	}
	if err := os.MkdirAll(f.networks(), 0o700); err != nil {
		f.whole = true
		return err
	}
	if _, err := f.watch(f.networks(), dirEvents); err != nil {
		return err
	}
	if _, err := f.watch(f.dir.root, dirEvents); err != nil {
		return err
	}
	if err := f.watchServices(); err != nil {
		return err
	}
	entries, err := plain.ReadDir(f.networks())
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, f.watchNetwork(filepath.Join(f.networks(), e.Name()), changed))
	}
	return errors.Join(errs...)
}

func (f *Follower) servicesDir() string { return filepath.Dir(f.dir.servicesNote()) }

// watchServices watches the note of services, which comes with the first of them.
func (f *Follower) watchServices() error {
	_, err := f.watch(f.servicesDir(), fileEvents)
	f.services = true
	return err
}

func (f *Follower) watchNetwork(path string, changed map[string]bool) error {
	if there, err := f.watch(path, dirEvents); !there || err != nil {
		return err
	}
	return f.watchEndpoints(f.dir.endpointDir(filepath.Base(path)), changed)
}

func (f *Follower) watchEndpoints(path string, changed map[string]bool) error {
	there, err := f.watch(path, fileEvents)
	if !there || err != nil {
		return err
	}
	if f.known[path] == nil {
		f.known[path] = map[string]bool{}
	}
	return list(path, func(file string) error {
		if isRecord(filepath.Base(file)) {
			changed[file] = true
		}
		return nil
	})
}

// watch says whether the directory is there, and watches it then. To watch one
// twice is to watch it once.
func (f *Follower) watch(path string, events uint32) (there bool, err error) {
	wd, err := unix.InotifyAddWatch(f.fd, path, events)
	if absent(err) {
		return false, nil
	}
	if err != nil { // as with more directories than fs.inotify.max_user_watches
		f.whole = true
		return false, fmt.Errorf("watch %s: %w", path, inotify.Explain(err))
	}
	f.watched[int32(wd)] = path
	return true, nil
}

// isRecord tells a record from its draft.
func isRecord(name string) bool {
	return strings.HasSuffix(name, ".json") && !isDraft(name)
}

// tell reads a record, and has fn know.
func (f *Follower) tell(path string, fn func(Change)) error {
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	cid, ifName, ok := strings.Cut(strings.TrimSuffix(name, ".json"), ":")
	if !ok {
		return nil
	}
	c := Change{Network: filepath.Base(filepath.Dir(dir)), ContainerID: cid, IfName: ifName}
	var e Endpoint
	err := read(path, &e)
	switch {
	case err == nil:
		c.Record = &e
		f.known[dir][name] = true
	case errors.Is(err, ErrNotFound):
		err = nil
		fallthrough
	default:
		delete(f.known[dir], name)
	}
	fn(c)
	return err
}

// Package procfs opens files under /proc/sys through an instance of procfs of the
// caller's own.
//
// The names net/ipv4 and net/ipv6 are there once for each network namespace of the
// machine, and in the /proc that all share they stand in one chain of the kernel's
// cache, which each opening walks (proc_sys_compare): with 1000 containers the first
// file of a new namespace takes 0.35 ms, and each of the host's as much. An instance of
// one's own (fsopen, kernel 5.8) knows only the namespaces that were visited by it.
package procfs

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// FS opens files under /proc/sys; of net/ each thread sees those of its own network
// namespace. It makes the instance when it is first needed, and makes another one when
// many namespaces are in it. Where it cannot be had, as in a user namespace whose /proc
// is covered in part, or must not be used, as /proc/sys is read-only, it is /proc itself.
// A nil FS always is. Many goroutines may use it at once.
type FS struct {
	mu     sync.RWMutex
	dir    int // the root of the instance; unmade, or shared if there is none
	visits int // namespaces visited, at most
}

const (
	unmade = -1
	shared = -2
	// maxVisits bounds the chain in an instance.
	maxVisits = 64
)

// New returns an FS of which nothing is open yet.
func New() *FS { return &FS{dir: unmade} }

// Open opens a file under /proc/sys, close-on-exec. The error is the kernel's.
func (f *FS) Open(path string, flags int) (fd int, err error) {
	f.At(func(dir int, prefix string) {
		fd, err = unix.Openat(dir, prefix+path, flags|unix.O_CLOEXEC, 0)
	})
	return fd, err
}

// Visit is At for what opens files in another namespace than the host's.
func (f *FS) Visit(open func(dir int, prefix string)) {
	if f != nil {
		f.mu.Lock()
		if f.visits++; f.visits > maxVisits {
			f.close()
		}
		f.mu.Unlock()
	}
	f.At(open)
}

// At calls open with the directory and the prefix that make a path under /proc/sys
// one for openat(2). They are good until it returns.
func (f *FS) At(open func(dir int, prefix string)) {
	if f == nil {
		open(unix.AT_FDCWD, "/proc/sys/")
		return
	}
	f.mu.RLock()
	if f.dir == unmade {
		f.mu.RUnlock()
		f.make()
		f.mu.RLock()
	}
	defer f.mu.RUnlock()
	if f.dir < 0 {
		open(unix.AT_FDCWD, "/proc/sys/")
		return
	}
	open(f.dir, "sys/")
}

func (f *FS) make() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dir != unmade {
		return
	}
	f.dir, f.visits = shared, 0
	if !writable() {
		return
	}
	if dir, err := mount(); err == nil {
		f.dir = dir
	}
}

// writable says that /proc/sys is there and takes what is written. Where an
// administrator made it read-only, or hid it, an instance of ours must not be otherwise.
func writable() bool {
	var st unix.Statfs_t
	err := unix.Statfs("/proc/sys/net", &st)
	return err == nil && st.Type == unix.PROC_SUPER_MAGIC && st.Flags&unix.ST_RDONLY == 0
}

// mount makes an instance of procfs that is mounted nowhere, and ends with its descriptor.
func mount() (dir int, err error) {
	context, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(context) }()
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, err
	}
	dir, err = unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, err
	}
	// Before 5.8 there is one instance for all.
	var own, all unix.Stat_t
	if err := errors.Join(unix.Fstat(dir, &own), unix.Stat("/proc", &all)); err != nil || own.Dev == all.Dev {
		return -1, errors.Join(errors.New("no instance of its own"), unix.Close(dir))
	}
	return dir, nil
}

// Close closes the instance; the FS can be used again.
func (f *FS) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.close()
}

func (f *FS) close() {
	if f.dir >= 0 {
		_ = unix.Close(f.dir)
	}
	f.dir, f.visits = unmade, 0
}

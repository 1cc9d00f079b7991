package netns

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/procfs"
)

// OpenInside opens in the namespace, for each element of what, a file under
// /proc/sys, or a rtnetlink socket if it is empty, and returns the descriptors
// in this order. Files are opened by proc; nil: by /proc itself. False: something
// could not be opened, and nothing is open; Do will tell why.
//
// No thread is locked for it, as the first lock of a process has Go start one more
// thread. Instead Go is kept from moving the goroutine, from before the thread enters the
// namespace until it has left (BenchmarkOpenInside).
func (n *Namespace) OpenInside(proc *procfs.FS, what ...string) (fds []int, ok bool) {
	proc.Visit(func(dir int, prefix string) {
		if o := newOpening(n.fd, dir, prefix, what); o != nil {
			fds, ok = o.fds, o.make()
		}
	})
	if ok {
		return fds, true
	}
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	return nil, false
}

// opening is what OpenInside does in the namespace. It is prepared outside: inside, it only
// makes system calls that Go's scheduler does not see.
type opening struct {
	netns uintptr
	dir   uintptr
	here  *byte   // the path of the thread's own namespace, absolute
	paths []*byte // nil: a socket
	fds   []int   // one for each path; -1: not open
}

func newOpening(netns, dir int, prefix string, what []string) *opening {
	o := &opening{netns: uintptr(netns), dir: uintptr(dir), paths: make([]*byte, len(what)), fds: make([]int, len(what))}
	var err error
	for i, path := range what {
		o.fds[i] = -1
		if path != "" && err == nil {
			o.paths[i], err = unix.BytePtrFromString(prefix + path)
		}
	}
	if err == nil {
		o.here, err = unix.BytePtrFromString(ThreadPath)
	}
	if err != nil {
		return nil
	}
	return o
}

// make visits the namespace and opens everything there; false: not everything is open. A
// thread that may not come back does not go: it asks to enter its own namespace first. One
// that cannot come back all the same must not run anything else: the panic of a pinned
// goroutine ends the process.
func (o *opening) make() bool {
	procPin()
	defer procUnpin()
	own, errno := rawOpen(o.dir, o.here, unix.O_RDONLY)
	if errno != 0 {
		return false
	}
	entered := rawEnter(own) && rawEnter(o.netns)
	ok := entered && o.open()
	if entered && !rawReturn(own) {
		panic("a thread cannot leave a network namespace")
	}
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, own, 0, 0)
	return ok
}

// open opens everything in the namespace of the calling thread.
func (o *opening) open() bool {
	for i, path := range o.paths {
		var fd uintptr
		var errno syscall.Errno
		if path == nil {
			fd, _, errno = unix.RawSyscall(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		} else {
			fd, errno = rawOpen(o.dir, path, unix.O_RDWR)
		}
		if errno != 0 {
			return false
		}
		o.fds[i] = int(fd)
	}
	return true
}

// rawOpen is openat(2), close-on-exec.
func rawOpen(dir uintptr, path *byte, flags uintptr) (fd uintptr, errno syscall.Errno) {
	fd, _, errno = unix.RawSyscall6(unix.SYS_OPENAT, dir, uintptr(unsafe.Pointer(path)), flags|unix.O_CLOEXEC, 0, 0, 0)
	return fd, errno
}

// rawEnter brings the calling thread into the namespace that is open as fd.
func rawEnter(fd uintptr) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_SETNS, fd, unix.CLONE_NEWNET, 0)
	return errno == 0
}

// rawReturn is rawEnter, tried again: memory may have been short.
func rawReturn(own uintptr) bool {
	for range 1 + returnTries {
		if rawEnter(own) {
			return true
		}
	}
	return false
}

// procPin keeps the calling goroutine on its thread, and others from it, until procUnpin:
// the runtime leaves both open to other packages (runtime/proc.go, go.dev/issue/67401).
// Between them nothing may block in Go's scheduler.
//
//go:linkname procPin runtime.procPin
func procPin() int

//go:linkname procUnpin runtime.procUnpin
func procUnpin()

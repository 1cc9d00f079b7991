//go:build amd64 || arm64

package netns

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/procfs"
)

// call is a system call of up to three arguments, of which the second is b or
// path. The result is what the kernel returned: a negated errno if above
// -4096.
type call struct {
	number, a, b uintptr
	path         unsafe.Pointer
	c, result    uintptr
}

// doCalls makes n system calls, one after the other, on one thread: nothing
// written in assembly is preempted (runtime/preempt.go).
//
//go:noescape
func doCalls(first *call, n int)

func (c *call) value() (int, error) {
	if c.result > ^uintptr(4095) {
		return -1, unix.Errno(-c.result)
	}
	return int(c.result), nil
}

// OpenInside opens in the namespace, for each element of what, a file under
// /proc/sys, or a rtnetlink socket if it is empty, and returns the descriptors
// in this order. Files are opened by proc; nil: by /proc itself. False: something
// could not be opened, and nothing is open; Do will tell why.
//
// A goroutine that has to stay on its thread, as in Do, makes Go start another
// thread (runtime.LockOSThread): 4 % of the CPU time of an ADD, in 900 rounds
// that had plugins with OpenInside and with Do in turn. The first visit of a test's
// process does not show it, as that has idle threads.
func (n *Namespace) OpenInside(proc *procfs.FS, what ...string) (fds []int, ok bool) {
	proc.Visit(func(dir int, prefix string) { fds, ok = n.openInside(dir, prefix, what) })
	return fds, ok
}

func (n *Namespace) openInside(dir int, prefix string, what []string) ([]int, bool) {
	own, err := unix.Open(ThreadPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	defer func() { _ = unix.Close(own) }()
	back := call{number: unix.SYS_SETNS, a: uintptr(own), b: unix.CLONE_NEWNET}
	calls := make([]call, 0, len(what)+3)
	calls = append(calls, call{number: unix.SYS_SETNS, a: uintptr(n.fd), b: unix.CLONE_NEWNET})
	for _, path := range what {
		c := call{number: unix.SYS_SOCKET, a: unix.AF_NETLINK, b: unix.SOCK_RAW | unix.SOCK_CLOEXEC, c: unix.NETLINK_ROUTE}
		if path != "" {
			p, err := unix.BytePtrFromString(prefix + path)
			if err != nil {
				return nil, false
			}
			c = call{number: unix.SYS_OPENAT, a: uintptr(dir), path: unsafe.Pointer(p), c: unix.O_RDWR | unix.O_CLOEXEC}
		}
		calls = append(calls, c)
	}
	calls = append(calls, back, back) // the second is for a first one that fails
	doCalls(&calls[0], len(calls))
	n.mustBeBack(calls[len(calls)-2:])
	return opened(calls[0], calls[1:len(calls)-2])
}

// mustBeBack panics if the thread is still in n, where nothing may go on.
func (n *Namespace) mustBeBack(back []call) {
	for i := range back {
		if _, err := back[i].value(); err == nil {
			return
		}
	}
	_, err := back[0].value()
	panic(fmt.Sprintf("leave network namespace %q: %v", n.path, err))
}

// opened returns the descriptors, or closes them if one is missing or if they
// are not of the namespace.
func opened(entered call, calls []call) ([]int, bool) {
	_, err := entered.value()
	ok := err == nil
	fds := make([]int, 0, len(calls))
	for i := range calls {
		fd, err := calls[i].value()
		if err != nil {
			ok = false
			continue
		}
		fds = append(fds, fd)
	}
	if ok {
		return fds, true
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	return nil, false
}

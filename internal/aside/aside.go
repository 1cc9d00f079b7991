// Package aside has a system call made by a process of its own, for a program that wants
// to end before the kernel is done with the call. A veth is gone for its caller after 18 ms
// so, after 27 by a thread, and after 45 by the kernel's answer (BenchmarkDeleteLink of
// internal/netlink, on two busy cores).
//
// A thread does not do: its process is reaped only when the last of its threads has ended,
// and no signal ends the wait of one that the kernel keeps. So it is a child, cloned from
// assembly (as os/exec does it, less the exec), which shares memory and descriptors with
// its parent and uses neither stack nor runtime: it makes its one call and exits. All
// signals are blocked from before it exists, so no handler of Go's ever runs in it.
//
// Descriptors are shared and not copied: what the parent closes is closed, so a lock that
// it frees is free, and what it leaves open closes when the child ends, which may take
// as long as the call (a socket of nf_tables waits for what it deleted to be freed). The
// parent must close its own streams before it ends, or the reader of its output waits for
// the child. The child goes to the next subreaper, or to init, when the parent has ended.
package aside

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/sentinel"
)

// ErrUnsupported: no process can be had on this kind of processor.
var ErrUnsupported error = &sentinel.Error{Text: "not supported"}

// Process makes a system call. It has to stay reachable while it may be making it: the
// garbage collector does not see what the call's numbers point to.
type Process struct {
	call   call
	data   []byte
	to     unix.RawSockaddrNetlink
	signal [2]uint64 // masks: all, and what the thread had
	pidfd  int32
}

// call is a system call.
type call struct {
	number uintptr
	args   [6]uintptr
}

// Send begins to send b to the kernel by a netlink socket. b must not change.
func Send(socket int, b []byte) (*Process, error) {
	p := &Process{data: b, to: unix.RawSockaddrNetlink{Family: unix.AF_NETLINK}, signal: [2]uint64{^uint64(0), 0}, pidfd: -1}
	p.call = call{number: unix.SYS_SENDTO, args: [6]uintptr{
		uintptr(socket), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0,
		uintptr(unsafe.Pointer(&p.to)), unix.SizeofSockaddrNetlink,
	}}
	return p, p.begin()
}

func (p *Process) begin() error {
	if !able {
		return ErrUnsupported
	}
	// Without an exit signal: nothing has to be told of it. CLONE_PIDFD is kernel 5.2;
	// one before ignores it.
	const flags = unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_PIDFD
	pid := begin(flags, &p.pidfd, &p.signal, &p.call)
	if pid > ^uintptr(4095) {
		return fmt.Errorf("clone: %w", unix.Errno(-pid))
	}
	return nil
}

// FD is a pidfd, which is readable when the process has ended; -1 if there is none.
func (p *Process) FD() int { return int(p.pidfd) }

// Close closes FD.
func (p *Process) Close() {
	if p.pidfd >= 0 {
		_ = unix.Close(int(p.pidfd))
		p.pidfd = -1
	}
}

package kill

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// point is a system call of a plugin, as it is made or as it returns.
type point struct {
	index  int // among the calls that count
	after  bool
	tid    int
	nr     uint64
	args   [6]uint64
	netmsg bool // sends a netlink message
}

// tracer follows a plugin and has visit called at each point. Points are
// numbered over all threads: what counts, one goroutine does after the other.
type tracer struct {
	pid   int
	visit func(*tracer, point)
	next  int           // index of the next call
	open  map[int]point // calls that have not returned, by thread
	fault map[int]unix.Errno
}

// quiet are calls of the Go runtime for itself: nothing outside of the process
// is different before and after them.
var quiet = map[uint64]bool{
	unix.SYS_FUTEX: true, unix.SYS_MMAP: true, unix.SYS_MUNMAP: true, unix.SYS_MADVISE: true, unix.SYS_MPROTECT: true,
	unix.SYS_BRK: true, unix.SYS_MINCORE: true, unix.SYS_SCHED_YIELD: true, unix.SYS_NANOSLEEP: true, unix.SYS_CLOCK_NANOSLEEP: true,
	unix.SYS_RT_SIGACTION: true, unix.SYS_RT_SIGPROCMASK: true, unix.SYS_RT_SIGRETURN: true, unix.SYS_SIGALTSTACK: true,
	unix.SYS_EPOLL_CREATE1: true, unix.SYS_EPOLL_CTL: true, unix.SYS_EPOLL_PWAIT: true, unix.SYS_EVENTFD2: true,
	unix.SYS_CLONE: true, unix.SYS_GETTID: true, unix.SYS_GETPID: true, unix.SYS_TGKILL: true, unix.SYS_PRCTL: true, unix.SYS_EXIT: true,
	unix.SYS_SCHED_GETAFFINITY: true, unix.SYS_PRLIMIT64: true, unix.SYS_GETRANDOM: true, unix.SYS_RESTART_SYSCALL: true,
}

// limit bounds one run of a plugin: its own waits end after 10 s.
const limit = 2 * time.Minute

// follow lets the tracee pid and its threads run to their end. It must be
// called from the thread that started it.
func (tr *tracer) follow(pid int) (unix.WaitStatus, error) {
	const options = unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACESYSGOOD
	tr.pid, tr.open, tr.fault = pid, map[int]point{}, map[int]unix.Errno{}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != nil { // stopped at its own exec
		return ws, err
	}
	if err := unix.PtraceSetOptions(pid, options); err != nil {
		return ws, err
	}
	timeout := time.AfterFunc(limit, func() { _ = unix.Kill(pid, unix.SIGKILL) })
	defer timeout.Stop()
	for tid := pid; ; {
		signal := 0
		if ws.Stopped() {
			switch s := ws.StopSignal(); {
			case s == unix.SIGTRAP|0x80:
				if err := tr.syscall(tid); err != nil && !errors.Is(err, unix.ESRCH) {
					return ws, err
				}
			case s != unix.SIGTRAP && s != unix.SIGSTOP:
				signal = int(s)
			}
		}
		if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return ws, err
		}
		var err error
		// Only this thread's: other tests have children, too.
		for tid, err = unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil); errors.Is(err, unix.EINTR); {
			tid, err = unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		}
		if err != nil {
			return ws, err
		}
		if tid == pid && (ws.Exited() || ws.Signaled()) {
			return ws, release()
		}
	}
}

// release lets go of what the tracee has started and not waited for: it would stay
// stopped, with the locks that it has until it executes its program.
func release() error {
	for {
		var ws unix.WaitStatus
		tid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case err == nil && ws.Stopped():
			if err := unix.PtraceDetach(tid); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
}

// syscall handles a thread that is stopped as it makes a call, or returns.
func (tr *tracer) syscall(tid int) error {
	info, err := syscallInfo(tid)
	if err != nil {
		return err
	}
	p, isOpen := tr.open[tid]
	if info.op == opExit {
		if !isOpen {
			return nil
		}
		delete(tr.open, tid)
		if errno := tr.fault[tid]; errno != 0 {
			delete(tr.fault, tid)
			if err := setResult(tid, -int64(errno)); err != nil {
				return err
			}
		}
		p.after = true
		tr.visit(tr, p)
		return nil
	}
	if quiet[info.nr] {
		return nil
	}
	p = point{index: tr.next, tid: tid, nr: info.nr, args: info.args, netmsg: info.nr == unix.SYS_SENDTO || info.nr == unix.SYS_SENDMSG}
	tr.next++
	tr.open[tid] = p
	tr.visit(tr, p)
	return nil
}

// kill ends the plugin where it is. A call that is just being made is not.
func (tr *tracer) kill() { _ = unix.Kill(tr.pid, unix.SIGKILL) }

// ofChild returns the process that a point is of, if that is one which the plugin leaves to
// wait for the kernel: it executes no program, and makes one call.
func (tr *tracer) ofChild(p point) (pid int, is bool) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.tid))
	for line := range strings.Lines(string(status)) {
		if id, found := strings.CutPrefix(line, "Tgid:"); found {
			pid, _ = strconv.Atoi(strings.TrimSpace(id))
		}
	}
	if pid == 0 || pid == tr.pid || p.nr != unix.SYS_SENDTO {
		return pid, false
	}
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", tr.pid))
	its, itsErr := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return pid, err == nil && itsErr == nil && own == its
}

// fail has the call that is just being made fail. One that closes is done all
// the same, as the kernel does.
func (tr *tracer) fail(t testing.TB, p point, errno unix.Errno) {
	tr.fault[p.tid] = errno
	if p.nr == unix.SYS_CLOSE {
		return
	}
	if err := skip(p.tid); err != nil {
		t.Fatalf("skip a system call: %v", err)
	}
}

// ptraceInfo is struct ptrace_syscall_info (linux/ptrace.h); nr and args are
// of an entry.
type ptraceInfo struct {
	op   uint8
	_    [3]uint8
	_    uint32
	_, _ uint64
	nr   uint64
	args [6]uint64
	_    [2]uint64
}

const opExit = 2 // PTRACE_SYSCALL_INFO_EXIT

func syscallInfo(tid int) (info ptraceInfo, err error) {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return info, errno
	}
	return info, nil
}

var names = map[uint64]string{
	unix.SYS_OPENAT: "openat", unix.SYS_READ: "read", unix.SYS_WRITE: "write", unix.SYS_CLOSE: "close", unix.SYS_PREAD64: "pread64", unix.SYS_PWRITE64: "pwrite64",
	unix.SYS_SENDTO: "sendto", unix.SYS_RECVMSG: "recvmsg", unix.SYS_RECVFROM: "recvfrom", unix.SYS_SOCKET: "socket", unix.SYS_SETSOCKOPT: "setsockopt", unix.SYS_BIND: "bind",
	unix.SYS_FSTAT: "fstat", unix.SYS_FSTATFS: "fstatfs", unix.SYS_FLOCK: "flock", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_SETNS: "setns", unix.SYS_IOCTL: "ioctl",
	unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_LINKAT: "linkat", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_MKDIRAT: "mkdirat",
	unix.SYS_UTIMENSAT: "utimensat", unix.SYS_GETDENTS64: "getdents64", unix.SYS_FCNTL: "fcntl", unix.SYS_EXIT_GROUP: "exit_group", unix.SYS_FACCESSAT: "faccessat",
	unix.SYS_GETSOCKOPT: "getsockopt", unix.SYS_GETSOCKNAME: "getsockname", unix.SYS_PPOLL: "ppoll", unix.SYS_SYMLINKAT: "symlinkat",
}

// String describes the point of a process that is stopped at it.
func (p point) String() string {
	name, known := names[p.nr]
	if !known {
		name = fmt.Sprintf("syscall %d", p.nr)
	}
	when := "before"
	if p.after {
		when = "after"
	}
	return fmt.Sprintf("%s call %d, %s(%s)", when, p.index, name, strings.Join(p.what(), ", "))
}

// what tells the file and the path, or the netlink message, of a call.
func (p point) what() (all []string) {
	if file, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.tid, int32(p.args[0]))); err == nil {
		all = append(all, file)
	}
	switch p.nr {
	case unix.SYS_OPENAT, unix.SYS_LINKAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_MKDIRAT, unix.SYS_UTIMENSAT:
		var b [200]byte
		n, _ := unix.PtracePeekData(p.tid, uintptr(p.args[1]), b[:])
		path, _, _ := strings.Cut(string(b[:n]), "\x00")
		all = append(all, path)
	case unix.SYS_SENDTO:
		var b [6]byte
		_, _ = unix.PtracePeekData(p.tid, uintptr(p.args[1]), b[:])
		all = append(all, fmt.Sprintf("message type %#x", uint16(b[4])|uint16(b[5])<<8))
	}
	return all
}

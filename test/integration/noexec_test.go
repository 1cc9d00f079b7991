package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoProcessStarted holds that no verb of our plugins starts a process:
// each is run under ptrace(2), which reports every fork and exec.
func TestNoProcessStarted(t *testing.T) {
	t.Run("bridge-ln", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		h.startsNothing(attachment("bridge-ln", "c1", h.netns("c1"), full))
	})
	t.Run("ipam-ln", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		h.startsNothing(attachment("ipam-ln", "c1", h.netns("c1"), full))
	})
	// That the tracer sees processes: another IPAM plugin is one.
	t.Run("bridge-ln with host-local", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		c := attachment("bridge-ln", "c1", h.netns("c1"), edit(t, full, keys{"ipam.type": "host-local"}))
		if _, started := h.trace(c.as("ADD")); started == 0 {
			t.Error("ADD with ipam.type host-local started no process")
		}
	})
}

// startsNothing traces an attachment through all verbs.
func (h *host) startsNothing(c call) {
	h.t.Helper()
	for _, command := range []string{"VERSION", "STATUS", "ADD", "CHECK", "DEL", "GC"} {
		r, started := h.trace(c.as(command))
		if r.code != 0 {
			h.t.Fatalf("%s: code %d: %s", command, r.code, r.msg)
		}
		if started > 0 {
			h.t.Errorf("%s started %d processes", command, started)
		}
		if command == "ADD" {
			c.stdin = edit(h.t, c.stdin, keys{"prevResult": raw(r.stdout)})
		}
	}
}

// trace runs a plugin and counts the processes it starts, and the programs.
// It must be called from the test's own, locked goroutine: a tracee belongs to
// the thread that started it.
func (h *host) trace(c call) (r reply, started int) {
	h.t.Helper()
	dir := h.t.TempDir()
	stdin, stdout := filepath.Join(dir, "stdin"), filepath.Join(dir, "stdout")
	h.check(os.WriteFile(stdin, []byte(c.stdin), 0o600))
	in, err := os.Open(stdin)
	h.check(err)
	out, err := os.Create(stdout)
	h.check(err)
	cmd := exec.Command(program(h.t, c.plugin))
	cmd.Env, cmd.Stdin, cmd.Stdout = c.environ(h.t), in, out
	cmd.SysProcAttr = &unix.SysProcAttr{Ptrace: true}
	h.check(cmd.Start())
	status, started, err := follow(cmd.Process.Pid)
	h.check(errors.Join(err, cmd.Process.Release(), in.Close(), out.Close()))
	printed, err := os.ReadFile(stdout)
	h.check(err)
	if status != 0 {
		r.code, r.msg = uint(status), string(printed)
	}
	r.stdout = string(printed)
	return r, started
}

// follow lets the tracee pid and its threads run to their end.
func follow(pid int) (status, started int, err error) {
	const options = unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != nil { // stopped at its own exec
		return 0, 0, err
	}
	if err := unix.PtraceSetOptions(pid, options); err != nil {
		return 0, 0, err
	}
	for tid := pid; ; {
		deliver := 0
		if ws.Stopped() && ws.StopSignal() != unix.SIGTRAP && ws.StopSignal() != unix.SIGSTOP {
			deliver = int(ws.StopSignal())
		}
		if err := unix.PtraceCont(tid, deliver); err != nil && !errors.Is(err, unix.ESRCH) {
			return 0, started, err
		}
		// Only this thread's: other tests have children, too.
		if tid, err = unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil); err != nil {
			return 0, started, err
		}
		switch ws.TrapCause() {
		case unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK, unix.PTRACE_EVENT_EXEC:
			started++
		}
		if tid == pid && (ws.Exited() || ws.Signaled()) {
			return ws.ExitStatus(), started, nil
		}
	}
}

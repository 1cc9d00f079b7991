package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// runWithin calls a plugin that may have no more than files open files.
func (h *host) runWithin(files int, c call) reply {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", fmt.Sprintf("ulimit -n %d; exec %s", files, program(h.t, c.plugin)))
	cmd.Env = c.environ(h.t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.stdin), &stdout, &stderr
	return h.reply(c, cmd.Run(), stdout.String(), stderr.String())
}

// A plugin that runs out of open files says so by an error of the protocol, and
// an ADD then leaves nothing. Go's poller, which ends the process if it gets
// none, is not started in the middle of the work.
func TestFewDescriptors(t *testing.T) {
	for _, tt := range []struct {
		name, plugin string
		keys         keys
		but          string // what a failed ADD may leave to DEL, as a pattern
	}{
		{"bridge-ln", "bridge-ln", nil, ""},
		// To look whether there are rules to be taken back takes a process, too;
		// without it the record stays, and the lease.
		{"bridge-ln by iptables", "bridge-ln", keys{"backend": "iptables", "macspoofchk": nil}, "^file "},
		{"bridge-ln with host-local", "bridge-ln", keys{"ipam.type": "host-local"}, ""},
		{"overlay-ln", "overlay-ln", nil, ""},
		{"portmap-ln", "portmap-ln", nil, ""},
		{"ipam-ln", "ipam-ln", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			c := h.editable(tt.plugin)
			c.stdin = edit(t, c.stdin, tt.keys)
			h.must(c.as("ADD"))
			h.must(c.as("DEL"))
			before := h.snapshot()
			added, removed := 0, 0
			for files := 3; files <= 40; files++ {
				if r := h.runWithin(files, c.as("ADD")); r.code == 0 {
					added++
				} else if left := h.snapshot().since(before).without(` fe80::`).without(tt.but); len(left) > 0 {
					t.Errorf("ADD with %d files failed (code %d: %s) and left\n%s", files, r.code, r.msg, strings.Join(left, "\n"))
				}
				h.must(c.as("ADD"))
				if r := h.runWithin(files, c.as("DEL")); r.code == 0 {
					removed++
				} else {
					h.must(c.as("DEL"))
				}
				if left := h.snapshot().since(before).without(` fe80::`); len(left) > 0 {
					t.Fatalf("DEL with %d files left\n%s", files, strings.Join(left, "\n"))
				}
			}
			t.Logf("of 38 limits from 3 to 40 files ADD worked with %d, DEL with %d", added, removed)
			if added < 10 || removed < 10 {
				t.Errorf("of 38 limits from 3 to 40 files ADD worked with %d, DEL with %d", added, removed)
			}
		})
	}
}

// An ADD whose result cannot be written takes all back: the reader of stdout is
// gone before it comes.
func TestBrokenStdout(t *testing.T) {
	for plugin := range allKeys {
		t.Run(plugin, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			c := h.editable(plugin)
			h.must(c.as("ADD"))
			h.must(c.as("DEL"))
			before := h.snapshot()
			r, w, err := os.Pipe()
			h.check(err)
			h.check(r.Close())
			defer func() { _ = w.Close() }()
			for _, broken := range []struct{ stdout, stderr *os.File }{{w, nil}, {w, w}} {
				cmd := exec.Command(program(t, plugin))
				cmd.Env, cmd.Stdin = c.as("ADD").environ(t), strings.NewReader(c.stdin)
				cmd.Stdout = broken.stdout
				if broken.stderr != nil {
					cmd.Stderr = broken.stderr
				}
				if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 {
					t.Errorf("ADD: %v, want exit status 1", err)
				}
				if left := h.snapshot().since(before); len(left) > 0 {
					t.Errorf("ADD left\n%s", strings.Join(left, "\n"))
				}
			}
		})
	}
}

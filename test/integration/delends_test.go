package integration

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// When DEL has ended, though a child of it may still wait for the kernel, the host is as it
// was before ADD, and the child holds neither its output nor a lock.
func TestDelEnds(t *testing.T) {
	const rounds = 20
	for _, plugin := range []string{"bridge-ln", "overlay-ln"} {
		t.Run(plugin, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			conf := full
			if plugin == "overlay-ln" {
				h.check(lntest.Up("lo", "192.0.2.1/32"))
				conf = `{"cniVersion":"1.1.0","name":"net","type":"overlay-ln","bridge":"br0","nodes":[{"address":"192.0.2.1","subnet":["10.1.0.0/24"]}]}`
			}
			h.must(attachment(plugin, "stays", h.netns("stays"), conf).as("ADD"))
			before := h.snapshot()
			c := attachment(plugin, "c1", h.netns("c1"), conf)
			late := 0
			for range rounds {
				c.stdin = edit(t, conf, keys{"prevResult": raw(h.must(c.as("ADD")).stdout)})
				out := h.runToPipe(plugin, c.as("DEL"))
				if n, err := unix.Read(out, make([]byte, 1)); errors.Is(err, unix.EAGAIN) {
					late++
				} else if n != 0 || err != nil {
					t.Fatalf("its output has not ended: %d bytes (%v)", n, err)
				}
				lock, err := unix.Open(stateDir+"/networks/net/lock", unix.O_RDWR|unix.O_CLOEXEC, 0)
				if err == nil {
					err = unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB)
				}
				if err := errors.Join(err, unix.Close(lock), unix.Close(out)); err != nil {
					t.Fatalf("the lock of the network: %v", err)
				}
				if now := h.snapshot(); !slices.Equal(now, before) {
					t.Fatalf("the host is not as before: left %v, missing %v", now.since(before), before.since(now))
				}
			}
			// A child would hold it in each round. A process that another test starts at the same
			// moment holds it now and then: the kernel closes what exec closes after it lets the
			// parent go on.
			if late > rounds/2 {
				t.Errorf("its output had not ended in %d of %d rounds", late, rounds)
			}
		})
	}
}

// runToPipe runs a plugin and returns what its output can be read from, without waiting.
func (h *host) runToPipe(plugin string, c call) (out int) {
	h.t.Helper()
	var p [2]int
	h.check(unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	to := os.NewFile(uintptr(p[1]), "output")
	cmd := exec.Command(program(h.t, plugin))
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.environ(h.t), strings.NewReader(c.stdin), to, to
	h.check(errors.Join(cmd.Run(), to.Close()))
	return p[0]
}

package integration

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHostileNetns has CNI_NETNS lead somewhere else: ADD refuses it at once,
// DEL succeeds, and nothing changes.
func TestHostileNetns(t *testing.T) {
	const path = "/run/trap"
	rows := []struct {
		name string
		lay  func(h *host)
		path string // missing: path
		code uint
	}{
		{name: "a FIFO", lay: func(h *host) { h.check(unix.Mkfifo(path, 0o600)) }, code: codeNetns},
		{name: "a device", path: "/dev/zero", code: codeNetns},
		{name: "a terminal", path: "/dev/ptmx", code: codeNetns},
		{name: "a link to itself", lay: func(h *host) { h.check(os.Symlink(path, path)) }, code: codeNetns},
		{name: "a link to nothing", lay: func(h *host) { h.check(os.Symlink("/run/none", path)) }, code: codeNetns},
		{name: "a link to the host's", lay: func(h *host) { h.check(os.Symlink("/proc/self/ns/net", path)) }, code: codeNetns},
		{name: "the host's by another name", lay: func(h *host) {
			h.check(os.WriteFile(path, nil, 0o600))
			h.check(unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""))
		}, code: codeNetns},
		{name: "a user namespace", path: "/proc/self/ns/user", code: codeNetns},
		{name: "too long", path: "/run/" + strings.Repeat("x/", 3000), code: codeNetns},
		{name: "below a file", path: "/proc/version/net", code: codeNetns},
		{name: "of a process that is not there", path: "/proc/4194304/ns/net", code: codeNetns},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if row.lay != nil {
				row.lay(h)
			}
			if row.path == "" {
				row.path = path
			}
			before := h.snapshot()
			for _, plugin := range []string{"bridge-ln", "ipam-ln"} {
				c := attachment(plugin, "c1", row.path, good)
				if plugin == "bridge-ln" {
					h.refused(c.as("ADD"), row.code, "namespace")
				}
				h.must(c.as("DEL"))
				h.same(before)
			}
		})
	}
}

// TestTemplateName holds that an interface name is not taken for a pattern,
// for which the kernel would choose another one.
func TestTemplateName(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	before := h.snapshot()
	c := attachment("bridge-ln", "c1", h.netns("c1"), good)
	c.ifName = "eth%d"
	h.refused(c.as("ADD"), codeEnv, "CNI_IFNAME", "eth%d")
	h.must(c.as("DEL"))
	h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, good, keys{"cni.dev/valid-attachments": []string{}})})
	h.same(before)
}

package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// cutTunnel deletes a host's VXLAN device.
func (a *agents) cutTunnel(host string) {
	a.t.Helper()
	vx := a.tunnelOf(host)
	a.in(netnsPath(host), func() { a.check(netlink.LinkDel(a.link(vx))) })
}

// awaitTunnel waits until STATUS finds nothing missing.
func (a *agents) awaitTunnel(host string, bound time.Duration) (took time.Duration) {
	a.t.Helper()
	status := call{plugin: "overlay-ln", command: "STATUS", stdin: a.agentConf(0, host, nil)}
	start := time.Now()
	for {
		r := a.tryOn(host, status)
		if took = time.Since(start); r.code == 0 && r.stderr == "" {
			return took
		}
		if took > bound {
			a.t.Errorf("%s: after %s: code %d, %s, %s", host, took, r.code, r.msg, r.stderr)
			return took
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// The agent undoes changes of a tunnel by hand when the kernel tells of them.
func TestAgentMends(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 2)
	a.up(nil)
	near, far := a.attach("h1", "near", nil), a.attach("h2", "far", nil)
	block := far.addresses[0].As4()
	v4 := netip.AddrFrom4([4]byte{block[0], block[1], block[2], 0})
	status := call{plugin: "overlay-ln", command: "STATUS", stdin: a.agentConf(0, "h1", nil)}
	files := a.openFiles("h1")
	for _, tt := range []struct {
		name string
		do   func(vx netlink.Link)
		// healed: STATUS needs no agent for it.
		healed bool
	}{
		{name: "device deleted", healed: true, do: func(vx netlink.Link) { a.check(netlink.LinkDel(vx)) }},
		{name: "device down", do: func(vx netlink.Link) { a.check(netlink.LinkSetDown(vx)) }},
		{name: "route deleted", do: func(vx netlink.Link) {
			a.check(netlink.RouteDel(&netlink.Route{Dst: ipNet(a.cluster, v4.String()+"/24"), LinkIndex: vx.Attrs().Index}))
		}},
		{name: "neighbour deleted", do: func(vx netlink.Link) {
			a.check(netlink.NeighDel(&netlink.Neigh{LinkIndex: vx.Attrs().Index, IP: v4.AsSlice()}))
		}},
		{name: "forwarding entries deleted", do: func(vx netlink.Link) {
			all, err := netlink.NeighList(vx.Attrs().Index, unix.AF_BRIDGE)
			a.check(err)
			if len(all) == 0 {
				t.Error("no forwarding entry to delete")
			}
			for _, n := range all {
				n.Flags, n.Family = unix.NTF_SELF, unix.AF_BRIDGE
				a.check(netlink.NeighDel(&n))
			}
		}},
		{name: "address deleted", do: func(vx netlink.Link) {
			all, err := netlink.AddrList(vx, netlink.FAMILY_V4)
			a.check(err)
			a.check(netlink.AddrDel(vx, &all[0]))
		}},
		{name: "rules flushed", healed: true, do: func(netlink.Link) { a.check(exec.Command("nft", "flush", "ruleset").Run()) }},
	} {
		vx := a.tunnelOf("h1")
		a.freeze("h1") // so that the damage is seen
		a.in(netnsPath("h1"), func() { tt.do(a.link(vx)) })
		if r := a.tryOn("h1", status); r.code != 0 || (r.stderr == "") != tt.healed {
			t.Errorf("%s: STATUS says %d (%s), %q; want success, and a warning unless it mends", tt.name, r.code, r.msg, r.stderr)
		}
		a.check(a.procs["h1"].cmd.Process.Signal(unix.SIGCONT))
		took := a.awaitTunnel("h1", agentPatience)
		t.Logf("%s: right again after %s", tt.name, took.Round(time.Millisecond))
		a.pingAll(near, far)
	}
	// While the agent looks once more it has sockets open.
	for deadline := time.Now().Add(agentPatience); a.openFiles("h1") > files; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("ln-agent has %d files open, had %d before all this", a.openFiles("h1"), files)
		}
	}
}

// freeze stops the agent of a host at a moment at which it holds no lock, and
// returns when none of its threads runs: a thread in a system call stops at its end.
func (a *agents) freeze(host string) {
	a.t.Helper()
	pid := a.procs[host].cmd.Process.Pid
	a.check(unix.Kill(pid, unix.SIGSTOP))
	for deadline := time.Now().Add(agentPatience); ; time.Sleep(time.Millisecond) {
		switch frozen := stopped(pid); {
		case frozen && !holdsLock(pid):
			return
		case time.Now().After(deadline):
			a.t.Fatalf("ln-agent of %s does not stop without a lock", host)
		case frozen:
			a.check(unix.Kill(pid, unix.SIGCONT))
			time.Sleep(time.Millisecond)
			a.check(unix.Kill(pid, unix.SIGSTOP))
		}
	}
}

// holdsLock tells whether a process has a lock's file open, other than that by
// which an agent is the only one of its host.
func holdsLock(pid int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	return slices.ContainsFunc(files, func(fd string) bool {
		name, err := os.Readlink(fd)
		return err == nil && strings.HasSuffix(name, "/lock")
	})
}

// stopped tells whether every thread of a process is stopped, see proc(5).
func stopped(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range threads {
		stat, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		_, state, ok := strings.Cut(string(stat), ") ")
		if !ok || state[0] != 'T' {
			return false
		}
	}
	return len(threads) > 0
}

func (a *agents) openFiles(host string) int {
	a.t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.procs[host].cmd.Process.Pid))
	a.check(err)
	return len(all)
}

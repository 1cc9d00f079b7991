package kubernetes

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// boot gives the host its network namespace, with an address on the bridge of the plane.
func (h *host) boot(t *testing.T) {
	t.Helper()
	run(t, "ip", "netns", "add", h.name)
	run(t, "ip", "link", "add", "f-"+h.name, "type", "veth", "peer", "name", "eth0", "netns", h.name)
	run(t, "ip", "link", "set", "f-"+h.name, "master", "fabric", "up")
	h.run(t, "ip", "addr", "add", h.address+"/16", "dev", "eth0")
	h.run(t, "ip", "link", "set", "eth0", "up")
	h.run(t, "ip", "link", "set", "lo", "up")
}

// reboot takes away what no boot leaves: the agent, the namespaces of the host and of its containers, and
// what is in a tmpfs. The leases stay.
func (h *host) reboot(t *testing.T, containers ...container) {
	t.Helper()
	h.killAgent(t)
	for _, c := range containers {
		run(t, "ip", "netns", "del", c.ns)
		run(t, "ip", "netns", "add", c.ns) // the test removes it
	}
	run(t, "ip", "netns", "del", h.name)
	eventually(t, "the cable of "+h.name+" is gone", func() bool { return exec.Command("ip", "link", "show", "f-"+h.name).Run() != nil })
	state := filepath.Join(h.dir, "state")
	check(t, os.RemoveAll(state))
	check(t, os.Mkdir(state, 0o755))
	h.boot(t)
}

// losing counts what is lost of a thousand packets a second from one container to another while something
// is done. The last one that was sent may be on its way when ping ends: it does not count; and ping may
// not have counted it yet.
func losing(t *testing.T, what string, from, to container, do func()) (lost int) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("ip", "netns", "exec", from.ns, "busybox", "ping", "-i", "0.001", to.addresses[0])
	cmd.Stdout = &out
	check(t, cmd.Start())
	do()
	check(t, cmd.Process.Signal(unix.SIGINT))
	_ = cmd.Wait() // says whether all came back, as the counts do
	sent, received, last := 0, 0, -1
	for line := range bytes.Lines(out.Bytes()) {
		var from string
		var seq int
		if n, _ := fmt.Sscanf(string(line), "64 bytes from %s seq=%d", &from, &seq); n == 2 && !bytes.Contains(line, []byte("DUP!")) {
			received, last = received+1, seq
		}
		_, _ = fmt.Sscanf(string(line), "%d packets transmitted", &sent)
	}
	if lost = max(sent, received) - received; lost > 0 && last != (sent-1)%(1<<16) {
		lost--
	}
	t.Logf("%s: %d packets, %d lost", what, sent, lost)
	if sent < 20 {
		t.Errorf("%s: only %d packets were sent", what, sent)
	}
	return lost
}

// Neither agents that are killed or begin anew, nor an API that goes and comes, nor another node that
// boots or is drained cost a packet between two containers; and after its boot a node is reached again.
func TestLosses(t *testing.T) {
	p := newPlane(t)
	var hosts []*host
	for i, name := range []string{"m1", "w2", "w3"} {
		address := fmt.Sprintf("172.31.9.%d", i+1)
		p.addNode(t, name, address, fmt.Sprintf("10.244.%d.0/24", i+1))
		h := newHost(t, p, name, address, adminToken)
		h.subnets = `["10.244.0.0/16"]`
		h.configure(t, "")
		h.startAgent(t)
		hosts = append(hosts, h)
	}
	for _, h := range hosts {
		eventually(t, h.name+" knows all", func() bool { return len(h.nodes()) == len(hosts) })
		h.healthy(t)
	}
	a, b, other := hosts[0].add(t), hosts[1].add(t), hosts[2].add(t)
	check(t, a.reaches(b))
	check(t, a.reaches(other))
	for _, tt := range []struct {
		what string
		do   func()
	}{
		{"agents killed", func() {
			for _, h := range hosts[:2] {
				h.killAgent(t)
				h.startAgent(t)
				h.healthy(t)
			}
		}},
		{"agents stopped, as for an upgrade", func() {
			for _, h := range hosts[:2] {
				check(t, h.agent.Process.Signal(unix.SIGTERM))
				check(t, h.agent.Wait())
				h.startAgent(t)
				h.healthy(t)
			}
		}},
		{"API killed, agents begin anew without it, API back", func() {
			p.stopAPI(t)
			hosts[1].killAgent(t)
			hosts[1].startAgent(t)
			check(t, a.reaches(hosts[1].add(t)))
			p.startAPI(t)
			for _, h := range hosts {
				h.healthy(t)
			}
		}},
		{"another node boots", func() {
			hosts[2].reboot(t, other)
			began := time.Now()
			hosts[2].startAgent(t)
			hosts[2].healthy(t)
			again := hosts[2].add(t)
			eventually(t, "its new container is reached", func() bool { return a.reaches(again) == nil && again.reaches(b) == nil })
			t.Logf("a container of the node is reached %.1f s after its agent began", time.Since(began).Seconds())
			other = again
		}},
		{"another node is drained, and leaves", func() {
			_, err := hosts[2].cni("DEL", other.ns)
			check(t, err)
			hosts[2].killAgent(t)
			p.do(t, "DELETE", "/api/v1/nodes/w3", "", nil)
			eventually(t, "m1 knows it no more", func() bool { return len(hosts[0].nodes()) == len(hosts)-1 })
		}},
	} {
		if lost := losing(t, tt.what, a, b, tt.do); lost > 0 {
			t.Errorf("%s: %d packets are lost", tt.what, lost)
		}
	}
}

package integration

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Three hosts that know nothing of each other but etcd: containers on each
// reach all others, by both families. A network that comes later is noticed.
func TestAgentReach(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 3)
	for _, h := range a.hosts {
		a.configure(0, h, nil)
	}
	status := call{plugin: "overlay-ln", command: "STATUS", stdin: a.agentConf(0, "h1", nil)}
	if r := a.tryOn("h1", status); r.code != 50 || !strings.Contains(r.msg, "ln-agent") {
		t.Errorf("STATUS before there is an agent: code %d, %q, want 50 and what is missing", r.code, r.msg)
	}
	early := attachment("overlay-ln", "early", a.netns("early"), a.agentConf(0, "h1", nil))
	if r := a.tryOn("h1", early.as("ADD")); r.code != 11 || !strings.Contains(r.msg, "/run/libnet-h1/overlay/net0.json is missing") {
		t.Errorf("ADD before there is an agent: code %d, %q, want 11 and the file", r.code, r.msg)
	}
	a.mustOn("h1", early.as("DEL"))
	for _, h := range a.hosts {
		a.start(h)
	}
	var all []container
	for _, h := range a.hosts {
		a.awaitPeers(h, 2)
		a.awaitHealth(h, "ok")
		a.mustOn(h, status.with(a.agentConf(0, h, nil)))
		all = append(all, a.attach(h, "c-"+h, nil))
	}
	a.pingAll(all...)
	for _, p := range all {
		check := p.call.as("CHECK")
		check.stdin = edit(t, check.stdin, map[string]any{"prevResult": decode(t, a.mustOn(p.host, p.call.as("ADD")).stdout)})
		a.mustOn(p.host, check)
	}
	for _, args := range []string{"doctor", "repair", "gc", "network ls", "network inspect net0"} {
		a.in(netnsPath("h1"), func() {
			out, err := exec.Command(program(t, "lnctl"), append([]string{"--state-dir", "/run/libnet-h1", "--data-dir", "/var/lib/leases-h1"}, strings.Fields(args)...)...).CombinedOutput()
			if err != nil {
				t.Errorf("lnctl %s: %v\n%s", args, err, out)
			}
		})
	}
	a.pingAll(all...)
	a.configure(1, "h1", nil)
	a.awaitAgent("h1", "/metrics", "second network", func(body string, _ int) bool {
		return metric(body, `libnet_agent_network_ok{network="net1"}`) == 1
	})
	for _, p := range all { // what the agent owns stays, even without a container
		a.mustOn(p.host, p.call.as("DEL"))
		a.mustOn(p.host, call{plugin: "overlay-ln", command: "GC", stdin: edit(t, p.call.stdin, map[string]any{"cni.dev/valid-attachments": []string{}})})
		a.mustOn(p.host, status.with(p.call.stdin))
	}
}

// Hosts that have IPv6 only on the underlay, a third one of IPv4 that does not fit.
func TestAgentReachIPv6(t *testing.T) {
	t.Parallel()
	a := newAgentsOver(t, 3, true)
	third := a.hosts[2]
	a.hosts = a.hosts[:2]
	a.up(nil)
	a.pingAll(a.attach("h1", "near", nil), a.attach("h2", "far", nil))
	a.configure(0, third, nil)
	a.start(third, "--node-address", "192.0.2.3")
	a.awaitHealth(third, "IPv6 addresses of the hosts: false here, true by h")
}

// With etcd down, running containers reach each other, new ones start and reach
// them, and agents may be restarted. What changed meanwhile is there afterwards.
func TestAgentWithoutEtcd(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 2)
	a.up(nil, "--live-ttl", "3s") // what is not there is noticed soon
	near, far := a.attach("h1", "near", nil), a.attach("h2", "far", nil)
	a.pingAll(near, far)
	a.etcd.Kill()
	a.awaitHealth("h1", "etcd:")
	third := a.attach("h1", "third", nil)
	a.pingAll(near, far, third)
	a.procs["h1"].kill(t)
	a.start("h1", "--live-ttl", "3s")
	a.awaitHealth("h1", "etcd:")
	a.cutTunnel("h1")
	a.awaitTunnel("h1", agentPatience)
	fourth := a.attach("h1", "fourth", nil)
	a.pingAll(near, far, third, fourth)
	a.startEtcd()
	for _, h := range a.hosts {
		a.awaitHealth(h, "ok")
	}
	a.pingAll(near, far, third, fourth)
}

// A host that is restarted has its blocks still; one that leaves gives them
// back, but not under living containers, and the others forget it.
func TestAgentLeaves(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 2)
	var before snapshot
	a.in(netnsPath("h2"), func() { before = a.snapshot() })
	a.up(nil)
	blocks := a.nodeFile("h2").Blocks
	p := a.attach("h2", "c", nil)
	a.procs["h2"].stop(t)
	a.start("h2")
	a.awaitPeers("h2", 1)
	if again := a.nodeFile("h2").Blocks; strings.Join(again, " ") != strings.Join(blocks, " ") {
		t.Errorf("blocks are %v, were %v", again, blocks)
	}
	leave := func(args ...string) (string, error) {
		var out []byte
		var err error
		a.in(netnsPath("h2"), func() { out, err = a.agentCommand("h2", append([]string{"leave"}, args...)...).CombinedOutput() })
		return string(out), err
	}
	if out, err := leave(); err == nil || !strings.Contains(out, "at work on this host") {
		t.Errorf("while the agent runs: %v, %s", err, out)
	}
	a.procs["h2"].stop(t)
	if out, err := leave(); err == nil || !strings.Contains(out, "living containers") {
		t.Errorf("while a container lives: %v, %s", err, out)
	}
	a.mustOn("h2", p.call.as("DEL"))
	a.awaitPeers("h1", 1)
	if out, err := leave(); err != nil {
		t.Errorf("leave: %v, %s", err, out)
	}
	a.awaitPeers("h1", 0)
	a.mustOn("h2", call{plugin: "overlay-ln", command: "GC", stdin: edit(t, p.call.stdin, map[string]any{"cni.dev/valid-attachments": []string{}})})
	a.in(netnsPath("h2"), func() { // the kernel gives eth0 an address of its own when it likes
		a.sameBut(before, `^file /run/libnet-h|eth0.*fe80|fe80.*eth0`)
	})
	if r := a.tryOn("h2", p.call.as("ADD")); r.code != 11 {
		t.Errorf("ADD after it left: code %d, want 11", r.code)
	}
	a.procs["h1"].stop(t)
	a.in(netnsPath("h1"), func() {
		if out, err := a.agentCommand("h1", "leave").CombinedOutput(); err != nil {
			t.Errorf("the last one leaves: %v, %s", err, out)
		}
	})
	if left := a.etcdctl("get", "--prefix", "--keys-only", "/"); strings.TrimSpace(left) != "" {
		t.Errorf("etcd holds:\n%s", left)
	}
}

// etcdctl asks etcd as a person does.
func (a *agents) etcdctl(args ...string) string {
	a.t.Helper()
	var out []byte
	var err error
	a.in(netnsPath(etcdHost), func() {
		out, err = exec.Command(program(a.t, "etcdctl"), append([]string{"--endpoints", a.etcd.URL, "--command-timeout", "60s"}, args...)...).Output()
	})
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		a.t.Fatalf("etcdctl %v: %v, %s", args, err, exit.Stderr)
	}
	a.check(err)
	return string(out)
}

// A host whose configuration differs is told so, and gets no block.
func TestAgentDiffers(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 2)
	a.configure(0, "h1", nil)
	a.start("h1")
	a.awaitPeers("h1", 0)
	a.configure(0, "h2", map[string]any{"blockSize": map[string]any{"ipv4": 26}})
	a.start("h2")
	a.awaitHealth("h2", "blockSize: {26 64} here, {24 64} by h1")
	if _, err := os.Stat("/run/libnet-h2/overlay/net0.json"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a node file: %v", err)
	}
	a.configure(0, "h2", nil) // put right, it is noticed
	a.awaitPeers("h2", 1)
	a.awaitHealth("h2", "ok")
}

// Two hosts of one name or address: the second is told, and does nothing.
func TestAgentTwins(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 3)
	for _, h := range a.hosts {
		a.configure(0, h, nil)
	}
	a.start("h1")
	a.awaitPeers("h1", 0)
	a.start("h2", "--node-address", "192.0.2.1")
	a.awaitHealth("h2", "living node h1")
	a.start("h3")
	a.awaitPeers("h3", 1)
	a.awaitPeers("h1", 1)
}

// When a host's block fills up it takes another; containers of both reach
// all others. Small blocks of 5 addresses each, and 8 of them.
func TestAgentSeveralBlocks(t *testing.T) {
	t.Parallel()
	a := newAgents(t, 2)
	keys := map[string]any{"subnet": "10.80.0.0/26", "blockSize": map[string]any{"ipv4": 29}}
	a.up(keys)
	all := []container{a.attach("h2", "far", keys)}
	for i, name := range strings.Fields("c1 c2 c3 c4 c5 c6 c7 c8 c9") {
		all = append(all, a.attach("h1", name, keys))
		a.awaitAgent("h1", "/metrics", "spare addresses", func(body string, _ int) bool {
			const of = `{family="ipv4",network="net0"}`
			held, capacity := metric(body, "libnet_agent_leases_held"+of), metric(body, "libnet_agent_leases_capacity"+of)
			return held == float64(i+1) && held < capacity && 5*len(a.nodeFile("h1").Blocks) == int(capacity)
		})
	}
	if n := len(a.nodeFile("h1").Blocks); n < 2 {
		t.Fatalf("h1 has %d blocks", n)
	}
	a.pingAll(all[0], all[1], all[9])
	for _, p := range all[1:] {
		check := p.call.as("CHECK")
		check.stdin = edit(t, check.stdin, map[string]any{"prevResult": decode(t, a.mustOn(p.host, p.call.as("ADD")).stdout)})
		a.mustOn(p.host, check)
	}
}

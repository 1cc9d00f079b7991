package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// gateways of the example: its subnets' first addresses, on the bridge.
const (
	gateway4 = "10.88.0.1"
	gateway6 = "2001:4860:4860::1"
)

func TestContainerd(t *testing.T) {
	m := newMachine(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *machine)
	}{
		{"containers of ctr", testContainers},
		{"pods", testPods},
		{"host port", testHostPort},
		{"killed container", testKilledContainer},
		{"killed pod", testKilledPod},
		{"killed containerd", testKilledContainerd},
	} {
		ok := t.Run(test.name, func(t *testing.T) {
			test.run(t, m)
			m.nothingLeft(t)
		})
		if !ok {
			return // what it left would fail the next ones too
		}
	}
}

func testContainers(t *testing.T, m *machine) {
	a, b := m.runContainer(t, "a"), m.runContainer(t, "b")
	for _, c := range []*container{a, b} {
		addCall(t, c.name(), c.cniID(), c.addrs)
	}
	m.holds(t, 2)
	pingAll(t, a, b)
	for _, c := range []*container{a, b} {
		c.stop(t)
		delCalls(t, c.name(), c.cniID(), 1)
	}
}

func testPods(t *testing.T, m *machine) {
	a, b := m.runPod(t, "a", nil, "pause"), m.runPod(t, "b", nil, "pause")
	for _, p := range []*pod{a, b} {
		addCall(t, p.name(), p.id, p.addrs)
		t.Logf("%s: RunPodSandbox took %s", p.name(), p.took.Round(time.Millisecond))
	}
	m.holds(t, 2)
	pingAll(t, a, b)
	for _, p := range []*pod{a, b} {
		p.stop(t)
		p.remove(t)
		delCalls(t, p.name(), p.id, 2)
	}
}

// The reference portmap stands behind bridge-ln. containerd writes the keys of
// a port mapping in capitals.
func testHostPort(t *testing.T, m *machine) {
	if !hasIPTables() {
		t.Skip("the reference portmap needs iptables")
	}
	ports := []*cri.PortMapping{{Protocol: cri.Protocol_TCP, HostPort: 18080, ContainerPort: 80}}
	server, client := m.runPod(t, "web", ports, "serve", "80"), m.runPod(t, "client", nil, "pause")
	if stdin := string(calls(t, "portmap", "ADD", server.id)[0].Stdin); !strings.Contains(stdin, `"HostPort":18080`) {
		t.Errorf("no HostPort in what portmap read: %s", stdin)
	}
	if len(portRules(t)) == 0 {
		t.Error("portmap made no rules")
	}
	get := func(from, addr, got string) {
		t.Helper()
		if got != "web" {
			t.Errorf("%s asked %s, which answered %q", from, addr, got)
		}
		t.Logf("%s asked %s, pod web answered", from, addr)
	}
	await := server.addrs[0].String() + ":80"
	eventually(t, "the server listens", func() bool { return onHost(t, "get", await).err == nil })
	for _, addr := range []string{"127.0.0.1:18080", gateway4 + ":18080"} {
		get("the host", addr, onHost(t, "get", addr).must(t))
	}
	get("pod client", gateway4+":18080", client.exec(t, "get", gateway4+":18080"))
	for _, p := range []*pod{server, client} {
		p.stop(t)
		p.remove(t)
	}
}

// The network namespace is gone with the container's process; ctr calls DEL
// without one.
func testKilledContainer(t *testing.T, m *machine) {
	c := m.runContainer(t, "killed")
	addCall(t, c.name(), c.cniID(), c.addrs)
	kill(t, c.pid(t))
	if err := c.cmd.Wait(); err == nil {
		t.Error("ctr does not tell that its container was killed")
	}
	delCalls(t, c.name(), c.cniID(), 1)
}

// containerd holds the network namespace of a pod, whatever dies in it.
func testKilledPod(t *testing.T, m *machine) {
	p := m.runPod(t, "killed", nil, "pause")
	addCall(t, p.name(), p.id, p.addrs)
	_, pid := p.status(t)
	kill(t, pid)
	eventually(t, "containerd sees the sandbox gone", func() bool {
		s, _ := p.status(t)
		return s.State == cri.PodSandboxState_SANDBOX_NOTREADY
	})
	p.stop(t)
	p.remove(t)
	delCalls(t, p.name(), p.id, 2)
}

// A pod lives on while containerd is dead, and goes as any other afterwards.
func testKilledContainerd(t *testing.T, m *machine) {
	p := m.runPod(t, "survivor", nil, "pause")
	addCall(t, p.name(), p.id, p.addrs)
	m.restartContainerd(t)
	m.holds(t, 1)
	t.Logf("containerd killed and restarted; %s to host: %s", p.name(), p.exec(t, "ping", gateway4))
	p.stop(t)
	p.remove(t)
	delCalls(t, p.name(), p.id, 2)
}

// pingAll has a and b ping each other and the host, and the host ping them.
func pingAll(t *testing.T, a, b peer) {
	t.Helper()
	for _, way := range [][2]peer{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		for _, addr := range to.addresses() {
			t.Logf("%s to %s %s: %s", from.name(), to.name(), addr, from.exec(t, "ping", addr.String()))
			t.Logf("host to %s %s: %s", to.name(), addr, onHost(t, "ping", addr.String()).must(t))
		}
		for _, addr := range []string{gateway4, gateway6} {
			t.Logf("%s to host %s: %s", from.name(), addr, from.exec(t, "ping", addr))
		}
	}
}

// answer is what the program pod said on the host.
type answer struct {
	out string
	err error
}

func onHost(t *testing.T, args ...string) answer {
	var both bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, podFile, args...)
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	return answer{strings.TrimSpace(both.String()), err}
}

func (a answer) must(t *testing.T) string {
	t.Helper()
	if a.err != nil {
		t.Fatalf("on the host: %v: %s", a.err, a.out)
	}
	return a.out
}

func hasIPTables() bool {
	for _, name := range []string{"iptables", "ip6tables", "iptables-save", "ip6tables-save"} {
		if _, err := exec.LookPath(name); err != nil {
			return false
		}
	}
	return true
}

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// peer is a container or pod that a ping can start from and go to.
type peer interface {
	name() string
	addresses() []netip.Addr
	exec(t *testing.T, args ...string) string
}

// container is one of `ctr run --cni`.
type container struct {
	id    string
	addrs []netip.Addr
	cmd   *exec.Cmd
	m     *machine
}

// runContainer returns once the container's process has said its addresses.
// ctr stays beside it and calls DEL when it ends.
func (m *machine) runContainer(t *testing.T, id string) *container {
	t.Helper()
	c := &container{id: id, m: m}
	var stderr bytes.Buffer
	c.cmd = exec.CommandContext(t.Context(), "ctr", "run", "--rm", "--cni", "--cgroup", "/"+m.cgroup+"/"+id, image, id, "/pod", "sleep")
	c.cmd.Stderr = &stderr
	stdout, err := c.cmd.StdoutPipe()
	check(t, err)
	check(t, c.cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("ctr run %s: %v, %s", id, err, &stderr)
	}
	c.addrs = parseAddrs(t, strings.Fields(line))
	return c
}

func (c *container) name() string            { return "container " + c.id }
func (c *container) addresses() []netip.Addr { return c.addrs }

// cniID is the container's ID as ctr tells it to the plugins.
func (c *container) cniID() string { return "default-" + c.id }

func (c *container) exec(t *testing.T, args ...string) string {
	t.Helper()
	execID := strconv.FormatInt(time.Now().UnixNano(), 36)
	return c.m.ctr(t, append([]string{"task", "exec", "--exec-id", execID, c.id, "/pod"}, args...)...)
}

// pid is that of the container's process, on the host.
func (c *container) pid(t *testing.T) int {
	t.Helper()
	for line := range strings.Lines(c.m.ctr(t, "task", "list")) {
		if f := strings.Fields(line); f[0] == c.id {
			pid, err := strconv.Atoi(f[1])
			check(t, err)
			return pid
		}
	}
	t.Fatalf("ctr knows no task %s", c.id)
	return 0
}

// stop ends the container and waits until ctr has taken its network away.
func (c *container) stop(t *testing.T) {
	t.Helper()
	c.m.ctr(t, "task", "kill", "--signal", "SIGTERM", c.id)
	check(t, c.cmd.Wait())
}

// pod is a sandbox with one container, as kubelet has them made.
type pod struct {
	id     string
	config *cri.PodSandboxConfig
	addrs  []netip.Addr
	ctrID  string
	took   time.Duration // of RunPodSandbox
	m      *machine
}

// runPod makes a pod whose container runs the program with args.
func (m *machine) runPod(t *testing.T, name string, ports []*cri.PortMapping, args ...string) *pod {
	t.Helper()
	p := &pod{m: m, config: &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "e2e", Uid: "uid-" + name},
		Hostname: name, PortMappings: ports, DnsConfig: &cri.DNSConfig{Servers: []string{"192.0.2.53"}},
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: "/" + m.cgroup},
	}}
	start := time.Now()
	r, err := m.runtime.RunPodSandbox(patience(t), &cri.RunPodSandboxRequest{Config: p.config})
	check(t, err)
	p.id, p.took = r.PodSandboxId, time.Since(start)
	status, _ := p.status(t)
	p.addrs = parseAddrs(t, podIPs(status))
	p.startContainer(t, args)
	return p
}

func podIPs(s *cri.PodSandboxStatus) []string {
	ips := []string{s.Network.GetIp()}
	for _, ip := range s.Network.GetAdditionalIps() {
		ips = append(ips, ip.Ip)
	}
	return ips
}

func (p *pod) startContainer(t *testing.T, args []string) {
	t.Helper()
	c, err := p.m.runtime.CreateContainer(patience(t), &cri.CreateContainerRequest{
		PodSandboxId: p.id, SandboxConfig: p.config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: image},
			Command: append([]string{"/pod"}, args...),
		},
	})
	check(t, err)
	p.ctrID = c.ContainerId
	_, err = p.m.runtime.StartContainer(patience(t), &cri.StartContainerRequest{ContainerId: p.ctrID})
	check(t, err)
}

func (p *pod) name() string            { return "pod " + p.config.Metadata.Name }
func (p *pod) addresses() []netip.Addr { return p.addrs }

func (p *pod) exec(t *testing.T, args ...string) string {
	t.Helper()
	r, err := p.m.runtime.ExecSync(patience(t), &cri.ExecSyncRequest{ContainerId: p.ctrID, Cmd: append([]string{"/pod"}, args...), Timeout: 30})
	check(t, err)
	if r.ExitCode != 0 {
		t.Fatalf("%s: %v: exit status %d: %s", p.name(), args, r.ExitCode, r.Stderr)
	}
	return strings.TrimSpace(string(r.Stdout))
}

// status also returns the pid of the sandbox's process.
func (p *pod) status(t *testing.T) (*cri.PodSandboxStatus, int) {
	t.Helper()
	r, err := p.m.runtime.PodSandboxStatus(patience(t), &cri.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
	check(t, err)
	var info struct{ Pid int }
	check(t, json.Unmarshal([]byte(r.Info["info"]), &info))
	return r.Status, info.Pid
}

// stop has its network taken away.
func (p *pod) stop(t *testing.T) {
	t.Helper()
	_, err := p.m.runtime.StopPodSandbox(patience(t), &cri.StopPodSandboxRequest{PodSandboxId: p.id})
	check(t, err)
}

// remove has its network taken away once more.
func (p *pod) remove(t *testing.T) {
	t.Helper()
	_, err := p.m.runtime.RemovePodSandbox(patience(t), &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	check(t, err)
}

// parseAddrs returns the addresses; there must be one of each family.
func parseAddrs(t *testing.T, all []string) []netip.Addr {
	t.Helper()
	var addrs []netip.Addr
	for _, s := range all {
		a, err := netip.ParseAddr(s)
		check(t, err)
		addrs = append(addrs, a)
	}
	if len(addrs) != 2 || !slices.ContainsFunc(addrs, netip.Addr.Is4) || !slices.ContainsFunc(addrs, netip.Addr.Is6) {
		t.Fatalf("addresses %v, want one of IPv4 and one of IPv6", addrs)
	}
	return addrs
}

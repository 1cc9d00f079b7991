package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// agents is a cluster whose hosts find each other by etcd, which is a machine
// of its own beside them. A configuration is the same on all hosts but for the
// directories, as they share the test's files.
type agents struct {
	*cluster
	etcd  *lntest.Etcd
	procs map[string]*agentProc
}

// agentProc is a running ln-agent.
type agentProc struct {
	cmd  *exec.Cmd
	done chan error
	log  *tail
}

// tail keeps what an agent logs, for a test that fails.
type tail struct {
	mu   sync.Mutex
	text strings.Builder
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

const etcdHost = "etcd"

// newAgents makes hosts and etcd, and starts no agent yet.
func newAgents(t testing.TB, hosts int) *agents {
	t.Helper()
	return newAgentsOver(t, hosts, false)
}

// newAgentsOver is newAgents for hosts whose own addresses may be IPv6.
func newAgentsOver(t testing.TB, hosts int, is6 bool) *agents {
	t.Helper()
	c := newCluster(t, hosts, 1500, is6)
	program(t, "ln-agent")
	a := &agents{cluster: c, procs: map[string]*agentProc{}}
	at := pick(is6, "2001:db8:9::250", "192.0.2.250")
	c.join(etcdHost, at, 1500)
	a.etcd = lntest.NewEtcd(t, []string{at.String()})[0]
	a.startEtcd()
	t.Cleanup(a.tellLogs)
	return a
}

func (a *agents) startEtcd() {
	a.t.Helper()
	a.in(netnsPath(etcdHost), a.etcd.Start)
}

func (a *agents) tellLogs() {
	for host, p := range a.procs {
		if a.t.Failed() {
			a.t.Logf("ln-agent of %s:\n%s", host, p.log)
		}
	}
}

// agentConf is the conflist of network number net on a host.
func (a *agents) agentConf(net int, host string, keys map[string]any) string {
	a.t.Helper()
	return a.conf(net, host, merge(map[string]any{"nodes": nil}, keys))
}

func merge(all ...map[string]any) map[string]any {
	out := map[string]any{}
	for _, m := range all {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

func confDir(host string) string { return "/run/conf-" + host }

// configure puts a network's configuration into a host's directory.
func (a *agents) configure(net int, host string, keys map[string]any) {
	a.t.Helper()
	a.check(os.MkdirAll(confDir(host), 0o755))
	a.check(os.WriteFile(filepath.Join(confDir(host), fmt.Sprintf("net%d.conf", net)), []byte(a.agentConf(net, host, keys)), 0o600))
}

// start starts a host's agent.
func (a *agents) start(host string, args ...string) {
	a.t.Helper()
	p := &agentProc{log: &tail{}, done: make(chan error, 1)}
	p.cmd = a.agentCommand(host, args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.WaitDelay = time.Second // a wireguard-go that it started keeps the pipe
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	a.in(netnsPath(host), func() { a.check(p.cmd.Start()) })
	go func() { p.done <- p.cmd.Wait() }()
	if before := a.procs[host]; before != nil {
		_, _ = p.log.Write([]byte(before.log.String()))
	}
	a.procs[host] = p
	a.t.Cleanup(func() { _ = p.cmd.Process.Kill(); p.done <- <-p.done })
}

func (a *agents) agentCommand(host string, args ...string) *exec.Cmd {
	return exec.Command(program(a.t, "ln-agent"), append(args, "--endpoints", a.etcd.URL, "--conf-dir", confDir(host), "--state-dir", "/run/libnet-"+host, "--node-name", host)...)
}

// kill ends an agent without a word, and stop ends it as systemd does.
func (p *agentProc) kill(t testing.TB) { t.Helper(); _ = p.end(t, unix.SIGKILL) }

func (p *agentProc) stop(t testing.TB) {
	t.Helper()
	if err := p.end(t, unix.SIGTERM); err != nil {
		t.Errorf("ln-agent ended with %v\n%s", err, p.log)
	}
}

func (p *agentProc) end(t testing.TB, sig syscall.Signal) error {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	err := <-p.done
	p.done <- nil
	return err
}

// up configures network 0 on all hosts, starts their agents and waits until all
// know each other.
func (a *agents) up(keys map[string]any, args ...string) {
	a.t.Helper()
	for _, h := range a.hosts {
		a.configure(0, h, keys)
		a.start(h, args...)
	}
	for _, h := range a.hosts {
		a.awaitPeers(h, len(a.hosts)-1)
	}
}

// get asks a host's agent.
func (a *agents) get(host, path string) (body string, code int) {
	a.t.Helper()
	a.in(netnsPath(host), func() { body, code = a.getHere(path) })
	return body, code
}

// getHere asks the agent of the thread's own namespace.
func (a *agents) getHere(path string) (body string, code int) {
	a.t.Helper()
	c, err := net.DialTimeout("tcp", "127.0.0.1:9468", agentPatience)
	if err != nil {
		return "", 0 // not there yet
	}
	// The connection is of this thread's namespace.
	client := http.Client{Timeout: agentPatience, Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}}
	resp, err := client.Get("http://agent" + path)
	if err != nil {
		return "", 0
	}
	defer func() { _ = resp.Body.Close() }()
	data, _ := io.ReadAll(resp.Body)
	return string(data), resp.StatusCode
}

// metric returns a gauge's or counter's value; -1 if there is none.
func metric(body, name string) float64 {
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			v, _ := strconv.ParseFloat(rest, 64)
			return v
		}
	}
	return -1
}

// agentPatience is long: an agent notices by its next renewal, a third of --live-ttl later,
// that etcd was restored, and then begins anew.
const agentPatience = 90 * time.Second

// awaitAgent waits until a host's agent answers as asked.
func (a *agents) awaitAgent(host, path, what string, ok func(body string, code int) bool) {
	a.t.Helper()
	var body string
	var code int
	for end := time.Now().Add(agentPatience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if body, code = a.get(host, path); ok(body, code) {
			return
		}
	}
	a.t.Fatalf("%s: no %s in %s; %s: %d\n%s", host, what, agentPatience, path, code, ourMetrics(body))
}

// ourMetrics are those lines of metrics that are about networks.
func ourMetrics(body string) (lines string) {
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "go_") && !strings.HasPrefix(line, "process_") {
			lines += line
		}
	}
	return lines
}

// awaitPeers waits until a host reaches so many others, and all is well.
func (a *agents) awaitPeers(host string, n int) {
	a.t.Helper()
	a.awaitAgent(host, "/metrics", fmt.Sprint(n, " peers"), func(body string, _ int) bool {
		return metric(body, `libnet_agent_peers_programmed{network="net0"}`) == float64(n) && metric(body, `libnet_agent_network_ok{network="net0"}`) == 1
	})
}

func (a *agents) awaitHealth(host, says string) {
	a.t.Helper()
	a.awaitAgent(host, "/healthz", "health "+says, func(body string, code int) bool {
		return strings.Contains(body, says) && (code == 200) == (says == "ok")
	})
}

// attach adds a container to network 0, by the configuration of the agent.
func (a *agents) attach(host, name string, keys map[string]any) container {
	a.t.Helper()
	p := container{host: host, netns: a.netns(name)}
	p.call = attachment("overlay-ln", name, p.netns, a.agentConf(0, host, keys))
	for _, addr := range parseResult(a.t, a.mustOn(host, p.call.as("ADD")).stdout).addresses(a.t) {
		p.addresses = append(p.addresses, addr.Addr())
	}
	return p
}

// tryOn runs a call on a host.
func (a *agents) tryOn(host string, call call) (r reply) {
	a.t.Helper()
	a.in(netnsPath(host), func() { r = a.run(call) })
	return r
}

// pingAll wants each container to reach all others by all addresses.
func (a *agents) pingAll(all ...container) {
	a.t.Helper()
	for _, from := range all {
		for _, to := range all {
			for _, addr := range to.addresses {
				a.ping(from.netns, addr)
			}
		}
	}
}

// nodeFile is what a host's agent wrote.
func (a *agents) nodeFile(host string) (f struct {
	Blocks []string
	Nodes  []struct{ Name string }
	Until  int64
}) {
	a.t.Helper()
	data, err := os.ReadFile("/run/libnet-" + host + "/overlay/net0.json")
	a.check(err)
	a.check(json.Unmarshal(data, &f))
	return f
}

package kubernetes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// host is a network namespace with an agent, on the bridge of the plane.
type host struct {
	name, address string
	dir           string
	kubeconfig    string
	subnets       string // of the network pods, as JSON
	more          string // further keys of overlay-ln, as configured last
	agent         *exec.Cmd
	flags         []string // of the agent, more
	args          string   // CNI_ARGS of the next calls
	containers    int
}

// subnets are those of the cluster.
const subnets = `["10.244.0.0/16","fd66:244::/48"]`

// newHost makes a host.
func newHost(t *testing.T, p *plane, name, address, token string) *host {
	t.Helper()
	h := &host{subnets: subnets, name: name, address: address, dir: t.TempDir(), kubeconfig: p.kubeconfig(t, name+".kubeconfig", token)}
	h.boot(t)
	t.Cleanup(func() { run(t, "ip", "netns", "del", name) })
	for _, sub := range []string{"net.d", "state", "leases"} {
		check(t, os.Mkdir(filepath.Join(h.dir, sub), 0o755))
	}
	return h
}

// run runs a program in the host.
func (h *host) run(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, "ip", append([]string{"netns", "exec", h.name}, args...)...)
}

// conf is the configuration of the network pods. more are further keys of overlay-ln.
func (h *host) conf(more string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","plugins":[{"type":"overlay-ln","subnet":%s,"stateDir":%q,"ipam":{"type":"ipam-ln","dataDir":%q}%s}]}`,
		h.subnets, filepath.Join(h.dir, "state"), filepath.Join(h.dir, "leases"), more)
}

// configure puts the configuration in place, whole.
func (h *host) configure(t *testing.T, more string) {
	t.Helper()
	h.more = more
	path := filepath.Join(h.dir, "net.d", "10-pods.conflist")
	check(t, os.WriteFile(path+".new", []byte(h.conf(more)), 0o600))
	check(t, os.Rename(path+".new", path))
}

// startAgent starts ln-agent.
func (h *host) startAgent(t *testing.T) {
	t.Helper()
	args := []string{"netns", "exec", h.name, bin(t, "ln-agent"), "--kubernetes", "--kubeconfig", h.kubeconfig, "--node-name", h.name,
		"--conf-dir", filepath.Join(h.dir, "net.d"), "--state-dir", filepath.Join(h.dir, "state"), "--log-level", "debug"}
	h.agent = start(t, h.dir, "/sbin/ip", append(args, h.flags...)...)
}

// killAgent ends it without a word.
func (h *host) killAgent(t *testing.T) {
	t.Helper()
	check(t, h.agent.Process.Signal(unix.SIGKILL)) // ip has become it
	_ = h.agent.Wait()
}

// healthy waits until the agent has nothing to complain about.
func (h *host) healthy(t *testing.T) {
	t.Helper()
	last := ""
	defer func() {
		if t.Failed() {
			t.Logf("the agent of %s said last: %q", h.name, last)
		}
	}()
	eventually(t, "the agent of "+h.name+" is well", func() bool { last = h.health(); return last == "ok\n" })
}

func (h *host) health() string { return h.get("/healthz") }

func (h *host) get(path string) string {
	out, _ := exec.Command("ip", "netns", "exec", h.name, "curl", "-s", "--noproxy", "*", "http://127.0.0.1:9468"+path).Output()
	return string(out)
}

// nodes are the hosts that the node file of the network pods names.
func (h *host) nodes() (names []string) {
	data, err := os.ReadFile(filepath.Join(h.dir, "state/overlay/pods.json"))
	var f struct {
		Nodes []struct{ Name string }
	}
	if err != nil || json.Unmarshal(data, &f) != nil {
		return nil
	}
	for _, n := range f.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// container is one on a host.
type container struct {
	host      *host
	ns        string
	addresses []string // IPv4, IPv6
}

// add makes a container, and attaches it to the network pods.
func (h *host) add(t *testing.T) container {
	t.Helper()
	c := h.attach(t, h.cni)
	t.Cleanup(func() { _, _ = h.cni("DEL", c.ns) })
	return c
}

// attach makes a container, and attaches it by a call of a plugin.
func (h *host) attach(t *testing.T, call func(verb, ns string) ([]byte, error)) container {
	t.Helper()
	h.containers++
	c := container{host: h, ns: fmt.Sprintf("%s-%d", h.name, h.containers)}
	run(t, "ip", "netns", "add", c.ns)
	t.Cleanup(func() { run(t, "ip", "netns", "del", c.ns) })
	out, err := call("ADD", c.ns)
	if err != nil {
		t.Fatalf("ADD on %s: %v: %s", h.name, err, out)
	}
	var result struct{ IPs []struct{ Address string } }
	check(t, json.Unmarshal(out, &result))
	for _, ip := range result.IPs {
		address, _, _ := strings.Cut(ip.Address, "/")
		c.addresses = append(c.addresses, address)
	}
	return c
}

// cni calls overlay-ln as a runtime does.
func (h *host) cni(verb, ns string) ([]byte, error) {
	var list struct {
		Name    string
		Plugins []map[string]any
	}
	if err := json.Unmarshal([]byte(h.conf(h.more)), &list); err != nil {
		return nil, err
	}
	conf := list.Plugins[0]
	conf["cniVersion"], conf["name"] = "1.1.0", list.Name
	stdin, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("ip", "netns", "exec", h.name, filepath.Join(os.Getenv("BIN"), "overlay-ln"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+ns, "CNI_NETNS=/run/netns/"+ns, "CNI_IFNAME=eth0", "CNI_PATH="+os.Getenv("BIN"), "CNI_ARGS="+h.args)
	cmd.Stdin = strings.NewReader(string(stdin))
	return cmd.Output()
}

// reaches says whether a container reaches another one by all of its addresses.
func (c container) reaches(other container) error {
	for _, a := range other.addresses {
		if out, err := exec.Command("ip", "netns", "exec", c.ns, "busybox", "ping", "-c", "1", "-W", "2", a).CombinedOutput(); err != nil {
			return fmt.Errorf("%s does not reach %s: %s", c.ns, a, out)
		}
	}
	return nil
}

func bin(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(os.Getenv("BIN"), name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: want BIN to be where make build puts its programs", err)
	}
	return path
}

// annotation is one of a Node; empty: there is none.
func (p *plane) annotation(t *testing.T, node, key string) string {
	t.Helper()
	meta, _ := p.do(t, http.MethodGet, "/api/v1/nodes/"+node, "", nil)["metadata"].(map[string]any)
	all, _ := meta["annotations"].(map[string]any)
	text, _ := all[key].(string)
	return text
}

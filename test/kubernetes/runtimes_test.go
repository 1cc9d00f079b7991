package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// caller is how a container runtime calls plugins, as its calls were recorded, or as its source says.
type caller struct {
	name, cniVersion string
	first            []string // verbs without a container that it begins with
	args             string   // CNI_ARGS
	ports            object   // one of runtimeConfig.portMappings
	config           object   // the rest of runtimeConfig
	networks         int      // that a container is attached to, with the same ports
	chain            bool     // ports by a second plugin
	check            bool     // CHECK right after ADD
	delFirst         bool     // DEL before ADD
	bareDEL          bool     // DEL without a namespace
}

const podArgs = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-a;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=uid-a"

var callers = []caller{
	{name: "containerd 1.6", cniVersion: "1.0.0", args: podArgs, ports: object{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}, chain: true, networks: 1},
	{name: "containerd 2.4", cniVersion: "1.1.0", first: []string{"STATUS", "STATUS"}, args: podArgs, ports: object{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}, networks: 1},
	{name: "CRI-O 1.36", cniVersion: "1.1.0", first: []string{"VERSION", "STATUS", "GC"}, args: podArgs, config: object{"aliases": object{"net0": []string{"web"}}}, networks: 1, check: true},
	{name: "podman 4.3", cniVersion: "0.4.0", first: []string{"VERSION"}, args: "IgnoreUnknown=1;K8S_POD_NAME=webb", ports: object{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}, config: object{"aliases": object{"net0": []string{"web"}}}, networks: 2},
	{name: "nerdctl 2", cniVersion: "1.0.0", args: "IgnoreUnknown=1", ports: object{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}, networks: 2, delFirst: true, bareDEL: true},
}

// Containers of other runtimes start, are reached and stop, by the calls that these make; nothing is left.
func TestRuntimes(t *testing.T) {
	for _, c := range callers {
		t.Run(c.name, func(t *testing.T) {
			r := newReplay(t, c)
			for _, verb := range c.first {
				r.must(t, verb, 0, "")
			}
			for n := range c.networks {
				if c.delFirst {
					r.must(t, "DEL", n, "")
				}
				r.add(t, n)
			}
			r.row(t, map[int]string{1: "ADD", 2: "ADD to two networks, with the same ports"}[c.networks]+", the result in its version", "the container has what the result says")
			if c.check {
				r.must(t, "CHECK", 0, r.netns)
				r.row(t, "CHECK right after ADD", "no difference")
			}
			if c.ports != nil {
				r.serve(t)
				eventually(t, "the published port answers", func() bool { return r.asks() })
				r.row(t, "a published port, asked from outside", "answers")
			}
			netns := r.netns
			if c.bareDEL {
				netns = ""
			}
			for range 2 {
				for n := range c.networks {
					r.must(t, "DEL", n, netns)
				}
			}
			r.clean(t)
			r.row(t, "DEL, twice", "nothing is left")
		})
	}
}

// replay is a host on which a runtime calls plugins.
type replay struct {
	caller
	host, out, container, netns, dir string
	results                          []json.RawMessage // of ADD, by network
	addresses                        []string
}

// newReplay makes a host, a client outside of it, and a container that is attached to nothing.
func newReplay(t *testing.T, c caller) *replay {
	t.Helper()
	id := fmt.Sprint(os.Getpid())
	r := &replay{caller: c, host: "rth-" + id, out: "rto-" + id, container: "rtc-" + id, dir: t.TempDir(), results: make([]json.RawMessage, c.networks)}
	r.netns = "/run/netns/" + r.container
	for _, ns := range []string{r.host, r.out, r.container} {
		run(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { run(t, "ip", "netns", "del", ns) })
		run(t, "ip", "-n", ns, "link", "set", "lo", "up")
	}
	run(t, "ip", "-n", r.host, "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", r.out)
	for ns, link := range map[string][2]string{r.host: {"up0", "198.51.100.1/24"}, r.out: {"eth0", "198.51.100.2/24"}} {
		run(t, "ip", "-n", ns, "addr", "add", link[1], "dev", link[0])
		run(t, "ip", "-n", ns, "link", "set", link[0], "up")
	}
	return r
}

// conf is what a plugin of a network is given.
func (r *replay) conf(plugin string, n int) object {
	conf := object{"cniVersion": r.cniVersion, "name": fmt.Sprint("net", n), "type": plugin, "stateDir": filepath.Join(r.dir, "state")}
	runtime := maps.Clone(r.config)
	if runtime == nil {
		runtime = object{}
	}
	capabilities := object{"aliases": true}
	if r.ports != nil && (plugin == "portmap-ln") == r.chain {
		runtime["portMappings"], capabilities["portMappings"] = []object{r.ports}, true
	}
	if plugin == "bridge-ln" {
		conf["bridge"], conf["gatewayMode"], conf["names"] = fmt.Sprint("cni", n), "nat", true
		conf["ipam"] = object{"type": "ipam-ln", "dataDir": filepath.Join(r.dir, "leases"), "ranges": [][]object{{{"subnet": fmt.Sprintf("10.88.%d.0/24", n)}}}}
	}
	conf["runtimeConfig"], conf["capabilities"] = runtime, capabilities
	return conf
}

// plugins are those of a network, in the order in which a verb calls them.
func (r *replay) plugins(verb string) []string {
	all := []string{"bridge-ln"}
	if r.chain {
		all = append(all, "portmap-ln")
	}
	if verb == "DEL" && r.chain {
		all[0], all[1] = all[1], all[0]
	}
	return all
}

// must calls the plugins of a network, which have to succeed.
func (r *replay) must(t *testing.T, verb string, n int, netns string) {
	t.Helper()
	previous := r.results[n]
	for _, plugin := range r.plugins(verb) {
		conf := r.conf(plugin, n)
		if verb == "VERSION" {
			conf = object{"cniVersion": r.cniVersion}
		}
		if verb == "GC" {
			conf["cni.dev/attachments"], conf["cni.dev/valid-attachments"] = nil, nil
		}
		if len(previous) > 0 {
			conf["prevResult"] = previous
		}
		stdin, err := json.Marshal(conf)
		check(t, err)
		cmd := exec.Command("ip", "netns", "exec", r.host, bin(t, plugin))
		cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_PATH="+os.Getenv("BIN"))
		if verb == "ADD" || verb == "CHECK" || verb == "DEL" {
			cmd.Env = append(cmd.Env, "CNI_CONTAINERID=c1", "CNI_NETNS="+netns, fmt.Sprint("CNI_IFNAME=eth", n), "CNI_ARGS="+r.args)
		}
		cmd.Stdin = strings.NewReader(string(stdin))
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s of %s for network %d: %v: %s", verb, plugin, n, err, out)
		}
		if verb == "ADD" {
			previous = out
		}
	}
	if verb == "ADD" {
		r.results[n] = previous
	}
}

// add attaches the container, and compares the result with what the container has.
func (r *replay) add(t *testing.T, n int) {
	t.Helper()
	r.must(t, "ADD", n, r.netns)
	var result struct {
		CNIVersion string
		Interfaces []struct{ Name, Sandbox string }
		IPs        []struct {
			Version, Address string
			Interface        *int
		}
	}
	check(t, json.Unmarshal(r.results[n], &result))
	if result.CNIVersion != r.cniVersion || len(result.IPs) != 1 || result.IPs[0].Interface == nil {
		t.Fatalf("result: %s", r.results[n])
	}
	ip, link := result.IPs[0], result.Interfaces[*result.IPs[0].Interface]
	if link.Name != fmt.Sprint("eth", n) || link.Sandbox != r.netns || (r.cniVersion == "0.4.0") != (ip.Version == "4") {
		t.Errorf("result: %s", r.results[n])
	}
	if has := run(t, "ip", "-n", r.container, "-o", "addr", "show", link.Name); !strings.Contains(has, " "+ip.Address+" ") {
		t.Errorf("the container has %q, the result says %s", has, ip.Address)
	}
	address, _, _ := strings.Cut(ip.Address, "/")
	r.addresses = append(r.addresses, address)
}

// serve has the container answer HTTP.
func (r *replay) serve(t *testing.T) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(r.dir, "index.html"), []byte("here"), 0o600))
	start(t, r.dir, "/sbin/ip", "netns", "exec", r.container, "busybox", "httpd", "-f", "-p", "80", "-h", r.dir)
}

func (r *replay) asks() bool {
	out, _ := exec.Command("ip", "netns", "exec", r.out, "curl", "-s", "-m", "5", "--noproxy", "*", "http://198.51.100.1:8080/").Output()
	return string(out) == "here"
}

// clean says that no link, no lease and no rule of the container is left.
func (r *replay) clean(t *testing.T) {
	t.Helper()
	if links := run(t, "ip", "-n", r.host, "-o", "link", "show", "type", "veth"); strings.Count(links, "\n") != 1 { // up0
		t.Errorf("links are left: %s", links)
	}
	if links := run(t, "ip", "-n", r.container, "-o", "link"); strings.Count(links, "\n") != 1 { // lo
		t.Errorf("links of the container are left: %s", links)
	}
	rules := run(t, "ip", "netns", "exec", r.host, "nft", "list", "ruleset")
	for n, a := range r.addresses {
		if strings.Contains(rules, a) {
			t.Errorf("rules of %s are left: %s", a, rules)
		}
		if _, err := os.Stat(filepath.Join(r.dir, "leases", fmt.Sprint("net", n), a)); !os.IsNotExist(err) {
			t.Errorf("the lease of %s is left (%v)", a, err)
		}
	}
}

// row adds a line to the page of docs, if one is being written.
func (r *replay) row(t *testing.T, scenario, outcome string) {
	t.Helper()
	path := os.Getenv("RUNTIMES")
	if path == "" || t.Failed() {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(t, err)
	_, err = fmt.Fprintf(f, "| %s | %s | %s | %s |\n", r.name, r.cniVersion, scenario, outcome)
	check(t, err)
	check(t, f.Close())
}

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// host is what looks like a machine of its own to the plugins.
type host struct {
	t testing.TB
}

// newHost moves the test into a host. Only the test's own goroutine is there.
func newHost(t testing.TB) *host {
	t.Helper()
	for _, name := range []string{"bridge-ln", "ipam-ln", "cnitool", "host-local"} {
		program(t, name)
	}
	lntest.IsolateHost(t)
	return &host{t}
}

// dirs returns where our plugins, and cnitool and the reference plugins, are.
func dirs(t testing.TB) (bin, tools string) {
	t.Helper()
	return absEnv(t, "BIN", "../../bin"), absEnv(t, "TOOLS", "../../.cache/bin")
}

func absEnv(t testing.TB, key, missing string) string {
	t.Helper()
	dir := os.Getenv(key)
	if dir == "" {
		dir = missing
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// cniPath is the CNI_PATH of all tests.
func cniPath(t testing.TB) string {
	bin, tools := dirs(t)
	return bin + ":" + tools
}

// program returns the path of a plugin or tool.
func program(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range filepath.SplitList(cniPath(t)) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	t.Fatalf("no %s in %s: run make build tools", name, cniPath(t))
	return ""
}

// netns makes a network namespace and returns its path.
func (h *host) netns(name string) string {
	h.t.Helper()
	path := netnsPath(name)
	lntest.BindNetns(h.t, path)
	return path
}

// loseNetns removes a network namespace, unless another process holds it.
func (h *host) loseNetns(name string) {
	h.t.Helper()
	h.check(unix.Unmount(netnsPath(name), unix.MNT_DETACH))
	h.check(os.Remove(netnsPath(name)))
}

func netnsPath(name string) string { return "/run/netns/" + name }

// call is one call of a plugin.
type call struct {
	plugin  string
	command string
	cid     string
	netns   string
	ifName  string
	args    string
	env     []string // more of it; wins over the above
	stdin   string
}

// attachment is a call for one container's eth0.
func attachment(plugin, cid, netns, conf string) call {
	return call{plugin: plugin, cid: cid, netns: netns, ifName: "eth0", stdin: conf}
}

func (c call) as(command string) call { c.command = command; return c }

func (c call) with(conf string) call { c.stdin = conf; return c }

func (c call) environ(t testing.TB) []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND=" + c.command, "CNI_PATH=" + cniPath(t)}
	for _, v := range []struct{ key, value string }{
		{"CNI_CONTAINERID", c.cid}, {"CNI_NETNS", c.netns}, {"CNI_IFNAME", c.ifName}, {"CNI_ARGS", c.args},
	} {
		if v.value != "" {
			env = append(env, v.key+"="+v.value)
		}
	}
	return append(env, c.env...)
}

// reply is what a plugin answers.
type reply struct {
	stdout string
	stderr string
	code   uint // of the error; 0: success
	msg    string
}

// run calls a plugin.
func (h *host) run(c call) reply {
	h.t.Helper()
	return h.runProgram(program(h.t, c.plugin), c)
}

// runProgram calls a plugin by its path.
func (h *host) runProgram(path string, c call) reply {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(path)
	cmd.Env = c.environ(h.t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.stdin), &stdout, &stderr
	return h.reply(c, cmd.Run(), stdout.String(), stderr.String())
}

// reply holds what came against the protocol: an error is JSON on stdout with
// a code and a message, and exit status 1.
func (h *host) reply(c call, err error, stdout, stderr string) reply {
	h.t.Helper()
	r := reply{stdout: stdout, stderr: stderr}
	if err == nil {
		return r
	}
	var exit *exec.ExitError
	var said struct {
		CNIVersion string
		Code       uint
		Msg        string
		Details    string
	}
	if !errors.As(err, &exit) || json.Unmarshal([]byte(stdout), &said) != nil || said.Code == 0 || said.Msg == "" {
		h.t.Fatalf("%s %s: %v, and no error as the spec wants it\nstdout: %s\nstderr: %s", c.plugin, c.command, err, stdout, stderr)
	}
	r.code, r.msg = said.Code, strings.TrimSpace(said.Msg+"; "+said.Details)
	return r
}

// must calls a plugin and fails the test unless it succeeds.
func (h *host) must(c call) reply {
	h.t.Helper()
	r := h.run(c)
	if r.code != 0 {
		h.t.Fatalf("%s %s %s: code %d: %s", c.plugin, c.command, c.cid, r.code, r.msg)
	}
	if c.command != "ADD" && c.command != "VERSION" && r.stdout != "" {
		h.t.Fatalf("%s %s %s: printed %q, want nothing", c.plugin, c.command, c.cid, r.stdout)
	}
	if r.stderr != "" {
		h.t.Errorf("%s %s %s: wrote to stderr: %q", c.plugin, c.command, c.cid, r.stderr)
	}
	return r
}

// result is a CNI result of any version, as far as the tests look at it.
type result struct {
	Interfaces []struct {
		Name, Mac, Sandbox string
		MTU                int
	}
	IPs []struct {
		Version, Address, Gateway string
		Interface                 *int
	}
	Routes []struct{ Dst, GW string }
	DNS    struct{ Nameservers, Search []string }
	IP4    *oldIP
	IP6    *oldIP
}

type oldIP struct {
	IP, Gateway string
	Routes      []struct{ Dst, GW string }
}

func parseResult(t testing.TB, stdout string) result {
	t.Helper()
	var r result
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("result: %v\n%s", err, stdout)
	}
	return r
}

// addresses returns the addresses of the result, with the length of their
// subnets.
func (r result) addresses(t testing.TB) []netip.Prefix {
	t.Helper()
	var all []string
	for _, ip := range r.IPs {
		all = append(all, ip.Address)
	}
	for _, ip := range []*oldIP{r.IP4, r.IP6} {
		if ip != nil {
			all = append(all, ip.IP)
		}
	}
	var out []netip.Prefix
	for _, s := range all {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			t.Fatalf("result: %v", err)
		}
		out = append(out, p)
	}
	return out
}

// edit returns the JSON object conf with keys set, or removed where the value
// is nil. A key "ipam.subnet" is one inside of another.
func edit(t testing.TB, conf string, keys map[string]any) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(conf), &m); err != nil {
		t.Fatalf("%v\n%s", err, conf)
	}
	for key, value := range keys {
		at := m
		path := strings.Split(key, ".")
		if strings.HasPrefix(key, "cni.dev/") {
			path = []string{key}
		}
		for _, k := range path[:len(path)-1] {
			sub, ok := at[k].(map[string]any)
			if !ok {
				sub = map[string]any{}
				at[k] = sub
			}
			at = sub
		}
		last := path[len(path)-1]
		if at[last] = value; value == nil {
			delete(at, last)
		}
	}
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

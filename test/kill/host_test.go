package kill

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// netns is the container's network namespace, and other that of a neighbour.
const (
	netns = "/run/netns/c1"
	other = "/run/netns/c0"
)

// plugin is one of a chain, with its configuration.
type plugin struct{ name, conf string }

// host is what looks like a machine of its own to the plugins of a chain.
type host struct {
	t     *testing.T
	chain []plugin
}

// newHost moves the test into a host. Only the test's own goroutine is there.
func newHost(t *testing.T, chain []plugin) *host {
	t.Helper()
	for _, p := range chain {
		program(t, p.name)
	}
	lntest.IsolateHost(t)
	lntest.BindNetns(t, netns)
	lntest.BindNetns(t, other)
	h := &host{t, chain}
	h.underlay()
	for _, path := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} { // ADD leaves these on
		h.check(os.WriteFile("/proc/sys/net/"+path, []byte("1"), 0o644))
	}
	return h
}

// underlay is by what the host reaches the others of a network that spans hosts.
func (h *host) underlay() {
	h.t.Helper()
	uplink := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "uplink"}}
	addr, err := netlink.ParseAddr("192.0.2.1/24")
	h.check(err)
	h.check(netlink.LinkAdd(uplink))
	h.check(errors.Join(netlink.AddrAdd(uplink, addr), netlink.LinkSetUp(uplink)))
}

func (h *host) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// program returns the path of a plugin.
func program(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("BIN")
	if dir == "" {
		dir = "../../bin"
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v: run make build", err)
	}
	return path
}

// reply is what a plugin answers.
type reply struct {
	status unix.WaitStatus
	stdout string
	stderr string
	took   time.Duration
}

// err says why a call did not succeed.
func (r reply) err() error {
	if r.status.Exited() && r.status.ExitStatus() == 0 {
		return nil
	}
	return fmt.Errorf("status %#x: %s%s", int(r.status), r.stdout, r.stderr)
}

// killed reports whether the plugin was.
func (r reply) killed() bool { return r.status.Signaled() && r.status.Signal() == unix.SIGKILL }

// said reports whether the plugin failed as the protocol has it: with status 1
// and an error that has a code and a message.
func (r reply) said() bool {
	var e struct {
		Code uint
		Msg  string
	}
	return r.status.ExitStatus() == 1 && json.Unmarshal([]byte(r.stdout), &e) == nil && e.Code > 0 && e.Msg != ""
}

// message is what went wrong, in short.
func (r reply) message() string {
	var e struct{ Msg, Details string }
	_ = json.Unmarshal([]byte(r.stdout), &e)
	return strings.TrimSpace(e.Msg + " " + e.Details)
}

// call is one call of a plugin for a container.
type call struct {
	command, id, netns string
	ifName             string   // empty: eth0
	args               []string // of the program
}

// run calls a plugin; visit, if any, sees every point of it.
func (h *host) run(p plugin, c call, stdin string, visit func(*tracer, point)) reply {
	h.t.Helper()
	var stderr bytes.Buffer
	in, out := h.file(stdin), h.file("")
	cmd := exec.Command(program(h.t, p.name), c.args...)
	// The runtime's own threads would make calls at any time.
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"CNI_COMMAND=" + c.command, "CNI_CONTAINERID=" + c.id, "CNI_NETNS=" + c.netns, "CNI_IFNAME=" + cmp.Or(c.ifName, "eth0"),
		"CNI_PATH=" + filepath.Dir(cmd.Path), "GODEBUG=containermaxprocs=0,updatemaxprocs=0,asyncpreemptoff=1",
	}
	cmd.Stdin, cmd.Stdout = in, out
	var r reply
	start := time.Now()
	if visit == nil {
		cmd.Stderr = &stderr
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			h.t.Fatal(err)
		}
		r.status, r.stderr = unix.WaitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)), stderr.String()
	} else {
		errs := h.file("")
		cmd.Stderr, cmd.SysProcAttr = errs, &unix.SysProcAttr{Ptrace: true}
		h.check(cmd.Start())
		tr := &tracer{visit: visit}
		var err error
		r.status, err = tr.follow(cmd.Process.Pid)
		h.check(errors.Join(err, cmd.Process.Release()))
		r.stderr = h.content(errs)
	}
	r.stdout, r.took = h.content(out), time.Since(start)
	h.check(in.Close())
	return r
}

// file makes a file without a name.
func (h *host) file(content string) *os.File {
	h.t.Helper()
	fd, err := unix.MemfdCreate("kill", unix.MFD_CLOEXEC)
	h.check(err)
	f := os.NewFile(uintptr(fd), "memory")
	_, err = f.WriteString(content)
	h.check(err)
	_, err = f.Seek(0, 0)
	h.check(err)
	return f
}

// content returns what is in a file, and closes it.
func (h *host) content(f *os.File) string {
	h.t.Helper()
	info, err := f.Stat()
	h.check(err)
	data := make([]byte, info.Size())
	_, err = f.ReadAt(data, 0)
	h.check(errors.Join(err, f.Close()))
	return string(data)
}

// with adds a key to a configuration.
func with(conf, key, value string) string {
	return fmt.Sprintf("%s,%q:%s}", strings.TrimSuffix(conf, "}"), key, value)
}

var (
	c1 = call{id: "c1", netns: netns}
	c0 = call{id: "c0", netns: other}
)

// add runs ADD of the chain and returns the result.
func (h *host) add(c call) (result string, err error) {
	h.t.Helper()
	return h.addFrom(c, 0, "")
}

// addFrom runs ADD of the chain from its i-th plugin on.
func (h *host) addFrom(c call, i int, prev string) (result string, err error) {
	h.t.Helper()
	c.command = "ADD"
	for _, p := range h.chain[i:] {
		conf := p.conf
		if prev != "" {
			conf = with(conf, "prevResult", prev)
		}
		r := h.run(p, c, conf, nil)
		if err := r.err(); err != nil {
			return "", fmt.Errorf("%s ADD: %w", p.name, err)
		}
		prev = r.stdout
	}
	return prev, nil
}

// checkAll runs CHECK of the chain.
func (h *host) checkAll(c call, result string) error {
	h.t.Helper()
	c.command = "CHECK"
	for _, p := range h.chain {
		if err := h.run(p, c, with(p.conf, "prevResult", result), nil).err(); err != nil {
			return fmt.Errorf("%s CHECK: %w", p.name, err)
		}
	}
	return nil
}

// del runs DEL of the chain. A runtime that saw ADD fail has no result.
func (h *host) del(c call, result string) error {
	h.t.Helper()
	c.command = "DEL"
	for i := len(h.chain) - 1; i >= 0; i-- {
		conf := h.chain[i].conf
		if result != "" {
			conf = with(conf, "prevResult", result)
		}
		if err := h.run(h.chain[i], c, conf, nil).err(); err != nil {
			return fmt.Errorf("%s DEL: %w", h.chain[i].name, err)
		}
	}
	return nil
}

// collect runs GC of the chain: no attachment is valid.
func (h *host) collect() error {
	h.t.Helper()
	for _, p := range h.chain {
		if err := h.run(p, call{command: "GC"}, with(p.conf, "cni.dev/valid-attachments", "[]"), nil).err(); err != nil {
			return fmt.Errorf("%s GC: %w", p.name, err)
		}
	}
	return nil
}

// datagram sends a packet to a published port, so that conntrack knows a flow
// by it.
func (h *host) datagram() {
	h.t.Helper()
	for _, to := range []unix.Sockaddr{
		&unix.SockaddrInet4{Port: udpPort, Addr: gateway4.As4()},
		&unix.SockaddrInet6{Port: udpPort, Addr: gateway6.As16()},
	} {
		family := unix.AF_INET
		if _, is6 := to.(*unix.SockaddrInet6); is6 {
			family = unix.AF_INET6
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		h.check(err)
		h.check(errors.Join(unix.Sendto(fd, []byte("x"), 0, to), unix.Close(fd)))
	}
}

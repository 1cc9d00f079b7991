package storm

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
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
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// host is what looks like a machine of its own to the plugins. Only the test's
// own goroutine is there.
type host struct {
	t   testing.TB
	bin string
}

// newHost moves the test into a host with an interface "uplink".
func newHost(t testing.TB) host {
	t.Helper()
	bin := os.Getenv("BIN")
	if bin == "" {
		bin = "../../bin"
	}
	bin, err := filepath.Abs(bin)
	h := host{t, bin}
	h.check(err)
	for _, name := range []string{"bridge-ln", "overlay-ln", "ipam-ln", "portmap-ln", "ln-agent"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Fatalf("%v: run make build", err)
		}
	}
	lntest.IsolateHost(t)
	h.uplink()
	return h
}

// hostIPs are addresses of the host that ports are published at.
var hostIPs = []string{"192.0.2.1", "192.0.2.9"}

func (h host) uplink() {
	h.t.Helper()
	h.check(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink"}, PeerName: "away"}))
	l, err := netlink.LinkByName("uplink")
	h.check(err)
	for _, ip := range hostIPs {
		a, err := netlink.ParseAddr(ip + "/24")
		h.check(err)
		h.check(netlink.AddrAdd(l, a))
	}
}

// The key pair of an encrypted network.
const (
	keyFile    = "/run/key"
	privateKey = "kHhU52Z38GjrPXtHfys0+Ol6K+5HQcaz3Itj5DottHw="
	publicKey  = "pW95u9HriZYjurz5vFQxHNSX351BCQBjhge4QSxNgD0="
)

// withKey writes the host's key for a network, and has ln-agent run wireguard-go for it where the
// kernel has no WireGuard.
func (h host) withKey(conf string) {
	h.t.Helper()
	h.check(os.WriteFile(keyFile, []byte(privateKey+"\n"), 0o600))
	if wireguard.Supported() == nil {
		return
	}
	const confs = "/run/confs"
	h.check(os.Mkdir(confs, 0o700))
	h.check(os.WriteFile(confs+"/sealed.conf", []byte(conf), 0o600))
	agent := exec.Command(filepath.Join(h.bin, "ln-agent"), "wireguard", "--conf-dir", confs)
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	h.check(agent.Start())
	h.t.Cleanup(func() { _, _ = agent.Process.Kill(), agent.Wait() })
	var last *process
	if !lntest.Await(time.Minute, func() bool {
		last = h.start("overlay-ln", []string{"CNI_COMMAND=STATUS"}, conf)
		last.wait()
		return last.cmd.ProcessState.ExitCode() == 0
	}) {
		h.t.Fatalf("no wireguard-go: %s", &last.stdout)
	}
}

func (h host) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func netnsPath(name string) string { return "/run/netns/" + name }

func (h host) newNetns(name string) {
	h.t.Helper()
	lntest.BindNetns(h.t, netnsPath(name))
}

func (h host) loseNetns(name string) {
	h.t.Helper()
	h.check(unix.Unmount(netnsPath(name), unix.MNT_DETACH))
	h.check(os.Remove(netnsPath(name)))
}

// process is one run of a plugin.
type process struct {
	plugin         string
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	killed         bool
}

// start starts a plugin; wait, which may be called by any goroutine, ends it.
func (h host) start(plugin string, env []string, stdin string) *process {
	h.t.Helper()
	p := &process{plugin: plugin, cmd: exec.Command(filepath.Join(h.bin, plugin))}
	p.cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH=" + h.bin}, env...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = strings.NewReader(stdin), &p.stdout, &p.stderr
	h.check(p.cmd.Start())
	return p
}

func (p *process) wait() {
	_ = p.cmd.Wait() // the state tells
	p.killed = p.cmd.ProcessState.ExitCode() < 0
}

// failure is the error that a plugin printed; code 0: none.
type failure struct {
	Code         uint
	Msg, Details string
}

// failure returns what went wrong, and an error for what is against the
// protocol.
func (p *process) failure() (failure, error) {
	var f failure
	switch {
	case p.killed:
		return f, nil
	case p.stderr.Len() > 0 && !isFullPool(p.stderr.String()):
		return f, errors.New(p.plugin + " wrote to stderr: " + p.stderr.String())
	case p.cmd.ProcessState.ExitCode() == 0:
		return f, nil
	}
	if err := json.Unmarshal(p.stdout.Bytes(), &f); err != nil || f.Code == 0 || f.Msg == "" {
		return f, errors.New(p.plugin + " failed without an error as the spec wants it: " + p.stdout.String())
	}
	return f, nil
}

// isFullPool says whether text is the warning of a STATUS that met a pool all of whose
// addresses are held at that moment: containers come and go.
func isFullPool(text string) bool {
	return strings.Count(text, "\n") == 1 && strings.HasSuffix(text, " addresses are held\n")
}

// result is a CNI result, as far as the tests look at it.
type result struct {
	IPs          []struct{ Address netip.Prefix }
	PortMappings []port
}

func (r result) addrs() []netip.Addr {
	var all []netip.Addr
	for _, ip := range r.IPs {
		all = append(all, ip.Address.Addr())
	}
	return all
}

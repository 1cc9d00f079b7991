package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"
)

// rotating is a cluster with etcd whose network 0 is encrypted with keys of ln-agent. Where the
// kernel has no WireGuard, wireguard-go runs on each host, and goes on when an agent is killed.
type rotating struct {
	*agents
	*secure // shares the cluster
	keys    map[string]any
}

// newRotating makes the hosts, and starts their agents.
func newRotating(t testing.TB, hosts int, args ...string) *rotating {
	t.Helper()
	r := newRotatingIdle(t, hosts)
	r.up(r.keys, args...)
	return r
}

// newRotatingIdle is newRotating without agents.
func newRotatingIdle(t testing.TB, hosts int) *rotating {
	t.Helper()
	r := &rotating{agents: newAgents(t, hosts), keys: map[string]any{"encryption": "wireguard", "port": securePort}}
	r.secure = bareSecure(r.agents.cluster)
	for _, h := range r.agents.hosts {
		r.agents.configure(0, h, r.keys)
		if !r.kernel {
			r.startUserspace(h, 2)
		}
	}
	return r
}

// containers attaches one to each host.
func (r *rotating) containers() (all []container) {
	r.agents.t.Helper()
	for _, h := range r.agents.hosts {
		all = append(all, r.agents.attach(h, "c-"+h, r.keys))
	}
	return all
}

// devices are the names of the host's WireGuard devices with an alias.
func (r *rotating) devices(host string) (names []string) {
	r.agents.t.Helper()
	r.agents.in(netnsPath(host), func() {
		links, err := netlink.LinkList()
		for err != nil { // ln-agent is at work
			links, err = netlink.LinkList()
		}
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, "wg-") && l.Attrs().Alias != "" {
				names = append(names, l.Attrs().Name)
			}
		}
	})
	return names
}

// privateKeys are the files of a host's private keys.
func (r *rotating) privateKeys(host string) []string {
	r.agents.t.Helper()
	all, err := filepath.Glob("/run/libnet-" + host + "/wireguard/*.key")
	r.agents.check(err)
	return all
}

// Three hosts that know nothing of each other but etcd make keys, and containers on each reach all
// others, by both families. What passes between the hosts shows neither payload nor VXLAN, etcd
// has public keys alone, and STATUS, CHECK, doctor, repair, gc and overlay check are content.
func TestWireGuardAgentReach(t *testing.T) {
	t.Parallel()
	r := newRotating(t, 3)
	c := r.capture()
	all := r.containers()
	heard := r.ear(all[1])
	r.pingAll(all...)
	r.shout(all[0], all[1:]...)
	if !heard(agentPatience) {
		t.Error("the payload did not arrive")
	}
	if got := c.sealed("all is well"); got.wireguard == 0 {
		t.Errorf("%d frames, none of WireGuard", got.all)
	}
	for _, p := range all {
		r.agents.mustOn(p.host, call{plugin: "overlay-ln", command: "STATUS", stdin: p.call.stdin})
		check := p.call.as("CHECK")
		check.stdin = edit(t, check.stdin, map[string]any{"prevResult": decode(t, r.agents.mustOn(p.host, p.call.as("ADD")).stdout)})
		r.agents.mustOn(p.host, check)
		if got := r.devices(p.host); len(got) != 1 {
			t.Errorf("devices of %s: %v, want one", p.host, got)
		}
		keys := r.privateKeys(p.host)
		if len(keys) != 1 {
			t.Fatalf("private keys of %s: %v, want one", p.host, keys)
		}
		info, err := os.Stat(keys[0])
		r.agents.check(err)
		if info.Mode() != 0o600 {
			t.Errorf("mode of %s is %s", keys[0], info.Mode())
		}
		private, err := os.ReadFile(keys[0])
		r.agents.check(err)
		if dump := r.etcdctl("get", "--prefix", "/"); strings.Contains(dump, strings.TrimSpace(string(private))) {
			t.Errorf("etcd has the private key of %s", p.host)
		}
		r.wellOn(p.host)
	}
	r.pingAll(all...)
	for _, p := range all {
		r.agents.mustOn(p.host, p.call.as("DEL"))
	}
	for _, h := range r.agents.hosts {
		r.agents.procs[h].stop(t)
		r.agents.in(netnsPath(h), func() {
			if out, err := r.agentCommand(h, "leave").CombinedOutput(); err != nil {
				t.Errorf("leave: %v, %s", err, out)
			}
		})
		if keys, devices := r.privateKeys(h), r.devices(h); len(keys)+len(devices) > 0 {
			t.Errorf("%s left, and has %v and %v", h, keys, devices)
		}
	}
	if left := r.etcdctl("get", "--prefix", "--keys-only", "/"); strings.TrimSpace(left) != "" {
		t.Errorf("etcd holds:\n%s", left)
	}
}

// wellOn wants each command of an operator to be content on a host.
func (r *rotating) wellOn(host string) {
	t := r.agents.t
	t.Helper()
	for _, args := range []string{"doctor", "repair", "gc", "network ls", "network inspect net0", "overlay peers", "overlay check net0"} {
		r.agents.in(netnsPath(host), func() {
			out, err := exec.Command(program(t, "lnctl"), append([]string{"--state-dir", "/run/libnet-" + host, "--data-dir", "/var/lib/leases-" + host}, strings.Fields(args)...)...).CombinedOutput()
			if err != nil {
				t.Errorf("lnctl %s on %s: %v\n%s", args, host, err, out)
			}
		})
	}
}

// A state directory on a disk is refused: private keys are kept in memory.
func TestAgentKeysOnDisk(t *testing.T) {
	t.Parallel()
	r := newRotatingIdle(t, 1)
	disk, err := os.MkdirTemp(".", "disk") // of the sources, which no host has in memory
	r.agents.check(err)
	t.Cleanup(func() { _ = os.RemoveAll(disk) })
	disk, err = filepath.Abs(disk)
	r.agents.check(err)
	var fs unix.Statfs_t
	r.agents.check(unix.Statfs(disk, &fs))
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		t.Fatalf("%s is in memory", disk)
	}
	r.agents.configure(0, "h1", merge(r.keys, map[string]any{"stateDir": disk}))
	r.start("h1")
	r.awaitHealth("h1", "private keys are kept in memory only")
	if all, _ := filepath.Glob(disk + "/*/*.key"); len(all) > 0 {
		t.Errorf("there are keys: %v", all)
	}
}

package integration

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// The remains of a network without containers stand in the way of its successor
// until lnctl takes them away, as the error says.
func TestNetworkInTheWay(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.world()
	conf := `{"cniVersion": "1.1.0", "type": "overlay-ln", "nodes": ["192.0.2.1", "192.0.2.2"], "subnet": ["10.78.0.0/16"]}`
	old := attachment("overlay-ln", "c1", h.netns("c1"), edit(t, conf, keys{"name": "old"}))
	h.must(old.as("ADD"))
	next := attachment("overlay-ln", "c2", h.netns("c2"), edit(t, conf, keys{"name": "new"}))
	h.refused(next.as("ADD"), 7, `of network "old"`, "lnctl network rm old")
	lnctl := program(t, "lnctl")
	if out, err := exec.Command(lnctl, "network", "rm", "old").CombinedOutput(); err == nil || !strings.Contains(string(out), "c1 eth0") {
		t.Errorf("rm of a network in use: %v, %s", err, out)
	}
	h.must(old.as("DEL"))
	h.exec(lnctl, "network", "rm", "old")
	h.must(next.as("ADD"))
	h.must(next.as("DEL"))
	h.exec(lnctl, "network", "prune")
	if rules := strings.TrimSpace(h.ruleset()); rules != "" {
		t.Errorf("left of the rules:\n%s", rules)
	}
}

// A changed subnet is taken by the next container: those of before keep their
// gateway, which goes when the bridge has no container.
func TestChangedSubnet(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	conf := func(subnet string) string {
		return `{"cniVersion": "1.1.0", "name": "ed", "type": "bridge-ln", "bridge": "bre", "gatewayMode": "nat", "ipam": {"type": "ipam-ln", "ranges": [[{"subnet": "` + subnet + `"}]]}}`
	}
	c := attachment("bridge-ln", "c1", h.netns("c1"), conf("10.31.0.0/24"))
	c.stdin = edit(t, c.stdin, keys{"prevResult": raw(h.must(c.as("ADD")).stdout)})
	other := attachment("bridge-ln", "c2", h.netns("c2"), conf("10.32.0.0/24"))
	h.must(other.as("ADD"))
	for _, gateway := range []string{"10.31.0.1", "10.32.0.1"} { // each container has its own
		if out := h.exec("ip", "-br", "addr", "show", "bre"); !strings.Contains(out, gateway) {
			t.Errorf("no %s: %s", gateway, out)
		}
	}
	h.must(c.as("CHECK"))
	h.must(c.as("DEL"))
	h.must(other.as("DEL"))
	third := attachment("bridge-ln", "c3", h.netns("c3"), conf("10.33.0.0/24"))
	h.must(third.as("ADD"))
	if out := h.exec("ip", "-br", "addr", "show", "bre"); strings.Contains(out, "10.31.0.1") || strings.Contains(out, "10.32.0.1") || !strings.Contains(out, "10.33.0.1") {
		t.Errorf("addresses: %s", out)
	}
	h.must(third.as("DEL"))
}

// A user that may not look gets an error that says so, and nothing else.
func TestDoctorNeedsRoot(t *testing.T) {
	lntest.NeedsRoot(t, "a second user is not mapped")
	t.Parallel()
	h := newHost(t)
	data, err := os.ReadFile(program(t, "lnctl"))
	h.check(err)
	const copied = "/run/lnctl"
	h.check(lntest.WriteProgram(copied, data))
	const none = "/run/none"
	h.check(os.Mkdir(none, 0o755))
	h.check(os.Chown(none, 12345, 12345))
	for name, tt := range map[string]struct {
		args []string
		want string
		ok   bool
	}{
		"as another user":     {[]string{copied, "doctor"}, "lnctl doctor needs root", false},
		"in a user namespace": {[]string{"unshare", "-U", "-r", "-n", copied, "--state-dir", none, "doctor"}, "✓ other firewalls", true},
	} {
		cmd := exec.Command(tt.args[0], tt.args[1:]...)
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
		out, err := cmd.CombinedOutput()
		if (err == nil) != tt.ok || !strings.Contains(string(out), tt.want) || strings.Contains(string(out), "modprobe") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if !tt.ok && strings.Contains(string(out), "✓") {
			t.Errorf("%s: says of something that it is well:\n%s", name, out)
		}
	}
}

// forceAddress takes the gateway that is in the way, and leaves those of living
// containers, also where the kernel has them as secondary addresses of it.
func TestForceAddressBesideOthers(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	conf := func(gateway string, force bool) string {
		conf := `{"cniVersion": "1.1.0", "type": "bridge-ln", "bridge": "brg", "isDefaultGateway": true, "ipam": {"type": "ipam-ln"}}`
		return edit(t, conf, keys{"name": "n" + gateway, "forceAddress": force, "ipam.ranges": []any{[]any{keys{"subnet": "10.34.0.0/24", "gateway": "10.34.0." + gateway}}}})
	}
	first := attachment("bridge-ln", "c1", h.netns("c1"), conf("1", false))
	h.must(first.as("ADD"))
	h.must(attachment("bridge-ln", "c2", h.netns("c2"), conf("254", false)).as("ADD"))
	h.must(first.as("DEL"))
	h.must(attachment("bridge-ln", "c3", h.netns("c3"), conf("250", true)).as("ADD"))
	out := h.exec("ip", "-br", "addr", "show", "brg")
	if strings.Contains(out, "10.34.0.1/") || !strings.Contains(out, "10.34.0.254/24") || !strings.Contains(out, "10.34.0.250/24") {
		t.Errorf("addresses: %s", out)
	}
	h.ping(netnsPath("c2"), netip.MustParseAddr("10.34.0.254"))
}

package kubernetes

import (
	"cmp"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const overlayAnnotation = "libnet-cni.dev/overlay"

// Two hosts find each other by their Nodes, in both families. Without the API containers start and
// reach each other, also when an agent is killed and started again; and a Node that goes is left out.
func TestTwoNodes(t *testing.T) {
	p := newPlane(t)
	p.addNode(t, "m1", "172.31.9.1", "10.244.1.0/24", "fd66:244:0:1::/64")
	p.addNode(t, "w2", "172.31.9.2", "10.244.2.0/24", "fd66:244:0:2::/64")
	p.addNode(t, "silent", "172.31.9.3", "10.244.3.0/24", "fd66:244:0:3::/64") // no agent runs there
	hosts := []*host{newHost(t, p, "m1", "172.31.9.1", adminToken), newHost(t, p, "w2", "172.31.9.2", adminToken)}
	for _, h := range hosts {
		h.configure(t, "")
		h.startAgent(t)
	}
	both := func() {
		t.Helper()
		for _, h := range hosts {
			eventually(t, h.name+" knows both hosts", func() bool { return slices.Equal(h.nodes(), []string{"m1", "w2"}) })
			h.healthy(t)
		}
	}
	both()
	a, b := hosts[0].add(t), hosts[1].add(t)
	for _, prefix := range []string{"10.244.1.", "fd66:244:0:1:"} {
		if !slices.ContainsFunc(a.addresses, func(s string) bool { return strings.HasPrefix(s, prefix) }) {
			t.Errorf("%v: want an address in the Node's podCIDR %s", a.addresses, prefix)
		}
	}
	check(t, a.reaches(b))
	check(t, b.reaches(a))

	p.stopAPI(t)
	eventually(t, "the agent says that the API is away", func() bool { return strings.Contains(hosts[0].health(), "Kubernetes: nodes of https://") })
	check(t, hosts[0].add(t).reaches(b))
	apart(t, hosts, a, b)
	hosts[1].killAgent(t)
	check(t, hosts[1].add(t).reaches(a))
	hosts[1].startAgent(t)
	eventually(t, "the new agent says that the API is away", func() bool { return strings.Contains(hosts[1].health(), "Kubernetes: ") })
	check(t, hosts[1].add(t).reaches(a))
	check(t, a.reaches(b))

	p.startAPI(t)
	back := time.Now()
	both()
	t.Logf("agents are well %.1f s after the API was back", time.Since(back).Seconds())

	p.do(t, http.MethodPatch, "/api/v1/nodes/w2", asMerge, object{"metadata": object{"annotations": object{overlayAnnotation: nil}}})
	eventually(t, "the agent writes its annotation again", func() bool { return p.annotation(t, "w2", overlayAnnotation) != "" })
	both()
	p.do(t, http.MethodPatch, "/api/v1/nodes/w2", asMerge, object{"metadata": object{"annotations": object{"libnet-cni.dev/evicted": ""}}})
	eventually(t, "m1 is alone", func() bool { return slices.Equal(hosts[0].nodes(), []string{"m1"}) })
	if a.reaches(b) == nil {
		t.Error("a host that was evicted is reached")
	}
	p.do(t, http.MethodPatch, "/api/v1/nodes/w2", asMerge, object{"metadata": object{"annotations": object{"libnet-cni.dev/evicted": nil}}})
	both()
	p.do(t, http.MethodDelete, "/api/v1/nodes/w2", "", nil)
	eventually(t, "m1 is alone", func() bool { return slices.Equal(hosts[0].nodes(), []string{"m1"}) })
	eventually(t, "w2 says that it has no Node", func() bool { return strings.Contains(hosts[1].health(), `there is no Node "w2"`) })
}

// apart leaves the API away for as long as LIBNET_API_AWAY says, a duration; without it, for no longer.
// Containers come and go on each host all the time, and reach all others.
func apart(t *testing.T, hosts []*host, a, b container) {
	t.Helper()
	away, err := time.ParseDuration(cmp.Or(os.Getenv("LIBNET_API_AWAY"), "0s"))
	check(t, err)
	attached := 0
	for end := time.Now().Add(away); time.Now().Before(end); time.Sleep(away / 100) {
		for _, h := range hosts {
			c := h.add(t)
			check(t, errors.Join(c.reaches(a), c.reaches(b), a.reaches(c), b.reaches(c)))
			_, err := h.cni("DEL", c.ns)
			check(t, err)
			attached++
		}
	}
	t.Logf("without the API for %s: %d containers attached", away, attached)
}

// With directRouting two hosts of one segment, which have announced their interfaces by their Nodes, need
// no tunnel.
func TestHostGateway(t *testing.T) {
	p := newPlane(t)
	p.addNode(t, "m1", "172.31.9.1", "10.244.1.0/24", "fd66:244:0:1::/64")
	p.addNode(t, "w2", "172.31.9.2", "10.244.2.0/24", "fd66:244:0:2::/64")
	hosts := []*host{newHost(t, p, "m1", "172.31.9.1", adminToken), newHost(t, p, "w2", "172.31.9.2", adminToken)}
	for _, h := range hosts {
		h.configure(t, `,"directRouting":true`)
		h.startAgent(t)
	}
	for i, h := range hosts {
		other := hosts[1-i]
		eventually(t, h.name+" leads to the other host directly", func() bool {
			v4, v6 := h.run(t, "ip", "route"), h.run(t, "ip", "-6", "route")
			return strings.Contains(v4, "via "+other.address+" dev eth0 proto 108") && strings.Contains(v6, " via fe80::") && strings.Contains(v6, " dev eth0 proto 108")
		})
		h.healthy(t)
	}
	a, b := hosts[0].add(t), hosts[1].add(t)
	check(t, a.reaches(b))
	check(t, b.reaches(a))
}

// While a container is left ln-agent uninstall takes away neither plugins nor network, however often it
// is tried; after that all goes.
func TestUninstallAgain(t *testing.T) {
	p := newPlane(t)
	p.addNode(t, "m1", "172.31.9.1", "10.244.1.0/24", "fd66:244:0:1::/64")
	h := newHost(t, p, "m1", "172.31.9.1", adminToken)
	h.configure(t, "") // its state directory is in there only
	h.startAgent(t)
	h.healthy(t)
	c := h.add(t)
	h.killAgent(t)
	plugins := t.TempDir()
	check(t, os.WriteFile(filepath.Join(plugins, "overlay-ln"), nil, 0o700))
	uninstall := func() (string, error) {
		out, err := exec.Command("ip", "netns", "exec", h.name, bin(t, "ln-agent"), "uninstall", "--kubernetes", "--kubeconfig", h.kubeconfig, "--node-name", h.name,
			"--conf-dir", filepath.Join(h.dir, "net.d"), "--conf", "10-pods.conflist", "--bin-dir", plugins).CombinedOutput()
		return string(out), err
	}
	for range 2 {
		if out, err := uninstall(); err == nil || !strings.Contains(out, "living containers") {
			t.Errorf("with a container: %v: %s", err, out)
		}
		if _, err := os.Stat(filepath.Join(plugins, "overlay-ln")); err != nil {
			t.Error(err)
		}
	}
	_, err := h.cni("DEL", c.ns)
	check(t, err)
	if out, err := uninstall(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	left, err := filepath.Glob(filepath.Join(plugins, "*"))
	files, err2 := filepath.Glob(filepath.Join(h.dir, "net.d", "*"))
	check(t, errors.Join(err, err2))
	if all := append(left, files...); len(all) > 0 || p.annotation(t, "m1", overlayAnnotation) != "" {
		t.Errorf("left: %v", all)
	}
}

// The agent says why a Node cannot have a part in the network, and what to do.
func TestSaysWhatIsWrong(t *testing.T) {
	p := newPlane(t)
	p.addNode(t, "m1", "172.31.9.1")
	h := newHost(t, p, "m1", "172.31.9.1", adminToken)
	h.configure(t, "")
	h.startAgent(t)
	says := func(what string) {
		t.Helper()
		eventually(t, "the agent says "+what, func() bool { return strings.Contains(h.health(), what) })
	}
	says("has no podCIDR yet: kube-controller-manager gives one, with --allocate-node-cidrs=true")
	p.do(t, http.MethodPatch, "/api/v1/nodes/m1", asMerge, object{"spec": object{"podCIDR": "10.5.1.0/24", "podCIDRs": []string{"10.5.1.0/24"}}})
	says(`no podCIDR [10.5.1.0/24] of node m1 is in subnet 10.244.0.0/16: set subnet to what kube-controller-manager has as --cluster-cidr`)
	h.killAgent(t)
	p.do(t, http.MethodDelete, "/api/v1/nodes/m1", "", nil)
	p.addNode(t, "m1", "172.31.9.1", "10.244.16.0/20", "fd66:244:0:1::/64")
	h.startAgent(t)
	says(`podCIDR 10.244.16.0/20 of node m1 is no /24 in subnet 10.244.0.0/16: set "blockSize": {"ipv4": N}`)
	h.configure(t, `,"blockSize":{"ipv4":20}`)
	h.healthy(t)
	p.do(t, http.MethodPatch, "/api/v1/nodes/m1/status", asMerge, object{"status": object{"addresses": []object{{"type": "InternalIP", "address": "172.31.9.77"}}}})
	says("which is none of its InternalIPs [172.31.9.77]")
}

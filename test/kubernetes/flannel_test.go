package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// flannelHost is a host that changes over between flannel and libnet.
type flannelHost struct {
	*host
	flanneld *exec.Cmd
}

// startFlannel starts flanneld, and waits until it has written its file for plugins.
func (h *flannelHost) startFlannel(t *testing.T) {
	t.Helper()
	conf := filepath.Join(h.dir, "net-conf.json")
	check(t, os.WriteFile(conf, []byte(`{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}`), 0o600))
	h.flanneld = start(t, h.dir, "/sbin/ip", "netns", "exec", h.name, "/usr/bin/env", "NODE_NAME="+h.name, binary(t, "flanneld"), "-kube-subnet-mgr",
		"-kubeconfig-file", h.kubeconfig, "-net-config-path", conf, "-subnet-file", h.subnetFile(), "-iface", "eth0", "-ip-masq", "-healthz-port", "0")
	eventually(t, "flanneld of "+h.name+" runs", func() bool { _, err := os.Stat(h.subnetFile()); return err == nil })
}

func (h *flannelHost) subnetFile() string { return filepath.Join(h.dir, "subnet.env") }

// stopFlannel ends flanneld; what it made stays.
func (h *flannelHost) stopFlannel(t *testing.T) {
	t.Helper()
	check(t, h.flanneld.Process.Kill())
	_ = h.flanneld.Wait()
	check(t, os.Remove(h.subnetFile()))
}

// addFlannel makes a container and attaches it by flannel's plugin, which has the reference bridge do it.
func (h *flannelHost) addFlannel(t *testing.T) container {
	t.Helper()
	return h.attach(t, h.flannel)
}

func (h *flannelHost) flannel(verb, ns string) ([]byte, error) {
	cmd := exec.Command("ip", "netns", "exec", h.name, filepath.Join(os.Getenv("KUBERNETES"), "flannel"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+ns, "CNI_NETNS=/run/netns/"+ns, "CNI_IFNAME=eth0", "CNI_PATH="+os.Getenv("TOOLS"))
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"0.3.1","name":"cbr0","type":"flannel","subnetFile":%q,"dataDir":%q,"delegate":{"hairpinMode":true,"isDefaultGateway":true}}`,
		h.subnetFile(), filepath.Join(h.dir, "flannel")))
	return cmd.Output()
}

// migrating is the configuration while some nodes have flannel: their pods come from outside.
const migrating = `,"gatewayMode":"nat-unprotected"`

// toLibnet changes a host over, as docs/migrate-flannel.md says.
func (h *flannelHost) toLibnet(t *testing.T, old container) {
	t.Helper()
	if out, err := h.flannel("DEL", old.ns); err != nil {
		t.Fatalf("DEL by flannel: %v: %s", err, out)
	}
	h.stopFlannel(t)
	h.run(t, "ip", "link", "del", "cni0")
	h.configure(t, migrating)
	h.startAgent(t)
	h.healthy(t)
}

// toFlannel changes it back.
func (h *flannelHost) toFlannel(t *testing.T, p *plane, old container) {
	t.Helper()
	_, err := h.cni("DEL", old.ns)
	check(t, err)
	h.killAgent(t)
	bins := t.TempDir()
	run(t, "ip", "netns", "exec", h.name, bin(t, "ln-agent"), "uninstall", "--kubernetes", "--kubeconfig", h.kubeconfig, "--node-name", h.name,
		"--conf-dir", filepath.Join(h.dir, "net.d"), "--conf", "10-pods.conflist", "--bin-dir", bins)
	if p.annotation(t, h.name, overlayAnnotation) != "" {
		t.Error("uninstall left the annotation")
	}
	if out := h.run(t, "ip", "-o", "link"); strings.Contains(out, ": ln-") { // the bridge of the last container
		_, name, _ := strings.Cut(out, ": ln-")
		name, _, _ = strings.Cut("ln-"+name, ":")
		h.run(t, "ip", "link", "del", name)
	}
	h.startFlannel(t)
}

// A cluster changes over from flannel to libnet and back, node by node, with the podCIDRs that it has. At
// each step the pods of all nodes reach each other.
func TestFromFlannelAndBack(t *testing.T) {
	p := newPlane(t)
	names := []string{"m1", "w2", "w3"}
	var hosts []*flannelHost
	for i, name := range names {
		address := fmt.Sprintf("172.31.9.%d", i+1)
		p.addNode(t, name, address, fmt.Sprintf("10.244.%d.0/24", i+1))
		p.do(t, "PATCH", "/api/v1/nodes/"+name, asMerge, annotating("node.alpha.kubernetes.io/ttl", "0")) // flanneld panics without any
		h := newHost(t, p, name, address, adminToken)
		h.subnets = `["10.244.0.0/16"]`
		h.run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1")
		hosts = append(hosts, &flannelHost{host: h})
	}
	pods := make([]container, len(hosts))
	for i, h := range hosts {
		h.startFlannel(t)
		pods[i] = h.addFlannel(t)
	}
	all := func(step string) {
		t.Helper()
		began := time.Now()
		var last error
		defer func() {
			if t.Failed() {
				t.Logf("%s: %v", step, last)
				for _, h := range hosts {
					t.Logf("%s:\n%s", h.name, h.run(t, "ip", "route"))
				}
			}
		}()
		eventually(t, step+": pods reach each other", func() bool {
			for _, from := range pods {
				for _, to := range pods {
					if from.ns == to.ns {
						continue
					}
					if last = from.reaches(to); last != nil {
						return false
					}
				}
			}
			return true
		})
		t.Logf("%s: all reach each other after %.1f s", step, time.Since(began).Seconds())
	}
	all("flannel")
	for i, h := range hosts {
		h.toLibnet(t, pods[i])
		pods[i] = h.add(t)
		all("libnet on " + h.name)
	}
	for _, h := range hosts {
		if routes := h.run(t, "ip", "route"); strings.Contains(routes, "flannel.1 onlink") {
			t.Errorf("%s leads by flannel's device still:\n%s", h.name, routes)
		}
		h.run(t, "ip", "link", "del", "flannel.1")
		h.healthy(t)
	}
	all("libnet alone")

	// Back: flanneld runs on all nodes first, beside the agents, which keep the routes to each other.
	for _, h := range hosts {
		h.startFlannel(t)
	}
	for _, i := range []int{2, 1, 0} {
		h := hosts[i]
		h.stopFlannel(t)
		h.toFlannel(t, p, pods[i])
		pods[i] = h.addFlannel(t)
		for j, other := range hosts {
			if j != i { // which has its routes anew
				other.stopFlannel(t)
				other.startFlannel(t)
			}
		}
		all("flannel on " + h.name)
	}
	if slices.ContainsFunc(names, func(n string) bool { return p.annotation(t, n, overlayAnnotation) != "" }) {
		t.Error("a node is in libnet's network still")
	}
	if a := p.annotation(t, "w2", "flannel.alpha.coreos.com/public-ip"); a != "172.31.9.2" {
		t.Errorf("flannel has announced %q", a)
	}
}

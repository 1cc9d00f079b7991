package kubernetes

import (
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// policyVariant is the manifest with NetworkPolicies.
const policyVariant = "../../deploy/variants/network-policy"

// addNamespace makes a namespace in which pods can be.
func (p *plane) addNamespace(t *testing.T, name string) {
	t.Helper()
	p.do(t, http.MethodPost, "/api/v1/namespaces", asJSON, object{"metadata": object{"name": name}})
	p.do(t, http.MethodPost, "/api/v1/namespaces/"+name+"/serviceaccounts", asJSON, object{"metadata": object{"name": "default"}})
}

// pod makes a pod in the API, attaches it as a runtime does, and has the API know its addresses, as
// kubelet does.
func (h *host) pod(t *testing.T, p *plane, ns, name string) container {
	t.Helper()
	made := p.do(t, http.MethodPost, "/api/v1/namespaces/"+ns+"/pods", asJSON, object{
		"metadata": object{"name": name, "labels": object{"pod": name}},
		"spec":     object{"nodeName": h.name, "automountServiceAccountToken": false, "containers": []object{{"name": "c", "image": "i"}}},
	})
	h.args = fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", ns, name, made["metadata"].(object)["uid"])
	c := h.add(t)
	h.args = ""
	var ips []object
	for _, a := range c.addresses {
		ips = append(ips, object{"ip": a})
	}
	p.do(t, http.MethodPatch, "/api/v1/namespaces/"+ns+"/pods/"+name+"/status", asMerge, object{"status": object{"phase": "Running", "podIP": c.addresses[0], "podIPs": ips}})
	return c
}

// policy has the API take a policy of a namespace, or forget it.
func (p *plane) policy(t *testing.T, ns, name string, spec object) {
	t.Helper()
	path := "/apis/networking.k8s.io/v1/namespaces/" + ns + "/networkpolicies"
	if spec == nil {
		p.do(t, http.MethodDelete, path+"/"+name, "", nil)
		return
	}
	p.do(t, http.MethodPost, path, asJSON, object{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": object{"name": name}, "spec": spec})
}

// pings says whether one of a container's pings to another is answered, by all addresses or by none.
func (c container) pings(other container) (all, none bool) {
	all, none = true, true
	for _, a := range other.addresses {
		err := exec.Command("ip", "netns", "exec", c.ns, "busybox", "ping", "-c", "1", "-W", "1", a).Run()
		all, none = all && err == nil, none && err != nil
	}
	return all, none
}

func (c container) awaitReach(t *testing.T, other container) {
	t.Helper()
	eventually(t, c.ns+" reaches "+other.ns, func() bool { all, _ := c.pings(other); return all })
}

func (c container) awaitBlocked(t *testing.T, other container) {
	t.Helper()
	eventually(t, c.ns+" does not reach "+other.ns, func() bool { _, none := c.pings(other); return none })
}

// policyPlane is a plane with two agents that enforce policies with the rights of the manifest.
func policyPlane(t *testing.T) (p *plane, m1, w2 *host) {
	t.Helper()
	p = newPlane(t)
	p.addNode(t, "m1", "172.31.9.1", "10.244.1.0/24", "fd66:244:0:1::/64")
	p.addNode(t, "w2", "172.31.9.2", "10.244.2.0/24", "fd66:244:0:2::/64")
	p.kubectl(t, "create", "namespace", "libnet")
	p.kubectl(t, "apply", "--server-side", "--force-conflicts", "-k", policyVariant)
	m1, w2 = newHost(t, p, "m1", "172.31.9.1", p.agentToken(t, "m1")), newHost(t, p, "w2", "172.31.9.2", p.agentToken(t, "w2"))
	for _, h := range []*host{m1, w2} {
		h.flags = []string{"--network-policy"}
		h.configure(t, "")
		h.startAgent(t)
		h.healthy(t)
	}
	for _, ns := range []string{"x", "y"} {
		p.addNamespace(t, ns)
	}
	return p, m1, w2
}

// Policies are in force between pods of a host, and of two, over the restart of an agent without an
// API, and gone with the flag.
func TestNetworkPolicy(t *testing.T) {
	p, m1, w2 := policyPlane(t)
	a, b, c := m1.pod(t, p, "x", "a"), m1.pod(t, p, "x", "b"), w2.pod(t, p, "y", "c")
	for _, from := range []container{b, c} {
		from.awaitReach(t, a)
	}
	p.policy(t, "x", "deny", object{"podSelector": object{"matchLabels": object{"pod": "a"}}, "policyTypes": []string{"Ingress"}})
	b.awaitBlocked(t, a)
	c.awaitBlocked(t, a)
	a.awaitReach(t, b)
	a.awaitReach(t, c)
	p.policy(t, "x", "open", object{"podSelector": object{"matchLabels": object{"pod": "a"}}, "ingress": []object{{"from": []object{{"namespaceSelector": object{"matchLabels": object{"kubernetes.io/metadata.name": "y"}}}}}}})
	c.awaitReach(t, a)
	b.awaitBlocked(t, a)
	p.stopAPI(t)
	m1.killAgent(t)
	b.awaitBlocked(t, a)
	m1.startAgent(t)
	eventually(t, "the agent says that policies are not known", func() bool { return strings.Contains(m1.health(), "network policies: ") })
	b.awaitBlocked(t, a)
	c.awaitReach(t, a)
	p.startAPI(t)
	m1.healthy(t)
	b.awaitBlocked(t, a)
	p.policy(t, "x", "deny", nil)
	p.policy(t, "x", "open", nil)
	b.awaitReach(t, a)
	if metrics := m1.get("/metrics"); !strings.Contains(metrics, "libnet_policy_ok 1\n") || !strings.Contains(metrics, "libnet_policy_closed 0\n") {
		t.Errorf("metrics: %s", metrics)
	}
	p.policy(t, "x", "deny", object{"podSelector": object{}})
	b.awaitBlocked(t, a)
	m1.killAgent(t)
	m1.flags = nil
	m1.startAgent(t)
	b.awaitReach(t, a)
	if out := m1.run(t, "nft", "list", "tables"); strings.Contains(out, "libnet-policy") {
		t.Errorf("without the flag there is still: %s", out)
	}
}

// While pods of a namespace with a policy start, a pod that may not reach them asks for all of their
// addresses all the time: none of it arrives.
func TestNoPacketAtStart(t *testing.T) {
	const starts = 15
	p, m1, w2 := policyPlane(t)
	p.policy(t, "x", "deny", object{"podSelector": object{}, "ingress": []object{{"from": []object{{"podSelector": object{}}}}}})
	near, far, first := m1.pod(t, p, "y", "near"), w2.pod(t, p, "y", "far"), m1.pod(t, p, "x", "first")
	last := func(a string) int { n, err := strconv.Atoi(a[strings.LastIndex(a, ".")+1:]); check(t, err); return n }
	next := last(first.addresses[0])
	for _, from := range []container{near, far} {
		for i := range starts {
			start(t, t.TempDir(), "/sbin/ip", "netns", "exec", from.ns, "busybox", "ping", "-q", "-i", "0.01", fmt.Sprintf("10.244.1.%d", next+i+1))
		}
	}
	begin := time.Now()
	for i := range starts {
		c := m1.pod(t, p, "x", fmt.Sprint("p", i))
		if got := last(c.addresses[0]); got != next+i+1 {
			t.Fatalf("it has %s, and none asks for that", c.addresses[0])
		}
		first.awaitReach(t, c) // of its own namespace: it is open now
		for _, line := range strings.Split(run(t, "ip", "netns", "exec", c.ns, "cat", "/proc/net/snmp"), "\n") {
			fields := strings.Fields(line)
			if len(fields) < 9 || fields[0] != "Icmp:" || fields[1] == "InMsgs" {
				continue
			}
			// InEchos is what came from first.
			if echos, err := strconv.Atoi(fields[9]); err != nil || echos < 1 || echos > 5 {
				t.Errorf("%s has got %s pings: %s", c.ns, fields[9], line)
			}
		}
	}
	t.Logf("%d pods were started and open after %s each", starts, (time.Since(begin) / starts).Round(time.Millisecond))
}

// The variant lets a token read what policies are about, and nothing else.
func TestNetworkPolicyRights(t *testing.T) {
	p := newPlane(t)
	p.addNode(t, "m1", "172.31.9.1", "10.244.1.0/24")
	p.kubectl(t, "create", "namespace", "libnet")
	p.kubectl(t, "apply", "--server-side", "--force-conflicts", "-k", policyVariant)
	token := p.agentToken(t, "m1")
	for path, want := range map[string]int{
		"/api/v1/pods": http.StatusOK, "/api/v1/namespaces": http.StatusOK, "/apis/networking.k8s.io/v1/networkpolicies": http.StatusOK,
		"/api/v1/secrets": http.StatusForbidden, "/api/v1/services": http.StatusForbidden, "/api/v1/configmaps": http.StatusForbidden,
	} {
		if code, answer, err := p.try(t.Context(), token, http.MethodGet, path, "", nil); err != nil || code != want {
			t.Errorf("%s: %d %v %.200s, want %d", path, code, err, answer, want)
		}
	}
	for _, verb := range []string{"create", "update", "patch", "delete", "deletecollection"} {
		p.denied(t, verb, "", "pods")
		p.denied(t, verb, "", "namespaces")
		p.denied(t, verb, "networking.k8s.io", "networkpolicies")
	}
	p.denied(t, "get", "", "secrets")
}

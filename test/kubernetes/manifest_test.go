package kubernetes

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	manifest     = "../../deploy/kubernetes/libnet.yaml"
	agentAccount = "system:serviceaccount:libnet:ln-agent"
)

// apply has the API take the manifest.
func (p *plane) apply(t *testing.T) {
	t.Helper()
	// The controller that makes it in a cluster does not run here.
	p.kubectl(t, "create", "namespace", "libnet")
	p.kubectl(t, "apply", "--server-side", "--force-conflicts", "-f", manifest)
}

// agentToken returns the token of an agent's pod on a node, as kubelet gets it.
func (p *plane) agentToken(t *testing.T, node string) string {
	t.Helper()
	p.do(t, http.MethodPost, "/api/v1/namespaces/libnet/pods", asJSON, object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "ln-agent-" + node},
		"spec": object{"nodeName": node, "serviceAccountName": "ln-agent", "automountServiceAccountToken": false, "containers": []object{{"name": "c", "image": "i"}}},
	})
	got := p.do(t, http.MethodPost, "/api/v1/namespaces/libnet/serviceaccounts/ln-agent/token", asJSON, object{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"spec": object{"audiences": []string{"https://kubernetes.default.svc"}, "boundObjectRef": object{"apiVersion": "v1", "kind": "Pod", "name": "ln-agent-" + node}},
	})
	return got["status"].(object)["token"].(string)
}

// annotating returns a patch of annotations.
func annotating(key string, value any) object {
	return object{"metadata": object{"annotations": object{key: value}}}
}

// The manifest is taken as it is; an agent with its token works; and a token that was stolen from a node
// changes one annotation of this node, and reads nothing but Nodes.
func TestManifest(t *testing.T) {
	p := newPlane(t)
	p.addNode(t, "m1", "172.31.9.1", "10.244.1.0/24", "fd66:244:0:1::/64")
	p.addNode(t, "w2", "172.31.9.2", "10.244.2.0/24", "fd66:244:0:2::/64")
	p.apply(t)
	token := p.agentToken(t, "m1")
	try := func(method, path string, body object) (int, string) {
		t.Helper()
		data, err := json.Marshal(body)
		check(t, err)
		code, answer, err := p.try(t.Context(), token, method, path, asMerge, data)
		check(t, err)
		return code, string(answer)
	}
	eventually(t, "the policy is in force", func() bool {
		code, answer := try(http.MethodPatch, "/api/v1/nodes/w2", annotating(overlayAnnotation, nil))
		return code == http.StatusUnprocessableEntity && strings.Contains(answer, "the Node that its own pod is on")
	})
	h := newHost(t, p, "m1", "172.31.9.1", token)
	h.configure(t, "")
	h.startAgent(t)
	h.healthy(t)
	h.killAgent(t)
	for _, tt := range []struct {
		path, says string
		body       object
	}{
		{"/api/v1/nodes/w2", "the Node that its own pod is on", annotating(overlayAnnotation, "x")},
		{"/api/v1/nodes/m1", "the annotation libnet-cni.dev/overlay", annotating("libnet-cni.dev/evicted", nil)},
		{"/api/v1/nodes/m1", "the annotation libnet-cni.dev/overlay", annotating("other", "x")},
		{"/api/v1/nodes/m1", "the annotation libnet-cni.dev/overlay", object{"metadata": object{"labels": object{"role": "control-plane"}}}},
		{"/api/v1/nodes/m1", "the annotation libnet-cni.dev/overlay", object{"spec": object{"unschedulable": true}}},
		{"/api/v1/nodes/m1", "the annotation libnet-cni.dev/overlay", object{"spec": object{"taints": []object{{"key": "k", "effect": "NoExecute"}}}}},
		{"/api/v1/nodes/m1/status", "the condition NetworkUnavailable", object{"status": object{"addresses": []object{}}}},
		{"/api/v1/nodes/m1/status", "the condition NetworkUnavailable", object{"status": object{"conditions": []object{{"type": "NetworkUnavailable", "status": "False"}}}}},
	} {
		if tt.body["metadata"] != nil && tt.says != "the Node that its own pod is on" { // there is something to take away
			p.do(t, http.MethodPatch, "/api/v1/nodes/m1", asMerge, annotating("libnet-cni.dev/evicted", ""))
		}
		if code, answer := try(http.MethodPatch, tt.path, tt.body); code < 400 || !strings.Contains(answer, tt.says) {
			t.Errorf("patch %s %v: %d %s, want %q", tt.path, tt.body, code, answer, tt.says)
		}
	}
	p.tryConditions(t, token, h)
	if code, answer := try(http.MethodPatch, "/api/v1/nodes/m1", annotating(overlayAnnotation, `{"version":1}`)); code != http.StatusOK {
		t.Errorf("its own annotation: %d %s", code, answer)
	}
	for _, path := range []string{"/api/v1/pods", "/api/v1/secrets", "/api/v1/namespaces/libnet/configmaps", "/api/v1/services", "/api/v1/namespaces/kube-system/secrets"} {
		if code, _ := try(http.MethodGet, path, nil); code != http.StatusForbidden {
			t.Errorf("reads %s: %d", path, code)
		}
	}
	for _, path := range []string{"/api/v1/nodes", "/api/v1/nodes/w2"} {
		if code, answer := try(http.MethodDelete, path, nil); code != http.StatusForbidden {
			t.Errorf("deletes %s: %d %s", path, code, answer)
		}
	}
	for _, verb := range []string{"create", "update", "delete", "deletecollection", "impersonate", "escalate"} {
		p.denied(t, verb, "", "nodes")
	}
	for _, resource := range []string{"pods", "secrets", "configmaps", "serviceaccounts", "events"} {
		for _, verb := range []string{"get", "list", "watch", "create", "patch"} {
			p.denied(t, verb, "", resource)
		}
	}
	p.denied(t, "create", "authentication.k8s.io", "tokenreviews")
}

// withConditions is a status with these conditions alone.
func withConditions(typesAndValues ...string) object {
	var all []object
	for i := 0; i < len(typesAndValues); i += 2 {
		all = append(all, object{"type": typesAndValues[i], "status": typesAndValues[i+1]})
	}
	return object{"status": object{"conditions": all}}
}

// tryConditions has a cloud set the condition NetworkUnavailable: the agent of m1, by its token, takes it
// away once the network is up, of its own Node only, and can change no other condition.
func (p *plane) tryConditions(t *testing.T, token string, h *host) {
	t.Helper()
	p.do(t, http.MethodPatch, "/api/v1/nodes/m1", asMerge, annotating("libnet-cni.dev/evicted", nil))
	for _, node := range []string{"m1", "w2"} {
		p.do(t, http.MethodPatch, "/api/v1/nodes/"+node+"/status", asMerge, withConditions("Ready", "True", "NetworkUnavailable", "True"))
	}
	for path, body := range map[string]object{
		"/api/v1/nodes/w2/status": withConditions("Ready", "True", "NetworkUnavailable", "False"),
		"/api/v1/nodes/m1/status": withConditions("Ready", "False", "NetworkUnavailable", "False"),
	} {
		data, err := json.Marshal(body)
		check(t, err)
		if code, answer, err := p.try(t.Context(), token, http.MethodPatch, path, asMerge, data); err != nil || code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s %v", path, code, answer, err)
		}
	}
	h.startAgent(t)
	eventually(t, "the condition NetworkUnavailable is false", func() bool {
		status, _ := p.do(t, http.MethodGet, "/api/v1/nodes/m1", "", nil)["status"].(map[string]any)
		data, _ := json.Marshal(status["conditions"])
		return strings.Contains(string(data), `"reason":"LibnetIsUp","status":"False","type":"NetworkUnavailable"`) && strings.Contains(string(data), `"status":"True","type":"Ready"`)
	})
	h.killAgent(t)
}

// denied asks the API whether an agent's account may do something.
func (p *plane) denied(t *testing.T, verb, group, resource string) {
	t.Helper()
	got := p.do(t, http.MethodPost, "/apis/authorization.k8s.io/v1/subjectaccessreviews", asJSON, object{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
		"spec": object{"user": agentAccount, "groups": []string{"system:serviceaccounts", "system:authenticated"},
			"resourceAttributes": object{"verb": verb, "group": group, "resource": resource, "namespace": "kube-system"}},
	})
	if got["status"].(object)["allowed"] == true {
		t.Errorf("an agent may %s %s", verb, resource)
	}
}

// Each variant is taken by the API, too, and its configuration is one that ln-agent keeps.
func TestVariants(t *testing.T) {
	p := newPlane(t)
	p.apply(t)
	dirs, err := filepath.Glob("../../deploy/variants/*")
	check(t, err)
	for _, dir := range append(dirs, "../../deploy/kubernetes") {
		p.kubectl(t, "apply", "--server-side", "--dry-run=server", "--force-conflicts", "-k", dir)
		text := p.kubectl(t, "kustomize", dir)
		if !strings.Contains(text, "overlay-ln") && filepath.Base(dir) != "uninstall-node" {
			t.Errorf("%s: there is no configuration of overlay-ln in it", dir)
		}
	}
	version, err := os.ReadFile("../../VERSION")
	check(t, err)
	data, err := os.ReadFile(manifest)
	check(t, err)
	if image := "ghcr.io/libnet-cni/libnet:" + strings.TrimSpace(string(version)); strings.Count(string(data), "image: "+image+"\n") != 2 {
		t.Errorf("the manifest does not name the image %s", image)
	}
}

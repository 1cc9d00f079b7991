package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// benchKube has a real kube-proxy, at $KUBE_PROXY, follow services in its nftables mode. The first
// one has a port of the node that leads to the containers of the node, so that they see the
// client's address.
func (l *servicesLab) benchKube() balanced {
	path := os.Getenv("KUBE_PROXY")
	if path == "" {
		l.t.Skip("no kube-proxy: say where it is in KUBE_PROXY")
	}
	api := newKubeAPI()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // of this host
	l.check(err)
	server := &http.Server{Handler: api, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	l.t.Cleanup(func() { _ = server.Close() })
	dir := l.t.TempDir()
	config := filepath.Join(dir, "config")
	l.check(os.WriteFile(filepath.Join(dir, "kubeconfig"), []byte(fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c",
 "clusters":[{"name":"c","cluster":{"server":"http://%s"}}],"users":[{"name":"c","user":{}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"c"}}]}`, listener.Addr())), 0o600))
	l.check(os.WriteFile(config, []byte(fmt.Sprintf(`{"apiVersion":"kubeproxy.config.k8s.io/v1alpha1","kind":"KubeProxyConfiguration","mode":"nftables","hostnameOverride":%q,
 "clientConnection":{"kubeconfig":%q,"contentType":"application/json","acceptContentTypes":"application/json"},
 "detectLocalMode":"BridgeInterface","detectLocal":{"bridgeInterface":"br-net"},
 "conntrack":{"maxPerCore":0,"min":0,"tcpEstablishedTimeout":"0s","tcpCloseWaitTimeout":"0s"},
 "nftables":{"minSyncPeriod":"100ms","syncPeriod":"1h"}}`, kubeNode, filepath.Join(dir, "kubeconfig"))), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	l.check(err)
	cmd := exec.Command(path, "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	l.check(cmd.Start())
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && l.t.Failed() {
			l.t.Logf("kube-proxy: %.8000s", text)
		}
		_ = log.Close()
	})
	at := net.JoinHostPort(hostAddr(false).String(), fmt.Sprint(kubeNodePort))
	return balanced{at, func(from, to int) {
		for i := from; i < to; i++ {
			api.addService(i)
		}
		l.led(net.JoinHostPort(otherService(to-1).String(), "80"))
		l.led(at)
	}, 1500}
}

// led waits until connections from outside to a port are led to a container.
func (l *servicesLab) led(at string) {
	l.t.Helper()
	const patience = 3 * time.Minute
	var err error
	l.in(netnsPath("world"), func() {
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			var c net.Conn
			if c, err = net.DialTimeout("tcp", at, time.Second); err == nil {
				_ = c.Close()
				return
			}
		}
	})
	if err != nil {
		l.t.Fatalf("%s leads nowhere after %s: %v", at, patience, err)
	}
}

const (
	kubeNode     = "node"
	kubeNodePort = 30080
)

// kubeAPI is as much of a Kubernetes API server as kube-proxy asks for: lists of objects, and the
// watches that follow them.
type kubeAPI struct {
	mu      sync.Mutex
	objects map[string][]map[string]any // by resource, in order of their coming; none goes
	changed chan struct{}               // closed at the next one
}

func newKubeAPI() *kubeAPI {
	a := &kubeAPI{objects: map[string][]map[string]any{}, changed: make(chan struct{})}
	a.add("nodes", map[string]any{
		"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": kubeNode, "uid": kubeNode},
		"spec":   map[string]any{"podCIDR": "10.60.0.0/24", "podCIDRs": []string{"10.60.0.0/24"}},
		"status": map[string]any{"addresses": []map[string]any{{"type": "InternalIP", "address": hostAddr(false).String()}}},
	})
	return a
}

func (a *kubeAPI) add(resource string, object map[string]any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	object["metadata"].(map[string]any)["resourceVersion"] = fmt.Sprint(len(a.objects[resource]) + 1)
	a.objects[resource] = append(a.objects[resource], object)
	close(a.changed)
	a.changed = make(chan struct{})
}

// addService adds a service with its endpoints.
func (a *kubeAPI) addService(i int) {
	name, ip := fmt.Sprint("s", i), otherService(i).String()
	port := map[string]any{"name": "web", "protocol": "TCP", "port": 80, "targetPort": 8080}
	spec := map[string]any{"type": "ClusterIP", "clusterIP": ip, "clusterIPs": []string{ip}, "ipFamilies": []string{"IPv4"}, "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None"}
	if i == 0 {
		spec["type"], spec["externalTrafficPolicy"], port["nodePort"] = "NodePort", "Local", kubeNodePort
	}
	spec["ports"] = []any{port}
	var endpoints []any
	for n := range benchBackends {
		endpoints = append(endpoints, map[string]any{
			"addresses": []string{fmt.Sprintf("10.60.0.%d", 2+n)}, "nodeName": kubeNode,
			"conditions": map[string]any{"ready": true, "serving": true, "terminating": false},
		})
	}
	a.add("endpointslices", map[string]any{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
		"metadata": map[string]any{"name": name + "-1", "namespace": "default", "uid": name + "-1", "labels": map[string]any{"kubernetes.io/service-name": name}},
		"ports":    []any{map[string]any{"name": "web", "protocol": "TCP", "port": 8080}},
	})
	a.add("services", map[string]any{
		"apiVersion": "v1", "kind": "Service", "spec": spec, "status": map[string]any{},
		"metadata": map[string]any{"name": name, "namespace": "default", "uid": name},
	})
}

// kubeKinds are the kinds of lists of resources, and their versions.
var kubeKinds = map[string][2]string{
	"nodes": {"v1", "Node"}, "services": {"v1", "Service"},
	"endpointslices": {"discovery.k8s.io/v1", "EndpointSlice"}, "servicecidrs": {"networking.k8s.io/v1", "ServiceCIDR"},
}

// ServeHTTP answers lists and watches.
func (a *kubeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	kind, known := kubeKinds[resource]
	w.Header().Set("Content-Type", "application/json")
	switch q := r.URL.Query(); {
	case r.Method != http.MethodGet || !known:
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": http.StatusNotFound})
	case q.Get("watch") != "":
		from := 0
		_, _ = fmt.Sscan(q.Get("resourceVersion"), &from)
		initial := q.Get("sendInitialEvents") == "true"
		if initial {
			from = 0
		}
		a.watch(w, r, resource, kind, from, initial)
	default:
		a.mu.Lock()
		defer a.mu.Unlock()
		items := a.objects[resource]
		if items == nil {
			items = []map[string]any{}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": kind[0], "kind": kind[1] + "List", "items": items, "metadata": map[string]any{"resourceVersion": fmt.Sprint(len(items))},
		})
	}
}

// watch tells of objects from one on. initial: that all of now were told is told, too.
func (a *kubeAPI) watch(w http.ResponseWriter, r *http.Request, resource string, kind [2]string, from int, initial bool) {
	to := json.NewEncoder(w)
	for {
		a.mu.Lock()
		news, changed := a.objects[resource][from:], a.changed
		a.mu.Unlock()
		from += len(news)
		for _, object := range news {
			_ = to.Encode(map[string]any{"type": "ADDED", "object": object})
		}
		if initial {
			initial = false
			_ = to.Encode(map[string]any{"type": "BOOKMARK", "object": map[string]any{"apiVersion": kind[0], "kind": kind[1], "metadata": map[string]any{
				"resourceVersion": fmt.Sprint(from), "annotations": map[string]any{"k8s.io/initial-events-end": "true"}}}})
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

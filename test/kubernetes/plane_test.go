package kubernetes

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// plane is the control plane: etcd and kube-apiserver, real ones.
type plane struct {
	dir     string
	address string
	api     *exec.Cmd
	client  *http.Client
}

const (
	planeAddress = "172.31.9.254"
	adminToken   = "admintoken"
)

// binary is a program that test/kubernetes/deps has built.
func binary(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(os.Getenv("KUBERNETES"), name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make e2e-kubernetes, or test/kubernetes/deps with KUBERNETES set to its directory", err)
	}
	return path
}

// newPlane starts a control plane in the machine, which has the address planeAddress on the bridge
// that its hosts are on.
func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{dir: t.TempDir(), address: planeAddress}
	run(t, "ip", "link", "add", "fabric", "type", "bridge")
	t.Cleanup(func() { run(t, "ip", "link", "del", "fabric") })
	run(t, "ip", "addr", "add", planeAddress+"/16", "dev", "fabric")
	run(t, "ip", "link", "set", "fabric", "up")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	check(t, err)
	p.write(t, "sa.key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	p.write(t, "sa.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	p.write(t, "tokens.csv", []byte(adminToken+",admin,1,system:masters\n"))
	start(t, p.dir, binary(t, "etcd"), "--data-dir", filepath.Join(p.dir, "etcd"), "--listen-client-urls", "http://127.0.0.1:2379",
		"--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level", "error")
	p.startAPI(t)
	return p
}

func (p *plane) path(name string) string { return filepath.Join(p.dir, name) }

func (p *plane) write(t *testing.T, name string, data []byte) {
	t.Helper()
	check(t, os.WriteFile(p.path(name), data, 0o600))
}

// startAPI starts kube-apiserver, and returns when it is ready.
func (p *plane) startAPI(t *testing.T) {
	t.Helper()
	p.api = start(t, p.dir, binary(t, "kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--bind-address="+p.address,
		"--advertise-address="+p.address, "--cert-dir="+p.path("certs"), "--token-auth-file="+p.path("tokens.csv"), "--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+p.path("sa.pub"),
		"--service-account-signing-key-file="+p.path("sa.key"), "--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true",
		"--anonymous-auth=false", "--endpoint-reconciler-type=none", "--max-mutating-requests-inflight=0")
	eventually(t, "kube-apiserver is ready", func() bool {
		ca, err := os.ReadFile(p.path("certs/apiserver.crt")) // which may be half written yet
		if err != nil {
			return false
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}, Timeout: time.Minute}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // while it starts, an answer may never come
		defer cancel()
		status, _, err := p.try(ctx, adminToken, http.MethodGet, "/readyz", "", nil)
		if err != nil || status != http.StatusOK {
			p.client.CloseIdleConnections()
		}
		return err == nil && status == http.StatusOK
	})
}

// stopAPI ends kube-apiserver as a crash does.
func (p *plane) stopAPI(t *testing.T) {
	t.Helper()
	check(t, p.api.Process.Signal(unix.SIGKILL))
	_ = p.api.Wait() // says that it was killed
}

// kubeconfig writes one for a token.
func (p *plane) kubeconfig(t *testing.T, name, token string) string {
	t.Helper()
	p.write(t, name, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"x","contexts":[{"name":"x","context":{"cluster":"c","user":"u"}}],
"clusters":[{"name":"c","cluster":{"server":"https://%s:6443","certificate-authority":"%s"}}],"users":[{"name":"u","user":{"token":"%s"}}]}`,
		p.address, p.path("certs/apiserver.crt"), token))
	return p.path(name)
}

// try sends a request.
func (p *plane) try(ctx context.Context, token, method, path, contentType string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+p.address+":6443"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// do sends a request as the administrator, which must succeed, and returns the answer.
func (p *plane) do(t *testing.T, method, path, contentType string, body any) map[string]any {
	t.Helper()
	var data []byte
	if body != nil {
		var err error
		data, err = json.Marshal(body)
		check(t, err)
	}
	status, answer, err := p.try(t.Context(), adminToken, method, path, contentType, data)
	check(t, err)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	var got map[string]any
	check(t, json.Unmarshal(answer, &got))
	return got
}

// object is JSON in the making.
type object = map[string]any

const (
	asJSON  = "application/json"
	asMerge = "application/merge-patch+json"
)

// addNode creates a Node as kubelet and kube-controller-manager do.
func (p *plane) addNode(t *testing.T, name, address string, podCIDRs ...string) {
	t.Helper()
	p.do(t, http.MethodPost, "/api/v1/nodes", asJSON, nodeOf(name, address, podCIDRs...))
}

func nodeOf(name, address string, podCIDRs ...string) object {
	spec := object{}
	if len(podCIDRs) > 0 {
		spec = object{"podCIDR": podCIDRs[0], "podCIDRs": podCIDRs}
	}
	return object{
		"apiVersion": "v1", "kind": "Node", "metadata": object{"name": name}, "spec": spec,
		"status": object{"addresses": []object{{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}}},
	}
}

// kubectl runs it as the administrator.
func (p *plane) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, binary(t, "kubectl"), append([]string{"--kubeconfig", p.kubeconfig(t, "admin.kubeconfig", adminToken)}, args...)...)
}

// start starts a program whose log is shown if the test fails, and ends it with the test.
func start(t *testing.T, dir, path string, args ...string) *exec.Cmd {
	t.Helper()
	name := filepath.Base(path)
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	check(t, err)
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			data, _ := os.ReadFile(log.Name())
			t.Logf("the end of the log of %s:\n%s", name, data[max(0, len(data)-3000):])
		}
		_ = log.Close()
	})
	return cmd
}

// run runs a program, which must succeed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what nothing tells of.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	late := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not so after a minute: %s", what)
		}
	}
}

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	example = "../../conf/examples/50-containerd.conflist"
	network = "containerd-net" // its name
	bridge  = "cni0"           // and its bridge

	socket  = "/run/containerd/containerd.sock"
	logFile = "/run/e2e/containerd.log"
	podFile = "/run/e2e/pod" // the program pod, on the host
)

// containerd's configuration. It must not need CAP_SYS_RESOURCE to lower
// oom_score_adj, and AppArmor is not what is tested.
const config = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + image + `"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
`

// machine has containerd running.
type machine struct {
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
	cgroup  string // of all containers
	daemon  *exec.Cmd
	links   []string // before any container
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{cgroup: os.Getenv(envCgroup), links: links(t)}
	installPlugins(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of containerd's log:\n%s", tail(t, logFile, 4000))
		}
	})
	m.startContainerd(t)
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	check(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	m.runtime, m.images = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	m.awaitNetwork(t)
	version, err := m.runtime.Version(patience(t), &cri.VersionRequest{})
	check(t, err)
	t.Logf("%s %s, CRI %s", version.RuntimeName, version.RuntimeVersion, version.RuntimeApiVersion)
	m.importImage(t)
	return m
}

// installPlugins puts the recorder into /opt/cni/bin under each plugin's name,
// and the example into /etc/cni/net.d.
func installPlugins(t *testing.T) {
	t.Helper()
	helpers := os.Getenv(envHelpers)
	install(t, helpers+"/pod", podFile)
	for _, p := range []struct{ env, missing, name string }{
		{"BIN", "../../bin", "bridge-ln"}, {"BIN", "../../bin", "ipam-ln"},
		{"TOOLS", "../../.cache/bin", "loopback"}, {"TOOLS", "../../.cache/bin", "portmap"},
	} {
		install(t, filepath.Join(cmp.Or(os.Getenv(p.env), p.missing), p.name), "/opt/cni/behind/"+p.name)
		install(t, helpers+"/recorder", "/opt/cni/bin/"+p.name)
	}
	install(t, example, "/etc/cni/net.d/"+filepath.Base(example))
}

func install(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	check(t, err)
	check(t, os.MkdirAll(filepath.Dir(to), 0o755))
	check(t, os.WriteFile(to, data, 0o755))
}

// startContainerd does not stop it: it ends with the machine.
func (m *machine) startContainerd(t *testing.T) {
	t.Helper()
	check(t, os.WriteFile("/run/e2e/containerd.toml", []byte(config), 0o600))
	log, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	check(t, err)
	defer func() { _ = log.Close() }()
	m.daemon = exec.Command("containerd", "-c", "/run/e2e/containerd.toml")
	m.daemon.Stdout, m.daemon.Stderr = log, log
	check(t, m.daemon.Start())
}

// restartContainerd kills it and starts it again.
func (m *machine) restartContainerd(t *testing.T) {
	t.Helper()
	kill(t, m.daemon.Process.Pid)
	_ = m.daemon.Wait() // says that it was killed
	m.startContainerd(t)
	m.awaitNetwork(t)
}

func tail(t *testing.T, path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(data[max(0, len(data)-n):])
}

// importImage gives the image to the two namespaces of containerd: ctr's and
// the CRI's, which hears of it some time later.
func (m *machine) importImage(t *testing.T) {
	t.Helper()
	data, err := ociArchive(podFile)
	check(t, err)
	const file = "/run/e2e/image.tar"
	check(t, os.WriteFile(file, data, 0o600))
	m.ctr(t, "images", "import", file)
	m.ctr(t, "--namespace", "k8s.io", "images", "import", file)
	eventually(t, "the CRI knows the image", func() bool {
		r, err := m.images.ImageStatus(patience(t), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: image}})
		return err == nil && r.Image != nil
	})
}

// awaitNetwork waits until containerd answers and has read the example.
func (m *machine) awaitNetwork(t *testing.T) {
	t.Helper()
	eventually(t, "containerd says NetworkReady", func() bool {
		r, err := m.runtime.Status(patience(t), &cri.StatusRequest{})
		for _, c := range r.GetStatus().GetConditions() {
			if c.Type == cri.NetworkReady {
				return err == nil && c.Status
			}
		}
		return false
	})
}

// ctr runs containerd's command line and returns what it prints.
func (m *machine) ctr(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, "ctr", args...)
}

// command runs a program on the host, which must succeed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(patience(t), name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// patience bounds a call that may take long on a busy machine.
func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for what nothing tells of.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, tick := patience(t), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not so after a minute: %s", what)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kill ends a process as the kernel does when memory is short.
func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("not a container's process: %d", pid)
	}
	check(t, unix.Kill(pid, unix.SIGKILL))
}

func unmarshal(t *testing.T, data string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(data), v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
}

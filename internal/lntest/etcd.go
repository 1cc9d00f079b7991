package lntest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// Etcd is a member of an etcd cluster of a test, a process of its own. It ends
// with the test.
type Etcd struct {
	URL  string // for clients
	ask  string // for its health
	dir  string
	t    testing.TB
	args []string
	cmd  *exec.Cmd // nil: not running
	done chan error
}

// startTied starts cmd in the calling thread's network namespace so that it ends
// with this process, however that ends: Pdeathsig is about a thread, so one is
// kept for it.
func startTied(cmd *exec.Cmd) (done chan error, err error) {
	here, err := ns.GetCurrentNS()
	if err != nil {
		return nil, err
	}
	defer func() { _ = here.Close() }()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	started, done := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := here.Set()
		if err == nil {
			err = cmd.Start()
		}
		if started <- err; err == nil {
			done <- cmd.Wait()
		}
	}()
	return done, <-started
}

// NewEtcd returns the members of a new cluster, one for each address, which is
// to be an address of the network namespace that Start is called in. args are
// for all of them.
func NewEtcd(t testing.TB, addrs []string, args ...string) []*Etcd {
	t.Helper()
	scheme := "http"
	for _, a := range args {
		if strings.HasPrefix(a, "--cert-file") {
			scheme = "https"
		}
	}
	var all []*Etcd
	var cluster []string
	for i, a := range addrs {
		cluster = append(cluster, fmt.Sprintf("m%d=http://%s", i, net.JoinHostPort(a, "2380")))
	}
	for i, a := range addrs {
		client, peer := scheme+"://"+net.JoinHostPort(a, "2379"), "http://"+net.JoinHostPort(a, "2380")
		health := "http://" + net.JoinHostPort(a, "2381")
		dir := filepath.Join(t.TempDir(), "etcd")
		all = append(all, &Etcd{URL: client, ask: health, dir: dir, t: t, args: append([]string{
			fmt.Sprintf("--name=m%d", i), "--data-dir=" + dir,
			"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
			"--listen-metrics-urls=" + health, "--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
			"--initial-cluster=" + strings.Join(cluster, ","), "--unsafe-no-fsync",
			"--heartbeat-interval=50", "--election-timeout=500", "--log-level=error",
		}, args...)})
	}
	return all
}

// Start starts the member in the calling thread's namespaces. It does not wait
// for it: see Await.
func (e *Etcd) Start() {
	e.t.Helper()
	e.cmd = exec.Command(etcdProgram(e.t), e.args...)
	e.cmd.Stderr = os.Stderr
	var err error
	if e.done, err = startTied(e.cmd); err != nil {
		e.t.Fatalf("start etcd: %v", err)
	}
	e.t.Cleanup(e.Kill)
}

func etcdProgram(t testing.TB) string {
	t.Helper()
	dirs := []string{os.Getenv("TOOLS")}
	for up := "../.."; len(up) < len("../../../../.."); up += "/.." { // the test's package is somewhere below
		dirs = append(dirs, filepath.Join(up, ".cache/bin"))
	}
	for _, dir := range dirs {
		path, err := filepath.Abs(filepath.Join(dir, "etcd"))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	t.Fatalf("no etcd in %v: run make tools", dirs)
	return ""
}

// Kill ends the member as a power cut does.
func (e *Etcd) Kill() {
	if e.cmd == nil {
		return
	}
	_ = e.cmd.Process.Kill()
	<-e.done //nolint:errcheck // how it ended is known
	e.cmd = nil
}

// Wipe has a member that is not running forget everything.
func (e *Etcd) Wipe() {
	e.t.Helper()
	if err := os.RemoveAll(e.dir); err != nil {
		e.t.Fatal(err)
	}
}

// Pause stops the member in its tracks, and Resume lets it go on.
func (e *Etcd) Pause() { _ = e.cmd.Process.Signal(syscall.Signal(unix.SIGSTOP)) }

// Resume is the inverse of Pause.
func (e *Etcd) Resume() { _ = e.cmd.Process.Signal(syscall.Signal(unix.SIGCONT)) }

// Await waits until the member answers and has a leader. It is to be called
// where Start was.
func (e *Etcd) Await() {
	e.t.Helper()
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var last string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get(e.ask + "/health")
		if err != nil {
			last = err.Error()
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if last = string(body); strings.Contains(last, `"true"`) {
			return
		}
	}
	e.t.Fatalf("etcd %s does not come up: %s", e.URL, last)
}

// CPUTime is how long the member has computed since Start.
func (e *Etcd) CPUTime() time.Duration {
	e.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", e.cmd.Process.Pid))
	if err != nil {
		e.t.Fatal(err)
	}
	const user, system, tick = 11, 12, time.Second / 100 // after the name; USER_HZ is 100 everywhere
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	var ticks time.Duration
	for _, i := range []int{user, system} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			e.t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * tick
}

// Health is the URL at which the member says how it is, without TLS.
func (e *Etcd) Health() string { return e.ask }

// Save copies what a member that is not running has, and returns where to.
func (e *Etcd) Save() string {
	e.t.Helper()
	copied := filepath.Join(e.t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(e.dir)); err != nil {
		e.t.Fatal(err)
	}
	return copied
}

// Restore has a member that is not running know what it knew when it was saved,
// and nothing since.
func (e *Etcd) Restore(copied string) {
	e.t.Helper()
	e.Wipe()
	if err := os.CopyFS(e.dir, os.DirFS(copied)); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Chmod(e.dir, 0o700); err != nil {
		e.t.Fatal(err)
	}
}

package libnet_test

import (
	"context"
	"errors"
	"fmt"
	"github.com/libnet-cni/libnet/internal/lntest"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/pkg/libnet"
)

// killedStep has the test binary attach or detach a container, and be killed
// meanwhile by the plugin that it runs: "Join" or "Leave".
const killedStep = "LIBNET_TEST_STEP"

// beKilled runs in a process of its own.
func beKilled(step string) {
	dir := os.Getenv("LIBNET_TEST_DIR")
	ctx := context.Background()
	c := must(libnet.New(libnet.WithStateDir(dir+"/state"), libnet.WithDataDir(dir+"/data"),
		libnet.WithNetnsDir(dir+"/netns"), libnet.WithPluginPath(filepath.SplitList(os.Getenv("LIBNET_TEST_PATH"))...)))
	var err error
	if step == "CreateEndpoint" {
		_, err = must(c.Network(ctx, "net")).CreateEndpoint(ctx, "one")
		fmt.Fprintln(os.Stderr, "not killed:", err)
		return
	}
	e := must(must(c.Network(ctx, "net")).Endpoint(ctx, "one"))
	if step == "Join" {
		err = e.Join(ctx, must(c.Sandbox(ctx, "box")))
	} else {
		err = e.Leave(ctx)
	}
	fmt.Fprintln(os.Stderr, "not killed:", err)
}

// wrapped makes a plugin that runs the real one, and kills the process that started
// it at a point of a verb: "before" and "after" the real one, or "beside" it, when
// the real one goes on for a while; or "plugin" that kills itself after the real one
// has done all of its work.
func wrapped(t *testing.T, real, verb, at string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	script := fmt.Sprintf(`#!/bin/sh
if [ "$CNI_COMMAND" != %s ]; then exec %s; fi
case %s in
before) kill -9 $PPID; exit 1 ;;
beside) kill -9 $PPID; read line <%s/go; exec %s ;;
after) %s; kill -9 $PPID; exit 0 ;;
plugin) %s; kill -9 $$ ;;
esac
`, verb, real, at, dir, real, real, real)
	ok(t, lntest.WriteProgram(filepath.Join(dir, filepath.Base(real)), []byte(script)), syscall.Mkfifo(dir+"/go", 0o600))
	return dir
}

// An IPAM plugin of a bridge does not outlive its caller, and Collect takes back what
// it gave.
func TestKilledWhileAnIPAMPluginRuns(t *testing.T) {
	tools, bin := os.Getenv("TOOLS"), os.Getenv("BIN")
	for _, at := range []string{"before", "beside", "after"} {
		t.Run(at, func(t *testing.T) {
			ctx := t.Context()
			wrap := wrapped(t, filepath.Join(tools, "host-local"), "ADD", at)
			w := newWorld(t, bin, tools)
			n, err := w.NewNetwork(ctx, "bridge", "net", subnet("10.64.0.0/24"), libnet.WithIPAM("host-local", nil))
			ok(t, err)
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), killedStep+"=CreateEndpoint", "LIBNET_TEST_DIR="+filepath.Dir(w.state), "LIBNET_TEST_PATH="+strings.Join([]string{wrap, bin, tools}, ":"))
			out, err := runAlone(t, cmd)
			if status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus); err == nil || status.Signal() != syscall.SIGKILL {
				t.Fatalf("%v: %s", err, out)
			}
			ok(t, n.Collect(ctx, nil))
			if got := names(t, n); got != "" || len(leases(t, w.data, "net")) > 0 {
				t.Errorf("endpoints %q, addresses %q", got, leases(t, w.data, "net"))
			}
			ok(t, n.Delete(ctx))
		})
	}
}

// An IPAM plugin does not outlive the plugin that runs it: it would take an address
// after all was taken back.
func TestIPAMPluginWhosePluginIsKilled(t *testing.T) {
	tools, bin := os.Getenv("TOOLS"), os.Getenv("BIN")
	wrap := wrapped(t, filepath.Join(tools, "host-local"), "ADD", "beside")
	w := newWorld(t, wrap, bin, tools)
	n, err := w.NewNetwork(t.Context(), "ptp", "net", subnet("10.66.0.0/24"), libnet.WithIPAM("host-local", nil))
	ok(t, err)
	if _, err := n.Attach(t.Context(), w.sandbox(t, "box")); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Fatalf("got %v", err)
	}
	if f, err := os.OpenFile(wrap+"/go", os.O_WRONLY|syscall.O_NONBLOCK, 0); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("the IPAM plugin goes on: %v", err)
		_, err = f.WriteString("go\n")
		ok(t, err, f.Close())
	}
	if got := leases(t, w.data, "net"); len(got) > 0 {
		t.Errorf("addresses are left: %q", got)
	}
	ok(t, n.Delete(t.Context()))
}

// runAlone runs a command, and waits until all processes that it started have ended.
func runAlone(t *testing.T, cmd *exec.Cmd) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	ok(t, err)
	cmd.ExtraFiles = []*os.File{w} // which they all inherit
	out, err := cmd.CombinedOutput()
	ok(t, w.Close(), r.SetReadDeadline(time.Now().Add(time.Minute)))
	if _, readErr := io.ReadAll(r); readErr != nil {
		t.Errorf("the plugin outlives its caller: %v", readErr)
	}
	return string(out), errors.Join(err, r.Close())
}

// After kill -9 at any point of a plugin's ADD and DEL, Collect leaves nothing, and
// so do Leave, Delete and a repeated Join.
func TestKilledWhileAPluginRuns(t *testing.T) {
	for _, plugin := range []string{"macvlan", "ptp"} {
		for _, verb := range []string{"ADD", "DEL"} {
			for _, at := range []string{"before", "beside", "after", "plugin"} {
				for _, then := range []string{"Collect", "Leave", "Join", "Delete the sandbox"} {
					t.Run(strings.Join([]string{plugin, verb, at, then}, " "), func(t *testing.T) { killed(t, plugin, verb, at, then) })
				}
			}
		}
	}
}

func killed(t *testing.T, plugin, verb, at, then string) {
	ctx := t.Context()
	tools, bin := os.Getenv("TOOLS"), os.Getenv("BIN")
	wrap := wrapped(t, filepath.Join(tools, plugin), verb, at)
	w := newWorld(t, bin, tools)
	options := map[string]any{}
	if plugin == "macvlan" {
		defer addUplink("up0")()
		options["master"] = "up0"
	}
	before := hostLinks(t)
	net, err := w.NewNetwork(ctx, plugin, "net", libnet.WithDriverOptions(options), libnet.WithSubnet(netip.MustParsePrefix("10.60.0.0/24")))
	ok(t, err)
	box := w.sandbox(t, "box")
	e, err := net.CreateEndpoint(ctx, "one")
	ok(t, err)
	step := "Join"
	if verb == "DEL" {
		ok(t, e.Join(ctx, box))
		step = "Leave"
	}

	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), killedStep+"="+step, "LIBNET_TEST_DIR="+filepath.Dir(w.state), "LIBNET_TEST_PATH="+strings.Join([]string{wrap, bin, tools}, ":"))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if at == "plugin" { // the plugin was killed, and this process undid its work or says that it is left
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "signal: killed") {
			t.Fatalf("%v: %s", err, out)
		}
	} else if status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus); !errors.As(err, &exit) || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%v: %s", err, out)
	}
	if at == "beside" { // the plugin goes on while we clean up
		go func() { check(os.WriteFile(wrap+"/go", []byte("go\n"), 0)) }()
	}
	cleanUp(t, w, net, box, then)

	if then == "Join" { // it made it anew, once
		if got := linksIn(t, box.Path()); len(got) != 1 {
			t.Errorf("links: %q", got)
		}
		found, err := net.Endpoint(ctx, "one")
		ok(t, err, found.Verify(ctx), found.Leave(ctx), found.Delete(ctx))
	}
	if then != "Delete the sandbox" {
		if got := linksIn(t, box.Path()); len(got) > 0 {
			t.Errorf("links are left in the container: %q", got)
		}
	}
	if got := hostLinks(t); got != before {
		t.Errorf("links are left: %s, were %s", got, before)
	}
	if got := leases(t, w.data, "net"); len(got) > 0 {
		t.Errorf("addresses are left: %q", got)
	}
	if then == "Leave" || then == "Delete the sandbox" {
		found, err := net.Endpoint(ctx, "one")
		ok(t, err, found.Delete(ctx))
	}
	ok(t, net.Delete(ctx))
	if left, _ := filepath.Glob(w.state + "/drivers/networks/*"); len(left) > 0 {
		t.Errorf("records are left: %q", left)
	}
}

func cleanUp(t *testing.T, w *world, net *libnet.Network, box *libnet.Sandbox, then string) {
	t.Helper()
	ctx := t.Context()
	switch then {
	case "Collect":
		ok(t, net.Collect(ctx, nil))
		left, err := net.Endpoints(ctx)
		ok(t, err)
		for _, e := range left { // one that is not half made stays
			ok(t, e.Delete(ctx))
		}
	case "Leave":
		found, err := net.Endpoint(ctx, "one")
		ok(t, err)
		if err := found.Leave(ctx); !errors.Is(err, libnet.ErrNotJoined) { // by the killed process's own undo
			ok(t, err)
		}
	case "Join":
		found, err := net.Endpoint(ctx, "one")
		ok(t, err, found.Join(ctx, box))
	default:
		ok(t, w.DestroySandbox(ctx, "box"))
	}
}

func hostLinks(t *testing.T) string { return strings.Join(linksIn(t, "/proc/thread-self/ns/net"), " ") }

// A plugin that hangs is ended with the call's context, and what it made is removed.
func TestPluginThatHangs(t *testing.T) {
	tools, bin := os.Getenv("TOOLS"), os.Getenv("BIN")
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\n%[1]s/ptp || exit 1\nif [ $CNI_COMMAND = ADD ]; then read line <%[2]s/go; fi\n", tools, dir)
	ok(t, lntest.WriteProgram(filepath.Join(dir, "ptp"), []byte(script)), syscall.Mkfifo(dir+"/go", 0o600))
	w := newWorld(t, dir, bin, tools)
	before := hostLinks(t)
	n, err := w.NewNetwork(t.Context(), "ptp", "net", subnet("10.62.0.0/24"))
	ok(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		f, err := os.OpenFile(dir+"/go", os.O_WRONLY, 0) // waits until the plugin hangs
		cancel()
		check(err, f.Close())
	}()
	sb := w.sandbox(t, "box")
	if _, err := n.Attach(ctx, sb); err == nil || !strings.Contains(err.Error(), "plugin ptp ADD") {
		t.Fatalf("got %v", err)
	}
	left, err := n.Endpoints(t.Context())
	if err != nil || len(left) > 0 || len(linksIn(t, sb.Path())) > 0 || hostLinks(t) != before || len(leases(t, w.data, "net")) > 0 {
		t.Errorf("left: %v, %v, %q, %s, %q", err, left, linksIn(t, sb.Path()), hostLinks(t), leases(t, w.data, "net"))
	}
	ok(t, n.Delete(t.Context()))
}

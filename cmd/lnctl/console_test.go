package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// YAML has the keys and values of JSON, and wide tables are tables.
func TestFormats(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	golden(t, "network-ls.yaml", l.lnctl(0, "network", "ls", "-o", "yaml"))
	asJSON := l.lnctl(0, "port", "ls", "-o", "json")
	for _, same := range [][]string{{"ports", "--json"}, {"port", "ls", "-ojson"}, {"port", "ls", "-o", "yaml", "--json"}} {
		if got := l.lnctl(0, same...); got != asJSON {
			t.Errorf("%v: %s", same, got)
		}
	}
	if got := l.lnctl(0, "network", "ls", "-o", "table"); got != l.lnctl(0, "network", "ls") {
		t.Errorf("-o table: %s", got)
	}
}

// A command line that is wrong says what was meant, as a line or as JSON.
func TestMeant(t *testing.T) {
	t.Parallel()
	lntest.IsolateHost(t)
	for args, want := range map[string]string{
		"networks":               `unknown command "networks" for lnctl: did you mean "lnctl network"?; see lnctl --help`,
		"docter":                 `unknown command "docter" for lnctl: did you mean "lnctl doctor"?; see lnctl --help`,
		"network lss":            `unknown command "lss" for lnctl network: did you mean "lnctl network ls"?; see lnctl network --help`,
		"network ls web":         `unexpected argument "web": lnctl network ls takes none; see lnctl network ls --help`,
		"ports --jsn":            `unknown flag: --jsn: did you mean "--json"?`,
		"gc --dryrun":            `unknown flag: --dryrun: did you mean "--dry-run"?`,
		"network ls --output js": `invalid argument "js" for "-o, --output" flag: want one of table, wide, json, yaml`,
	} {
		var out, stderr strings.Builder
		if code := run(strings.Fields(args), nil, &out, &stderr); code != exitUsage || stderr.String() != "lnctl: "+want+"\n" || out.String() != "" {
			t.Errorf("%s: %d, %q %q, want %q", args, code, &out, &stderr, want)
		}
		for _, flag := range []string{"-o json ", "--output=json ", "--json "} {
			if strings.Contains(args, "--output") {
				continue
			}
			stderr.Reset()
			var got struct {
				Code   int
				Errors []string
			}
			run(strings.Fields(flag+args), nil, io.Discard, &stderr)
			if err := json.Unmarshal([]byte(stderr.String()), &got); err != nil || got.Code != exitUsage || len(got.Errors) != 1 || got.Errors[0] != want {
				t.Errorf("%s%s: %s, %v", flag, args, &stderr, err)
			}
		}
	}
}

func TestErrorsAsJSON(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	got := l.lnctl(exitProblem, "network", "inspect", "none", "-o", "json")
	if want := "{\n  \"code\": 1,\n  \"errors\": [\n    \"network \\\"none\\\": not found\"\n  ]\n}\n"; got != want {
		t.Errorf("got %s", got)
	}
	if got, want := l.lnctl(exitProblem, "network", "inspect", "none", "-o", "yaml"), "code: 1\nerrors:\n  - 'network \"none\": not found'\n"; got != want {
		t.Errorf("got %s", got)
	}
}

// Networks and containers of the host are completed.
func TestCompletion(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	for args, want := range map[string]string{
		"network inspect ":      "plain web",
		"network rm w":          "web",
		"network inspect web ":  "",
		"overlay peers p":       "plain",
		"names resolve --as ":   "c1 c2 c3 c4",
		"network ls --output ":  "table wide json yaml",
		"network in":            "inspect",
		"ipam release web ":     "10.32.0.2 10.32.0.3 fd32::2 fd32::3",
		"ipam release we":       "web",
		"trace ":                "c1 c2 c3 c4 host",
		"trace c1 c":            "c1 c2 c3 c4",
		"trace c1 192.":         "192.0.2.1:5000/udp 192.0.2.1:8080 192.0.2.1:9090",
		"trace c1 10.3":         "10.32.0.2:6000/udp 10.32.0.2:80 10.33.0.2:80 10.33.0.3:90",
		"trace c1 c2 ":          "",
		"service rm --network ": "plain web",
	} {
		words := strings.Split(args, " ")
		var got []string
		for line := range strings.Lines(l.lnctl(0, append([]string{"__complete"}, words...)...)) {
			if !strings.HasPrefix(line, ":") && !strings.HasPrefix(line, "Completion ended") {
				word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
				got = append(got, word)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
	if got := l.lnctl(0, "completion", "bash"); !strings.Contains(got, "lnctl") {
		t.Errorf("completion bash: %s", got)
	}
}

// An ordinary user is told which commands need root, and runs the rest.
func TestNeedsRoot(t *testing.T) {
	lntest.NeedsRoot(t, "it becomes another user")
	if dir := os.Getenv("LNCTL_AS_USER"); dir != "" {
		os.Exit(run(strings.Fields(os.Getenv("LNCTL_ARGS")), os.Stdin, os.Stdout, os.Stderr))
	}
	t.Parallel()
	dir, err := os.MkdirTemp("", "lnctl")
	if err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("/proc/self/exe")
	program := filepath.Join(dir, "lnctl.test")
	if err == nil {
		err = lntest.WriteProgram(program, data)
	}
	if err != nil {
		t.Fatal(err)
	}
	keys, err := os.MkdirTemp("/tmp", "lnctl")
	if err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(keys) })
		err = os.Chown(keys, 65534, 65534)
	}
	if err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]int{
		"overlay keygen " + keys + "/key": exitOK, "lint " + keys: exitOK,
		"network ls": exitRoot, "doctor": exitRoot, "names": exitRoot, "gc --dry-run": exitRoot, "ports -o json": exitRoot,
		"version": exitOK, "completion bash": exitOK, "network --help": exitOK, "": exitOK, "networks": exitUsage,
	} {
		cmd := exec.Command(program, "-test.run", "^TestNeedsRoot$")
		cmd.Env = append(os.Environ(), "LNCTL_AS_USER=yes", "LNCTL_ARGS="+args)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want || want == exitRoot && !strings.Contains(string(out), "lnctl "+strings.Split(args, " -")[0]+" needs root") {
			t.Errorf("lnctl %s as user: exit %d, want %d: %s", args, got, want, out)
		}
	}
}

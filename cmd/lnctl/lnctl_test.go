package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// golden compares with testdata/name; UPDATE=1 writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	for _, tt := range []struct {
		file string
		code int
		args string
	}{
		{"network-ls.txt", 0, "network ls"},
		{"network-ls.json", 0, "network ls --json"},
		{"network-inspect.txt", 0, "network inspect web"},
		{"network-inspect.json", 0, "--json network inspect plain"},
		{"network-missing.txt", 1, "network inspect none"},
		{"ports.txt", 0, "ports"},
		{"ports.json", 0, "ports --json"},
		{"doctor.txt", 1, "doctor"},
		{"doctor.json", 1, "doctor --json"},
		{"gc-dry-run.txt", 0, "gc --dry-run"},
		{"gc.json", 0, "gc --json"},
		{"gc-again.txt", 0, "gc"},
		{"doctor-well.txt", 0, "doctor"},
		{"repair.txt", 0, "repair"},
		{"usage.txt", 2, "network inspect"},
		{"unknown.txt", 2, "networks"},
		{"flag.txt", 2, "ports --all"},
	} {
		golden(t, tt.file, l.lnctl(tt.code, strings.Fields(tt.args)...))
	}
}

func TestNothingYet(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for args, want := range map[string]string{
		"network ls --json": "[]\n", "network prune": "no network is without containers\n", "ports --json": "[]\n", "gc --json": "[]\n", "gc": "nothing is dead\n",
		"repair": "rules of 0 attachments and publications put back, 0 untouched, 0 problems\n", "version": "lnctl v0.0.0-dev\n",
	} {
		if got := l.lnctl(0, strings.Fields(args)...); got != want {
			t.Errorf("lnctl %s: %q, want %q", args, got, want)
		}
	}
	if got := l.lnctl(0, "doctor"); strings.Contains(got, "✗") {
		t.Errorf("doctor on a new machine:\n%s", got)
	}
	if _, err := os.Stat("/run/libnet"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state directory: %v, want none", err)
	}
}

// A flush of our tables closes published ports; repair opens them again.
func TestRepair(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	l.serve("c1", "80")
	l.serve("c3", "90")
	reached := func(addr, want string) {
		t.Helper()
		if got, err := l.call(addr); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", addr, got, err, want)
		}
	}
	reached("192.0.2.1:8080", "c1")
	reached("192.0.2.1:9090", "c3")

	l.nft("", "delete", "table", "inet", "libnet")
	for _, addr := range []string{"192.0.2.1:8080", "192.0.2.1:9090"} {
		if got, err := l.call(addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s without rules: %q, %v, want connection refused", addr, got, err)
		}
	}
	l.failing("rules", "attachments", "portmap ports", "dead attachments")

	if got, want := l.lnctl(0, "repair"), "rules of 3 attachments and publications put back, 1 untouched, 0 problems\n"; got != want {
		t.Errorf("repair: %q, want %q", got, want)
	}
	reached("192.0.2.1:8080", "c1")
	reached("192.0.2.1:9090", "c3")
	l.failing("dead attachments")
}

// Repair says which repairs failed, and does the rest.
func TestRepairFails(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	l.nft("", "delete", "table", "inet", "libnet")
	// Another program takes port 8080 before the repair does.
	l.publish("other", "c3", "10.33.0.99", 8080)
	got := l.lnctl(1, "repair")
	for _, want := range []string{"untouched, 1 problem\n", "8080", "libnet-portmap:other/c3/eth0"} {
		if !strings.Contains(got, want) {
			t.Errorf("repair: no %q in\n%s", want, got)
		}
	}
	l.serve("c3", "90")
	if got, err := l.call("192.0.2.1:9090"); got != "c3" {
		t.Errorf("the rest: %q, %v, want c3", got, err)
	}
}

// gc takes what is dead, its address and its ports, and nothing else.
func TestGC(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	l.kill("c3")
	empty := "/var/lib/cni/networks/web/10.32.0.77" // what a killed host-local leaves
	l.must(os.WriteFile(empty, nil, 0o600))
	var dead []removed
	if err := json.Unmarshal([]byte(l.lnctl(0, "gc", "--dry-run", "--json")), &dead); err != nil {
		t.Fatal(err)
	}
	const gone = "its network namespace /run/netns/c3 is gone"
	want := []removed{
		{"plain", "c3", "eth0", "bridge-ln", gone},
		{"web", "c4", "eth0", "bridge-ln", "its network namespace /run/netns/c4 is gone"},
		{"pods", "c3", "eth0", "portmap-ln", gone},
	}
	if diff := cmp.Diff(want, dead); diff != "" {
		t.Errorf("gc --dry-run (-want +got):\n%s", diff)
	}
	held := func() (addrs []string) {
		t.Helper()
		for _, network := range []string{"web", "plain"} {
			files, err := filepath.Glob("/var/lib/cni/networks/" + network + "/*.*.*.*")
			l.must(err)
			for _, f := range files {
				addrs = append(addrs, filepath.Base(f))
			}
		}
		return addrs
	}
	if diff := cmp.Diff([]string{"10.32.0.2", "10.32.0.3", "10.32.0.77", "10.33.0.2", "10.33.0.3"}, held()); diff != "" {
		t.Errorf("leases after --dry-run (-want +got):\n%s", diff)
	}
	l.lnctl(0, "gc")
	if diff := cmp.Diff([]string{"10.32.0.2", "10.33.0.2"}, held()); diff != "" {
		t.Errorf("leases after gc (-want +got):\n%s", diff)
	}
	if got := l.lnctl(0, "ports"); strings.Contains(got, "c3") || !strings.Contains(got, "c1") {
		t.Errorf("ports after gc, want none of c3:\n%s", got)
	}
	networks, err := l.c.Networks(context.Background())
	if err != nil || len(networks) != 2 {
		t.Errorf("networks after gc: %d, %v, want 2", len(networks), err)
	}
	l.failing()
}

// failing runs doctor, compares what is wrong, and returns all it says.
func (l *lab) failing(want ...string) (out string) {
	l.t.Helper()
	code := exitOK
	if len(want) > 0 {
		code = exitProblem
	}
	out = l.lnctl(code, "doctor")
	var got []string
	for line := range strings.SplitSeq(out, "\n") {
		if rest, bad := strings.CutPrefix(line, "✗ "); bad {
			got = append(got, strings.TrimSpace(rest[:17]))
		}
	}
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" { // a line for each finding
		l.t.Errorf("doctor (-want +got):\n%s\n%s", diff, out)
	}
	return out
}

package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libnet-cni/libnet/internal/netconf"
)

// A new network overlaps no route, record or configuration of the host, its file is one that
// the plugins take, and no file is ever replaced.
func TestNetworkCreate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	dir := t.TempDir()
	create := func(code int, args string) string {
		t.Helper()
		return l.lnctl(code, append([]string{"network", "create", "--conf-dir", dir}, strings.Fields(args)...)...)
	}
	l.must(exec.Command("ip", "route", "add", "172.17.5.0/24", "dev", "uplink").Run())
	for args, want := range map[string]string{
		"web2 --subnet 10.32.0.0/16":              "--subnet 10.32.0.0/16 overlaps 10.32.0.0/24, which is a route",
		"web2 --subnet 192.0.2.0/28":              "overlaps 192.0.2",
		"web2 --bridge uplink0123456789":          "--bridge",
		"web2 --subnet 10.9.0.1/24":               "has host bits set",
		"web2 --gateway-mode natt":                `"natt": want "nat"`,
		"web2 --internal --gateway-mode nat":      "an internal network has none",
		"web2 --mtu 1200 --subnet fd77::/64":      "want at least 1280",
		"web2 --subnet 10.9.0.0/24 --ipv6":        "--ipv6 is for networks without --subnet",
		"web2 --subnet auto --subnet 10.9.0.0/24": "one for each address family",
		"../web": "invalid name",
	} {
		code := exitUsage
		if strings.Contains(want, "overlaps") {
			code = exitProblem
		}
		if got := create(code, args); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Fatalf("a refused create left %v", left)
	}
	create(exitOK, "one")
	if got := create(exitProblem, "one"); !strings.Contains(got, `network "one" is there already: `+dir) {
		t.Errorf("again: %s", got)
	}
	create(exitOK, "two --like kubernetes --ipv6")
	create(exitOK, "three --internal --subnet 10.9.0.0/24")
	var all []netip.Prefix
	for _, f := range netconf.Files(dir) {
		if f.Err != nil || len(f.Keys)+len(f.Strange) > 0 {
			t.Errorf("%s: %v %v", f.Path, f.Err, f.Keys)
		}
		for _, p := range f.Subnets {
			for _, o := range append(all, netip.MustParsePrefix("172.17.5.0/24"), netip.MustParsePrefix("10.32.0.0/24")) {
				if o.Overlaps(p) {
					t.Errorf("%s of %s overlaps %s", p, f.Path, o)
				}
			}
			all = append(all, p)
		}
	}
	if len(all) != 4 {
		t.Errorf("subnets %v, want 4", all)
	}
	if got := l.lnctl(exitOK, "network", "rm", "one", "--config", "--conf-dir", dir); got != "removed network one\n" {
		t.Errorf("rm: %s", got)
	}
	l.lnctl(exitProblem, "network", "rm", "one", "--config", "--conf-dir", dir)
	if files, _ := filepath.Glob(dir + "/*"); len(files) != 2 {
		t.Errorf("after rm: %v", files)
	}
}

// Creates that come at once have subnets of their own, or are refused.
func TestNetworkCreateAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	dir := t.TempDir()
	l.lnctl(exitOK, "network", "create", "first", "--conf-dir", dir)
	var wait sync.WaitGroup
	codes := make([]int, 8)
	for i := range codes {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestCreateChild$")
		cmd.Env = append(os.Environ(), "LNCTL_CREATE="+dir, "LNCTL_NAME=n"+string(rune('a'+i/2)))
		l.must(cmd.Start())
		wait.Go(func() { _ = cmd.Wait(); codes[i] = cmd.ProcessState.ExitCode() })
	}
	wait.Wait()
	made := 0
	for _, c := range codes {
		if c == exitOK {
			made++
		}
	}
	seen := map[string]string{}
	files := netconf.Files(dir)
	for _, f := range files {
		for _, p := range f.Subnets {
			if other := seen[p.String()]; other != "" {
				t.Errorf("%s and %s have %s", other, f.Path, p)
			}
			seen[p.String()] = f.Path
		}
	}
	if made != len(codes)/2 || len(files) != made+1 || len(seen) != len(files) {
		t.Errorf("%d were made, there are %d files with %d subnets", made, len(files), len(seen))
	}
}

// TestCreateChild is a process of TestNetworkCreateAtOnce.
func TestCreateChild(*testing.T) {
	if dir := os.Getenv("LNCTL_CREATE"); dir != "" {
		os.Exit(run([]string{"network", "create", os.Getenv("LNCTL_NAME"), "--conf-dir", dir}, os.Stdin, os.Stdout, os.Stderr))
	}
}

// A dry run prints what would be written, as a program reads it, too.
func TestNetworkCreateDry(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	dir := t.TempDir()
	var got struct {
		Network, File, Bridge string
		Subnets               []string
		Written               bool
		Config                struct{ Name string }
	}
	out := l.lnctl(exitOK, "network", "create", "web", "--conf-dir", dir, "--dry-run", "--json")
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Written || got.Config.Name != "web" || len(got.Subnets) != 1 || got.File != dir+"/50-web.conflist" {
		t.Errorf("%v: %s", err, out)
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 {
		t.Errorf("it wrote %v", files)
	}
}

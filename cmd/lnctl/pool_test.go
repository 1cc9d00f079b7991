package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A held address has its container, dead ones say why, and the use is counted.
func TestIPAM(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	golden(t, "ipam-ls.txt", l.lnctl(0, "ipam", "ls"))
	golden(t, "ipam-status.txt", l.lnctl(0, "ipam", "status", "web"))
	if got := l.lnctl(0, "ipam", "ls", "web", "-o", "wide"); !strings.Contains(got, "WORKLOAD") || !strings.Contains(got, "T") {
		t.Errorf("wide: %s", got)
	}
	if got := l.lnctl(exitProblem, "ipam", "ls", "none"); got != "lnctl: network \"none\": not found\n" {
		t.Errorf("a missing network: %s", got)
	}
}

// The address of a dead container is released with its links and rules; a living one's is
// not; a lease of which no record tells is released by force only.
func TestRelease(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	if got := l.lnctl(exitProblem, "ipam", "release", "web", "10.32.0.2", "--force"); !strings.Contains(got, "c1 eth0, an attachment of network") {
		t.Errorf("of a living container: %s", got)
	}
	if got := l.lnctl(0, "ipam", "release", "web", "10.32.0.3"); got != "released 10.32.0.3 of c4 eth0\nreleased fd32::3 of c4 eth0\n" {
		t.Errorf("of a dead one: %s", got)
	}
	if got := l.lnctl(0, "endpoint", "ls", "web"); strings.Contains(got, "c4") {
		t.Errorf("the dead one stays: %s", got)
	}
	l.must(os.WriteFile("/var/lib/cni/networks/web/10.32.0.77", []byte("lost1\r\neth0"), 0o600))
	if got := l.lnctl(exitProblem, "ipam", "release", "web", "10.32.0.77"); !strings.Contains(got, "--force") {
		t.Errorf("without a record: %s", got)
	}
	l.lnctl(0, "ipam", "release", "web", "10.32.0.77", "--force")
	if got := l.lnctl(exitProblem, "ipam", "release", "web", "10.32.0.77"); !strings.Contains(got, "10.32.0.77 is not held") {
		t.Errorf("again: %s", got)
	}
	l.lnctl(exitUsage, "ipam", "release", "web", "x")
	l.failing()
}

// Attachments are listed, and one whose link has lost its address is named by inspect and
// check.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	golden(t, "endpoint-ls.txt", l.lnctl(0, "endpoint", "ls"))
	golden(t, "endpoint-inspect.txt", l.lnctl(0, "endpoint", "inspect", "c1"))
	if got := l.lnctl(exitProblem, "endpoint", "inspect", "c"); !strings.Contains(got, "more than one begins so") {
		t.Errorf("of several: %s", got)
	}
	if got := l.lnctl(0, "check"); strings.Count(got, "✓") != 3 {
		t.Errorf("check: %s", got)
	}
	l.must(exec.Command("nsenter", "--net="+netnsOf("c1"), "ip", "addr", "flush", "dev", "eth0").Run())
	for _, args := range []string{"endpoint inspect c1", "check", "check web", "check -o json"} {
		if got := l.lnctl(exitProblem, strings.Fields(args)...); !strings.Contains(got, "10.32.0.2") || !strings.Contains(got, "1 of ") {
			t.Errorf("%s: %s", args, got)
		}
	}
	l.lnctl(0, "check", "plain")
}

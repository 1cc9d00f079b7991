package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/model"
)

// A network goes when it has no container, whatever is left to tell of it, and
// nothing of it stays; with one it is refused, and the container is named.
func TestNetworkRemove(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*lab){
		"all there": func(*lab) {},
		"no record": func(l *lab) { l.must(os.RemoveAll("/run/libnet")) },
		"no bridge": func(l *lab) { l.must(exec.Command("ip", "link", "del", "ln8").Run()) },
		"no rules":  func(l *lab) { l.nft("", "flush", "ruleset") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			seen := func() string {
				out, err := exec.Command("sh", "-c", "ip -o link | grep -v link-netns | cut -d: -f2; nft list ruleset; find /run/libnet -type f ! -name addresses").CombinedOutput()
				if err != nil && !strings.Contains(string(out), "No such file") {
					t.Fatalf("%v: %s", err, out)
				}
				return strings.ReplaceAll(string(out), "find: ‘/run/libnet’: No such file or directory\n", "")
			}
			before := seen()
			n := l.network("old", natMode("ln8"), "10.38.0.0/24")
			l.attach(n, "c1")
			if got := l.lnctl(exitProblem, "network", "rm", "old"); !strings.Contains(got, "c1 eth0") {
				t.Errorf("rm of a network in use: %s", got)
			}
			if got := l.lnctl(exitOK, "network", "prune"); got != "no network is without containers\n" {
				t.Errorf("prune of a network in use: %s", got)
			}
			if err := n.Remove(t.Context(), model.ID{Network: "old", ContainerID: "c1", IfName: "eth0"}); err != nil {
				t.Fatal(err)
			}
			lose(l)
			if got := l.lnctl(exitOK, "network", "rm", "old"); got != "removed network old\n" {
				t.Errorf("rm: %s", got)
			}
			if after := seen(); after != before {
				t.Errorf("left; before:\n%s\nafter:\n%s", before, after)
			}
			if got := l.lnctl(exitProblem, "network", "rm", "old"); !strings.Contains(got, "not found") {
				t.Errorf("rm again: %s", got)
			}
		})
	}
}

// prune removes networks without containers, and dead containers with them.
func TestNetworkPrune(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	l.network("empty", natMode("ln5"), "10.35.0.0/24")
	l.attach(l.network("gone", natMode("ln6"), "10.36.0.0/24"), "c6")
	l.kill("c6")
	if got, want := l.lnctl(exitOK, "network", "prune"), "removed network empty\nremoved network gone\n"; got != want {
		t.Errorf("prune: %q, want %q", got, want)
	}
	if got := l.lnctl(exitOK, "network", "ls"); strings.Contains(got, "empty") || !strings.Contains(got, "web") {
		t.Errorf("left:\n%s", got)
	}
}

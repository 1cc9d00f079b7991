package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// With every file lost, repair writes them anew: what it lists then is what it
// listed before, and all is well.
func TestRepairLostFiles(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	l.lnctl(0, "gc") // of the dead nothing would be left to tell
	l.serve("c1", "80")
	leases := func() []string {
		t.Helper()
		files, err := filepath.Glob("/var/lib/cni/networks/*/*[.:]*")
		l.must(err)
		var all []string
		for _, f := range files {
			data, err := os.ReadFile(f)
			l.must(err)
			if name := filepath.Base(f); name[0] != 'l' { // last_reserved_ip.0
				all = append(all, name+" "+string(data))
			}
		}
		return all
	}
	rules := func() string {
		t.Helper()
		out, err := exec.Command("nft", "list", "ruleset").Output()
		l.must(err)
		return string(out)
	}
	seen := func() map[string]any {
		return map[string]any{
			"networks": l.lnctl(0, "network", "ls"), "ports": l.lnctl(0, "ports", "--json"), "leases": leases(), "rules": rules(),
		}
	}
	before := seen()

	l.must(errors.Join(os.RemoveAll("/run/libnet"), os.RemoveAll("/var/lib/cni/networks")))
	golden(t, "repair-lost.txt", l.lnctl(0, "repair"))
	golden(t, "repair-lost-again.json", l.lnctl(0, "repair", "--json"))
	if diff := cmp.Diff(before, seen()); diff != "" {
		t.Errorf("(-lost +rebuilt):\n%s", diff)
	}
	l.failing()
	if got, err := l.call("192.0.2.1:8080"); err != nil || got != "c1" {
		t.Errorf("the published port: %q, %v, want c1", got, err)
	}
}

package main

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The demo shows what it says, and finds the host as it was.
func TestDemo(t *testing.T) {
	t.Parallel()
	bin, err := filepath.Abs(cmp.Or(os.Getenv("BIN"), "../../bin"))
	if err != nil {
		t.Fatal(err)
	}
	demo := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.Command("go", "build", "-o", demo, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, args := range [][]string{nil, {"-names"}, {"-services"}} {
		out, err := exec.Command(demo, append(args, "-bin", bin, "-conf", "../../conf/examples")...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "No difference in") {
			t.Errorf("demo %v: %v\n%s", args, err, out)
		}
	}
}

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
	tools := cmp.Or(os.Getenv("TOOLS"), "../../.cache/bin")
	for _, tt := range []struct {
		args []string
		ends string
	}{
		{nil, "No difference in"},
		{[]string{"-names"}, "No difference in"},
		{[]string{"-services"}, "No difference in"},
		{[]string{"-mesh", "-tools", tools}, "etcd holds no key"},
	} {
		out, err := exec.Command(demo, append(tt.args, "-bin", bin, "-conf", "../../conf/examples")...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), tt.ends) {
			t.Errorf("demo %v: %v\n%s", tt.args, err, out)
		}
	}
}

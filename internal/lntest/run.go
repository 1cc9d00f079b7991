package lntest

import (
	"os/exec"
	"strings"
	"testing"
)

// Run runs a tool of the host in the network namespace of the calling thread, and returns what it
// prints. The test ends if it fails.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

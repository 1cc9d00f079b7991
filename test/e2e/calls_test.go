package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// call is what the recorder noted of one call of a plugin.
type call struct {
	Plugin, Command, ContainerID, IfName, Netns string

	Stdin          json.RawMessage
	Stdout, Stderr string
	Code           int
	Took           time.Duration
}

// calls returns what a plugin was asked for a container, in order. A call that
// did not succeed, or that wrote to stderr, fails the test.
func calls(t *testing.T, plugin, cmd, containerID string) []call {
	t.Helper()
	data, err := os.ReadFile("/run/e2e/calls")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var found []call
	for line := range strings.Lines(string(data)) {
		var c call
		unmarshal(t, line, &c)
		if c.Plugin != plugin || c.Command != cmd || c.ContainerID != containerID {
			continue
		}
		if c.Code != 0 || c.Stderr != "" {
			t.Errorf("%s %s ended with %d\nstdin: %s\nstdout: %s\nstderr: %s", plugin, cmd, c.Code, c.Stdin, c.Stdout, c.Stderr)
		}
		found = append(found, c)
	}
	return found
}

// addCall fails the test unless bridge-ln was called with ADD once, and logs the
// time it took.
func addCall(t *testing.T, name, containerID string, addrs []netip.Addr) {
	t.Helper()
	all := calls(t, "bridge-ln", "ADD", containerID)
	if len(all) != 1 {
		t.Fatalf("%d calls of bridge-ln ADD for %s, want 1", len(all), containerID)
	}
	t.Logf("%s has %v; ADD took %s", name, addrs, round(all[0].Took))
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// delCalls fails the test unless bridge-ln was called with DEL at least so
// often, each time with success, and the last time with no namespace. After
// the first, libcni has forgotten the prevResult.
func delCalls(t *testing.T, name, containerID string, want int) {
	t.Helper()
	all := calls(t, "bridge-ln", "DEL", containerID)
	for i, c := range all {
		netns := c.Netns
		if netns == "" {
			netns = "none"
		}
		t.Logf("%s: DEL %d of %d, network namespace %s, took %s", name, i+1, len(all), netns, round(c.Took))
	}
	if len(all) < want {
		t.Fatalf("%d calls of bridge-ln DEL for %s, want at least %d", len(all), containerID, want)
	}
	last := all[len(all)-1]
	if last.Netns != "" {
		t.Errorf("the last DEL for %s has the network namespace %q, want none", containerID, last.Netns)
	}
	if len(all) > 1 && bytes.Contains(last.Stdin, []byte(`"prevResult"`)) {
		t.Errorf("the last DEL for %s has a prevResult: %s", containerID, last.Stdin)
	}
}

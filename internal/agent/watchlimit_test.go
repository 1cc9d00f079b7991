package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Other programs of the user may have all inotify instances: configurations and leases are looked
// at all the same, the log says what to raise, and once there is one they are watched.
func TestWithoutInotify(t *testing.T) {
	t.Parallel()
	if !lntest.OwnUser(t) {
		return
	}
	lntest.LimitInotify(t, 0)
	a, log := newAgent(t)
	a.conf.StateDir = t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- a.followConf(ctx) }()
	go func() { done <- a.claimLoop(ctx) }()
	await := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(lntest.WaitForAnswer); !is(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not %s", what)
			}
		}
	}
	has := func(n int) func() bool { return func() bool { return len(a.situation().networks) == n } }
	data := t.TempDir()
	write := func(name string) {
		conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"overlay-ln","subnet":"10.5.0.0/16","ipam":{"dataDir":%q}}`, name, filepath.Join(data, name))
		if err := os.WriteFile(filepath.Join(a.conf.ConfDir, name+".conf"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	await("one network", has(1))
	said := func(about string) func() bool {
		return func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return strings.Contains(a.said[about], "fs.inotify.max_user_instances=")
		}
	}
	await("told of leases", said("leases"))
	await("told of configurations", said("watch of configurations"))
	lntest.LimitInotify(t, 100)
	await("watched", func() bool { return !said("leases")() && !said("watch of configurations")() })
	write("second")
	await("two networks", has(2))
	lntest.LimitWatches(t, 0) // no more directories than now
	write("third")
	await("three networks", has(3))
	await("told that one is not watched", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return strings.Contains(a.said["leases"], "fs.inotify.max_user_watches=")
	})
	lntest.LimitWatches(t, 100)
	await("all are watched", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.said["leases"] == "" })
	cancel()
	if err := errors.Join(<-done, <-done); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := log.String(); !strings.Contains(got, "configurations are watched") || !strings.Contains(got, "leases are watched") {
		t.Error(got)
	}
}

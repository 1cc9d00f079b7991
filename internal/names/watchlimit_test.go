package names

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Other programs of the user may have all inotify instances: the service says so, and begins once
// there is one.
func TestWithoutInotify(t *testing.T) {
	t.Parallel()
	if !lntest.OwnUser(t) {
		return
	}
	lntest.LimitInotify(t, 0)
	s := New(Config{StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	limited := func() bool {
		err := s.Err()
		return err != nil && strings.Contains(err.Error(), "fs.inotify.max_user_instances=")
	}
	if !limited() {
		t.Error(s.Err())
	}
	lntest.LimitInotify(t, 100)
	for end := time.Now().Add(lntest.WaitForAnswer); limited(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(s.Err())
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

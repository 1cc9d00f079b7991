package iptables

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Many at once, each from first use to last: no endpoint loses a rule, and nothing stays.
func TestComeAndGo(t *testing.T) {
	t.Parallel()
	path := lntest.NewNetns(t)
	lock := filepath.Join(t.TempDir(), "dir", "lock")
	errs := make(chan error)
	const many = 4
	for i := range many {
		go func() {
			errs <- lntest.In(t, path, func() error {
				n, e := plain(i + 1)
				f := New(lock)
				for range 3 {
					if _, err := f.Apply(t.Context(), n, e); err != nil {
						return err
					}
					if err := f.Verify(t.Context(), n, e); err != nil {
						return fmt.Errorf("after apply: %w", err)
					}
					if err := errors.Join(f.Remove(t.Context(), e), f.RemoveNetwork(t.Context(), n)); err != nil {
						return err
					}
				}
				return nil
			})
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	err := lntest.In(t, path, func() error {
		if text := ruleset(t); strings.Contains(text, "LIBNET") {
			t.Error(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	f := isolate(t)
	n, e := plain(1)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	held, release := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- locked(t.Context(), f.lock, func() error { close(held); <-release; return nil })
	}()
	<-held
	if _, err := f.Apply(ctx, n, e); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another has the lock: got %v, want %v", err, context.DeadlineExceeded)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := f.Apply(ctx, n, e); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		t.Errorf("after the deadline: got %v", err)
	}
	mustApply(t, f, n, e)
}

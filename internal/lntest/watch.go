package lntest

import (
	"context"
	"errors"
	"testing"
	"time"
)

// Watcher calls changed after each change that it watches, until ctx ends.
type Watcher interface {
	Run(ctx context.Context, changed func()) error
	Close()
}

// Tells says whether w, which is closed then, tells of what do changes within patience.
func Tells(t testing.TB, w Watcher, do func() error, patience time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan struct{}, 1000), make(chan error, 1)
	go func() { done <- w.Run(ctx, func() { told <- struct{}{} }) }()
	defer func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		w.Close()
	}()
	if err := do(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-told:
		return true
	case <-time.After(patience):
		return false
	}
}

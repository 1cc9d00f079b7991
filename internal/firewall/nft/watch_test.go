package nft

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Whatever is removed of our tables is told; what we add, and what others
// remove of theirs, is not.
func TestWatch(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := sample(1)
	nft := func(line string) func() error {
		return func() error { return exec.Command("nft", strings.Fields(line)...).Run() }
	}
	apply := func() error { _, err := f.Apply(t.Context(), n, e); return err }
	for _, tt := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"rules come", apply, false},
		{"another's table comes", nft("add table inet other"), false},
		{"another's table goes", nft("delete table inet other"), false},
		{"an endpoint's rules go", func() error { return f.Remove(t.Context(), e) }, true},
		{"a chain is flushed", nft("flush chain inet libnet forward"), true},
		{"our table goes", nft("delete table inet libnet"), true},
		{"rules come again", apply, false},
		{"everything goes", nft("flush ruleset"), true},
	} {
		if got := tells(t, tt.do, tt.want); got != tt.want {
			t.Errorf("%s: told of it %t, want %t", tt.name, got, tt.want)
		}
	}
}

// tells says whether a watcher that is there only for this change tells of it.
func tells(t *testing.T, do func() error, want bool) bool {
	t.Helper()
	w, err := Watch()
	if err != nil {
		t.Fatal(err)
	}
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
	patience := 2 * lntest.WaitForAnswer
	if !want {
		patience = lntest.WaitForNone
	}
	select {
	case <-told:
		return true
	case <-time.After(patience):
		return false
	}
}

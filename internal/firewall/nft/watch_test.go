package nft

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Whatever is removed of our tables is told; what we add, and what others
// remove of theirs, is not.
func TestWatch(t *testing.T) {
	t.Parallel()
	f := start(t)
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
	n, e := sample(1)
	nft := func(line string) func() error {
		return func() error { return exec.Command("nft", strings.Fields(line)...).Run() }
	}
	apply := func() error { _, err := f.Apply(ctx, n, e); return err }
	for _, tt := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"rules come", apply, false},
		{"another's table comes", nft("add table inet other"), false},
		{"another's table goes", nft("delete table inet other"), false},
		{"an endpoint's rules go", func() error { return f.Remove(ctx, e) }, true},
		{"a chain is flushed", nft("flush chain inet libnet forward"), true},
		{"our table goes", nft("delete table inet libnet"), true},
		{"rules come again", apply, false},
		{"everything goes", nft("flush ruleset"), true},
	} {
		for len(told) > 0 {
			<-told
		}
		if err := tt.do(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		patience := 20 * time.Second
		if !tt.want {
			patience = 100 * time.Millisecond
		}
		select {
		case <-told:
			if !tt.want {
				t.Errorf("%s: told of it", tt.name)
			}
			time.Sleep(50 * time.Millisecond) // for more of the same
		case <-time.After(patience):
			if tt.want {
				t.Errorf("%s: not told of it in %s", tt.name, patience)
			}
		}
	}
}

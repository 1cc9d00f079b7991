package enforce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// inForce tells how long each change took, as the log says.
type inForce struct {
	slog.Handler
	took chan time.Duration
}

func (f inForce) Enabled(context.Context, slog.Level) bool { return true }

func (f inForce) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "took" {
			f.took <- a.Value.Duration()
		}
		return true
	})
	return nil
}

// BenchmarkChange changes policies among 1000, with 10,000 pods, one after the other, each of which
// isolates a pod of this node, and tells how long it takes from the news until it is in force: by the
// loop of the agent, which gathers changes, and compares what is in the kernel.
func BenchmarkChange(b *testing.B) {
	lntest.Isolate(b)
	path := lntest.NewNetns(b)
	f := inForce{slog.DiscardHandler, make(chan time.Duration, 100)}
	e := large(b)
	e.log = slog.New(f)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 3)
	for _, run := range []func(context.Context) error{e.loop, e.guard, e.compare} {
		go func() { done <- lntest.In(b, path, func() error { return run(ctx) }) }()
	}
	defer func() {
		cancel()
		for range 3 {
			if err := <-done; !errors.Is(err, context.Canceled) {
				b.Error(err)
			}
		}
		_ = e.tables.Close()
	}()
	<-f.took
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		ns, policy := largeOf(i)
		e.Policy(largePolicy(b, ns, policy, 8100+i%1000), false)
		took = append(took, <-f.took)
		time.Sleep(time.Duration(i*7%100) * time.Millisecond) // also while the loop gathers, or compares
	}
	slices.Sort(took)
	for _, p := range []int{50, 99, 100} {
		at := max(0, len(took)*p/100-1)
		b.ReportMetric(float64(took[at].Microseconds())/1000, fmt.Sprintf("ms/p%d", p))
	}
}

package enforce

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/libnet-cni/libnet/internal/firewall/admit"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/netpolicy"
)

// compare looks, some time after events, whether the kernel has the elements that were written, and has
// the loop write them anew if not. It is apart from the loop, as it takes as long as several changes: one
// that comes meanwhile does not wait for it, and has it look again.
func (e *Enforcer) compare(ctx context.Context) error {
	pause := look
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.removed:
		}
		for again, tries := true, 0; again; tries++ {
			if !pass(ctx, pause) {
				return ctx.Err()
			}
			start := time.Now()
			again = e.compareOnce(ctx, tries >= patience)
			pause = pauseAfter(time.Since(start))
		}
	}
}

// pauseAfter is how long elements are not compared again, by what that took: at times the kernel does
// not answer for many seconds, which says nothing of what the next will take.
func pauseAfter(took time.Duration) time.Duration {
	return min(max(look, lookShare*took), lookMost)
}

// patience is how often a change may come while elements are compared. Then changes wait.
const patience = 2

// compareOnce compares with what was written last, and says whether to look again, as a change came
// meanwhile. What differs is noted before the next change: that would not write it.
func (e *Enforcer) compareOnce(ctx context.Context, alone bool) (again bool) {
	if alone {
		e.writing.Lock()
		defer e.writing.Unlock()
	}
	w := e.written.Load()
	if w == nil {
		return !alone // of a change; after one that failed all is written anew
	}
	same, err := e.asWritten(ctx, *w)
	if err != nil {
		return true
	}
	if same {
		return w != e.written.Load()
	}
	if !alone {
		e.writing.Lock()
		defer e.writing.Unlock()
		if w != e.written.Load() {
			return true
		}
	}
	e.damaged()
	return false
}

// asWritten says whether the kernel has these elements, and no others; if not, all of them are to be
// written anew. An element that is missing may leave a pod open.
func (e *Enforcer) asWritten(ctx context.Context, w desired) (bool, error) {
	all, err := e.tables.List(ctx)
	if err != nil {
		return false, err
	}
	has := bySlot(all)
	_, want := changes(e.tables.Sets, desired{Rules: &netpolicy.Rules{}}, w)
	same := len(has) == len(want)
	for _, w := range want {
		h, there := has[w.Slot()]
		same = same && there && h.Gives(w)
	}
	return same, nil
}

// damaged has all elements be written anew. The caller holds writing.
func (e *Enforcer) damaged() {
	e.has(desired{})
	e.locked(func() bool { return true })
	e.log.Error("another program has changed elements of our sets: they are written anew", "table", admit.TableName)
}

// has notes what is in the kernel; without Rules it is unknown.
func (e *Enforcer) has(now desired) {
	if e.have = now; now.Rules == nil {
		e.written.Store(nil)
		return
	}
	e.written.Store(&now)
}

// guard looks at the kernel whenever another program removes, adds or changes something of our tables,
// and once as it begins: of what was before that no event tells.
func (e *Enforcer) guard(ctx context.Context) error {
	w, err := nft.WatchTable(admit.TableName, true, e.tables.Wrote)
	if err != nil {
		return err
	}
	defer w.Close()
	g, inner := errgroup.WithContext(ctx)
	event := func() {
		select {
		case e.events <- struct{}{}:
		default:
		}
	}
	event()
	g.Go(func() error { return w.Run(inner, event) })
	g.Go(func() error { return e.inspect(inner) })
	return g.Wait()
}

// inspect looks whether the rules are whole after events, and has the loop look if they are not, or
// cannot be read.
func (e *Enforcer) inspect(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.events:
		}
		start := time.Now()
		if whole, _, err := e.tables.Whole(ctx); err != nil || !whole {
			e.locked(func() bool { return true })
		}
		select {
		case e.removed <- struct{}{}:
		default:
		}
		rest := time.NewTimer(min(max(inspectShare*time.Since(start), gatherLeast), look))
		select {
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		case <-rest.C:
		}
	}
}

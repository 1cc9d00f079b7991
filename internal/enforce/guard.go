package enforce

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/libnet-cni/libnet/internal/firewall/admit"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/netpolicy"
)

// compare looks, some time after events, and rarely without any, whether the kernel has the elements
// that were written, and has the loop write them anew if not.
func (e *Enforcer) compare(ctx context.Context) error {
	pause := look
	for {
		rest := time.NewTimer(rarely)
		select {
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		case <-e.removed:
		case <-rest.C:
		}
		rest.Stop()
		for again := true; again; {
			if !pass(ctx, pause) {
				return ctx.Err()
			}
			start := time.Now()
			again = e.compareOnce(ctx)
			pause = pauseAfter(time.Since(start))
		}
	}
}

// pauseAfter is how long elements are not compared again, by what that took: at times the kernel does
// not answer for many seconds, which says nothing of what the next will take.
func pauseAfter(took time.Duration) time.Duration {
	return min(max(look, lookShare*took), lookMost)
}

// compareOnce says whether to look again, as the elements could not be read.
func (e *Enforcer) compareOnce(ctx context.Context) (again bool) {
	same, err := e.asWritten(ctx)
	if err == nil && !same {
		e.writing.Lock()
		e.damaged()
		e.writing.Unlock()
	}
	return err != nil
}

// asWritten says whether the kernel has the elements that were written last, and no others; if not, all
// of them are to be written anew. An element that is missing may leave a pod open. A change waits only
// while they are listed: to decode and to compare them takes ten times as long.
func (e *Enforcer) asWritten(ctx context.Context) (bool, error) {
	e.writing.Lock()
	w := e.have
	if w.Rules == nil {
		e.writing.Unlock()
		return true, nil // it is not known what was written: all will be written anew
	}
	list, err := e.tables.List(ctx)
	e.writing.Unlock()
	if err != nil {
		return false, err
	}
	all, err := list.Elems()
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
	e.have = desired{}
	e.locked(func() bool { return true })
	e.log.Error("another program has changed elements of our sets: they are written anew", "table", admit.TableName)
}

// guard looks at the kernel whenever another program removes, adds or changes something of our tables,
// and once when it begins, as no event tells of what happened before.
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
			e.give() // no policy has changed
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

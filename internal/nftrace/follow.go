package nftrace

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/fastpath"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// quiet is how long no step follows the last one: the kernel tells no end.
const quiet = 200 * time.Millisecond

// Slow has no packet go the fast path for so long.
func Slow(d time.Duration) error { return fastpath.Slow(d + quiet) }

// Follow returns the way of the packet, with what chains of the trace itself show of it (Step.Own),
// whatever other packets that match do meanwhile. It waits for the first step until ctx is done, and
// for each next one for a short while. Names of interfaces are those of the calling thread's
// network namespace.
func (t *Tracer) Follow(ctx context.Context) (steps []Step, err error) {
	f := following{Tracer: t, ctx: ctx, ids: map[uint32]bool{}}
	if err := t.events.SetTimeout(quiet); err != nil {
		return nil, err
	}
	for {
		err = t.events.Receive(f.take)
		ended := len(f.ids) > 0 || ctx.Err() != nil
		switch {
		case errors.Is(err, unix.EAGAIN) && ended:
			return f.steps, nil
		case errors.Is(err, unix.EAGAIN): // nothing yet
		default:
			return f.steps, err
		}
	}
}

// following is what Follow knows so far.
type following struct {
	*Tracer
	ctx   context.Context
	ids   map[uint32]bool
	last  time.Time
	hook  string
	ended Step
	steps []Step
}

// over says, when a packet comes that is another, that no more is to be expected.
func (f *following) over() bool {
	if f.last.IsZero() && f.ctx.Err() != nil {
		f.last = time.Now()
	}
	return !f.last.IsZero() && time.Since(f.last) > quiet
}

// take takes what the kernel tells of a packet.
func (f *following) take(a nfnl.Answer, isErr bool, _ unix.Errno) (done bool, err error) {
	if isErr || a.Type != msgTrace {
		return false, nil
	}
	id := nfnl.Uint32(nfnl.Find(a.Attrs, traceID))
	mark := fingerprintOf(nfnl.Find(a.Attrs, traceNetwork), nfnl.Find(a.Attrs, traceTransport))
	if f.leads && len(f.ids) == 0 {
		f.packet.print = mark
		close(f.packet.known)
		f.leads = false
	}
	// The kernel may have another ID for the packet from one hook to the next.
	if !f.ids[id] {
		if want, known := f.packet.wait(f.ctx); !known || mark != want {
			return f.over(), nil
		}
	}
	f.ids[id], f.last = true, time.Now()
	s := f.step(a.Attrs, &f.hook)
	switch {
	case s.Own() && s.Handle != 0:
	case s.Handle == 0 && s.Verdict == "continue": // the chain's policy comes next
		f.ended = s
	default:
		if f.ended.Chain == s.Chain { // which has the headers
			s.From, s.To, s.In, s.Out, s.Hops = f.ended.From, f.ended.To, f.ended.In, f.ended.Out, f.ended.Hops
		}
		f.ended = Step{}
		f.steps = append(f.steps, s)
	}
	return len(f.steps) == mostPerOutput, nil
}

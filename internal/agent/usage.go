package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

const (
	// usageWait is how long the claim loop waits for the lock of a pool: other
	// networks wait with it.
	usageWait = 2 * time.Second
	// ever is a wait that ends with the agent.
	ever = 365 * 24 * time.Hour
)

// question asks how much of a network's pool is in use. It is asked by one
// goroutine at a time: a caller that gives up a wait for a lock leaves a thread
// and a descriptor behind until the lock is free, and a holder that is stopped
// may keep it for ever.
type question struct {
	done chan struct{}
	use  []address.Use
	err  error       // once done
	late atomic.Bool // the loop has gone on without the answer

	mu   sync.Mutex
	busy error // names the owner of the lock; nil: not known yet
}

func (q *question) setBusy(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = err
}

// waiting says that there is no answer yet.
func (q *question) waiting() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy != nil {
		return q.busy
	}
	return fmt.Errorf("use of the pool: no answer within %s: %w", usageWait, ipamstore.ErrLocked)
}

// ask puts a question for a host's blocks of a network.
func (a *Agent) ask(ctx context.Context, n netconf.AgentNetwork, own []netip.Prefix) *question {
	q := &question{done: make(chan struct{})}
	look := func(timeout time.Duration) ([]address.Use, error) {
		pool, err := address.NewPool(ipamstore.Config{Network: n.Name, DataDir: n.DataDir, Sets: address.BlockSets(own), LockTimeout: timeout}, model.Addressing{})
		if err != nil {
			return nil, err
		}
		return pool.Usage(ctx)
	}
	go func() {
		q.use, q.err = look(0)
		if errors.Is(q.err, ipamstore.ErrLocked) && ctx.Err() == nil {
			q.setBusy(q.err)
			q.use, q.err = look(ever)
		}
		close(q.done)
		if q.late.Load() {
			a.claim.give()
		}
	}()
	return q
}

// usage says how much of this host's blocks is in use, by family. Only the claim
// loop calls it.
func (a *Agent) usage(ctx context.Context, n netconf.AgentNetwork, own []netip.Prefix) ([]address.Use, error) {
	if len(own) == 0 {
		return nil, nil
	}
	q := a.questions[n.Name]
	if q == nil {
		q = a.ask(ctx, n, own)
		a.questions[n.Name] = q
	}
	late := time.NewTimer(usageWait)
	defer late.Stop()
	select {
	case <-q.done:
	case <-late.C:
		q.late.Store(true)
		select {
		case <-q.done: // it came just now, and may not have seen that it is late
		default:
			return nil, q.waiting()
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	delete(a.questions, n.Name)
	a.change(n.Name, func(s *status) { s.use = q.use })
	return q.use, q.err
}

package capture

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Query is a DNS query of a container.
type Query struct {
	// Bridge by which it came; empty over TCP.
	Bridge string
	// From is the container's address, To the server that it was sent to.
	From    netip.Addr
	To      netip.AddrPort
	TCP     bool
	Message []byte // good until Respond returns
	// Room is where the answer may be put; nil: nowhere.
	Room []byte
}

// Config is what a Capture works with.
type Config struct {
	// Respond returns the answer to a query; nil: it is for the server that it was
	// sent to. It is called by several goroutines.
	Respond func(Query) []byte
	// Look is called before a query over TCP is responded to; nil: nothing.
	Look func()
	// Looker is called in each thread that waits for queries over UDP, which then runs nothing
	// else. That thread calls look before it responds to the queries that came at once, and
	// done in the end. nil: Look is called.
	Looker func() (look, done func())
	// Inside calls fn in the network namespace of the container that has an address.
	Inside func(from netip.Addr, fn func() error) error
	// Group is that of the interfaces whose queries are captured, from any source; 0: none.
	Group uint32
	// Early is called before a connection by an interface of Group goes on whose source
	// Set has not named: if it calls Set, the connection is captured. nil: not.
	Early func()
	// Limit is how many queries per second of one container come here, over UDP;
	// more pass untouched. 0: no limit.
	Limit int
}

const (
	// aliveFor is how long a rule counts after it was renewed last. A client asks
	// again after 5 s (resolv.conf(5), timeout): that query has to pass.
	aliveFor = 4 * time.Second
	renew    = time.Second
)

// Capture is at work until Close. It is for one network namespace: that of the
// thread which called Start.
type Capture struct {
	conf   Config
	queues []*queue
	tcp    *listener
	stop   context.CancelFunc
	done   chan struct{}
	err    error // once done

	mu    sync.Mutex
	table *table
	from  []netip.Prefix
	apart error // why the rules could not be renewed; nil: they were
}

// Start begins to capture queries by the interfaces of the group; Set names others.
func Start(c Config) (*Capture, error) {
	made := &Capture{conf: c, done: make(chan struct{})}
	err := made.open()
	if err != nil {
		return nil, errors.Join(err, made.close())
	}
	ctx, stop := context.WithCancel(context.Background())
	made.stop = stop
	g, inner := errgroup.WithContext(ctx)
	for _, q := range made.queues {
		g.Go(func() error { return q.serve(inner) })
	}
	g.Go(func() error { return made.tcp.serve(inner) })
	g.Go(func() error { return made.renew(inner) })
	go func() {
		made.err = g.Wait()
		close(made.done)
	}()
	return made, nil
}

func (c *Capture) open() error {
	number := cpus()
	queues, err := openQueues(min(number, mostQueues), c.conf)
	if err != nil {
		return err
	}
	for i, q := range queues {
		if number == len(queues) {
			q.cpu = i
		}
	}
	c.queues = queues
	if c.tcp, err = listen(c.conf); err != nil {
		return err
	}
	c.table, err = newTable(tableConfig{
		queue: queues[0].number, queues: len(queues), port4: c.tcp.port(c.tcp.v4), port6: c.tcp.port(c.tcp.v6), limit: c.conf.Limit, group: c.conf.Group,
	})
	if err != nil {
		return err
	}
	return c.table.make(nil)
}

// Done is closed once the capture has ended by itself, or by Close; Err says why.
func (c *Capture) Done() <-chan struct{} { return c.done }

// Err says why the capture has ended, or why its rules are not in place; nil: all is
// well.
func (c *Capture) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apart
}

// Close ends it and removes its rules.
func (c *Capture) Close() error {
	c.stop()
	<-c.done
	return c.close()
}

func (c *Capture) close() error {
	var errs []error
	if c.table != nil {
		errs = append(errs, c.table.close())
	}
	for _, q := range c.queues {
		errs = append(errs, q.close())
	}
	if c.tcp != nil {
		errs = append(errs, c.tcp.close())
	}
	return errors.Join(errs...)
}

// Set says whose queries are captured, beside those by the group: those from the prefixes
// that from returns. Of two calls at once each asks when its turn has come.
func (c *Capture) Set(from func() []netip.Prefix) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	want := disjoint(from())
	switch {
	case c.apart != nil:
		c.apart = c.table.make(want)
	case !slices.Equal(want, c.from):
		if c.apart = c.table.change(c.from, want); c.apart != nil {
			c.apart = c.table.make(want)
		}
	}
	c.from = want
	return c.apart
}

// renew keeps the rules alive, and makes them anew if they are gone.
func (c *Capture) renew(ctx context.Context) error {
	tick := time.NewTicker(renew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, q := range c.queues {
			q.release()
		}
		c.mu.Lock()
		if c.apart = c.table.keepAlive(); c.apart != nil {
			c.apart = c.table.make(c.from)
		}
		c.mu.Unlock()
	}
}

// disjoint returns the prefixes in order, without those inside another one: an
// interval set has no two elements for one address.
func disjoint(all []netip.Prefix) []netip.Prefix {
	var sorted, left []netip.Prefix
	for _, p := range all {
		sorted = append(sorted, p.Masked())
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	for _, p := range sorted {
		if len(left) == 0 || !left[len(left)-1].Overlaps(p) {
			left = append(left, p)
		}
	}
	return left
}

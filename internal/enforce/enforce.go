package enforce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/libnet-cni/libnet/internal/firewall/admit"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netpolicy"
)

// Config is what an Enforcer works with.
type Config struct {
	// Node is the name of this host's Node.
	Node string
	// StateDirs are where the records of attachments are.
	StateDirs []string
	// Watch tells of the cluster until ctx ends.
	Watch func(ctx context.Context, to *Enforcer) error
	Log   *slog.Logger
}

// Enforcer keeps the kernel as the policies of the cluster say.
type Enforcer struct {
	conf    Config
	log     *slog.Logger
	tables  *admit.Tables
	dirty   chan struct{}
	events  chan struct{} // another program has changed something of our tables
	removed chan struct{} // elements may have been
	metrics *metrics
	links   func() (*netlink.Conn, error) // opens what devices are read by

	mu       sync.Mutex
	compiler *netpolicy.Compiler
	pods     map[netpolicy.Key]*Pod
	claims   map[netip.Addr][]netpolicy.Key
	places   map[place]attachment
	byAddr   map[netip.Addr]place
	byPod    map[netpolicy.Key]map[place]bool
	blocks   []netip.Prefix // of which pods of this host get addresses, beside those of overlay networks
	unread   map[netpolicy.Key]error
	missing  map[string]bool  // kinds of which not all is known yet
	trouble  map[string]error // by kind
	since    time.Time        // of the first change that is not in the kernel; zero: there is none
	fault    error            // why the last change is not there; nil: it is
	lacking  []error          // what bridges lack for policies to be in force
	// policyNews counts changes of policies that no line of the log has told of.
	policyNews int
	elems      int // in the kernel

	have    desired    // what is in the kernel; without Rules: unknown. Of the holder of writing.
	writing sync.Mutex // held while elements are written, listed, or noted to be damaged
}

// kinds are what the API has to tell of.
var kinds = []string{"namespaces", "pods", "networkpolicies"}

// New does nothing yet.
func New(c Config) *Enforcer {
	e := &Enforcer{
		conf: c, log: c.Log, links: netlink.OpenSmall, tables: admit.New(), dirty: make(chan struct{}, 1), events: make(chan struct{}, 1), removed: make(chan struct{}, 1), metrics: newMetrics(),
		compiler: netpolicy.New(), pods: map[netpolicy.Key]*Pod{}, claims: map[netip.Addr][]netpolicy.Key{}, places: map[place]attachment{},
		byAddr: map[netip.Addr]place{}, byPod: map[netpolicy.Key]map[place]bool{}, unread: map[netpolicy.Key]error{},
		missing: map[string]bool{}, trouble: map[string]error{},
	}
	for _, kind := range kinds {
		e.missing[kind] = true
	}
	for _, dir := range c.StateDirs {
		e.missing["records in "+dir] = true
	}
	return e
}

const (
	// again is how soon what failed is tried again.
	again = time.Second
	// gather is how long changes are gathered after some were made: as long as that took, twice,
	// and between these.
	gatherLeast, gatherMost = time.Millisecond, 20 * time.Millisecond
	// look is how long after an event all elements are compared; one part of lookShare of the time goes
	// into that, unless they would not be compared for longer than lookMost then.
	look, lookShare, lookMost = time.Second, 20, 30 * time.Second
	// rarely is how soon all elements are compared without an event.
	rarely = 10 * time.Minute
	// inspectShare is how long, in times of what it took, the rules are not looked at again.
	inspectShare = 10
)

// Run enforces until ctx ends. What is in the kernel stays in force then.
func (e *Enforcer) Run(ctx context.Context) error {
	if err := mark(e.conf.StateDirs[0]); err != nil {
		return err
	}
	g, inner := errgroup.WithContext(ctx)
	for _, dir := range e.conf.StateDirs {
		g.Go(func() error { return e.follow(inner, dir) })
	}
	g.Go(func() error { return e.conf.Watch(inner, e) })
	g.Go(func() error { return e.guard(inner) })
	g.Go(func() error { return e.compare(inner) })
	g.Go(func() error { return e.loop(inner) })
	err := g.Wait()
	return errors.Join(err, e.tables.Close())
}

// loop brings what changes into the kernel.
func (e *Enforcer) loop(ctx context.Context) error {
	var late <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.dirty:
		case <-late:
		}
		late = nil
		start := time.Now()
		if err := e.bring(ctx); (err != nil || e.lacksAny()) && ctx.Err() == nil {
			late = time.After(again)
		}
		rest := time.NewTimer(min(max(2*time.Since(start), gatherLeast), gatherMost))
		select {
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		case <-rest.C:
		}
	}
}

// lacksAny says that bridges have to be looked at again.
func (e *Enforcer) lacksAny() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.lacking) > 0
}

// snapshot is what is to be in the kernel.
func (e *Enforcer) snapshot() (want desired, now summary, ready bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.missing) > 0 {
		return want, now, false, nil
	}
	opened, err := e.opened()
	if err != nil {
		return want, now, false, err
	}
	rules := e.compiler.Compile()
	want = desired{rules, bySlot(opened)}
	now = summary{since: e.since, policies: e.compiler.Policies(), pods: e.compiler.Pods(), isolated: len(rules.In) + len(rules.Out), news: e.policyNews}
	e.since, e.policyNews = time.Time{}, 0
	return want, now, true, nil
}

// summary is what a line of the log says.
type summary struct {
	since                          time.Time
	policies, pods, isolated, news int
}

// bring writes what differs.
func (e *Enforcer) bring(ctx context.Context) error {
	want, now, ready, err := e.snapshot()
	if err == nil && !ready {
		return e.early(ctx)
	}
	var gone, added []admit.Elem
	if err == nil {
		e.writing.Lock()
		gone, added, err = e.write(ctx, want)
		e.writing.Unlock()
	}
	e.mu.Lock()
	if e.fault = err; err != nil && e.since.IsZero() {
		e.since, e.policyNews = now.since, e.policyNews+now.news
	}
	if err == nil {
		e.elems += len(added) - len(gone)
	}
	e.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			e.log.Error("network policies are not in force as they are now", "error", err)
		}
		return err
	}
	e.report(ctx, now, len(gone), len(added))
	return nil
}

// early is bring before all is known. Tables that are there stay as they are: as of before a restart.
// If there are none, a port that is there by now stays open, and later ones are closed until their
// pod is known.
func (e *Enforcer) early(ctx context.Context) error {
	_, there, err := e.tables.Whole(ctx)
	if err == nil && !there {
		err = e.shut(ctx)
	}
	e.mu.Lock()
	e.fault = err
	e.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		e.log.Error("ports of new pods are not closed until these are known", "error", err)
	}
	return err
}

// shut writes tables that open what is there by now, once the records are read.
func (e *Enforcer) shut(ctx context.Context) error {
	e.writing.Lock()
	defer e.writing.Unlock()
	if e.have.Rules == nil {
		e.mu.Lock()
		read := !slices.ContainsFunc(e.conf.StateDirs, func(dir string) bool { return e.missing["records in "+dir] })
		var there []admit.Elem
		var err error
		if read {
			there, err = e.present()
		}
		e.mu.Unlock()
		if err != nil || !read {
			return err
		}
		e.have = desired{&netpolicy.Rules{}, bySlot(there)}
	}
	_, elems := changes(e.tables.Sets, desired{Rules: &netpolicy.Rules{}}, e.have)
	if err := e.tables.Replace(ctx, elems); err != nil {
		e.have = desired{}
		return err
	}
	e.mu.Lock()
	e.elems = len(elems)
	e.mu.Unlock()
	e.log.Info("ports of new pods are closed until policies are known", "open", len(elems))
	return nil
}

// report has the log and the metrics say what was written.
func (e *Enforcer) report(ctx context.Context, now summary, gone, added int) {
	took := time.Duration(0)
	if !now.since.IsZero() {
		took = time.Since(now.since)
		e.metrics.took.Observe(took.Seconds())
	}
	if e.metrics.changes.Add(float64(gone + added)); gone+added+now.news > 0 {
		level := slog.LevelDebug // pods come and go
		if now.news > 0 {
			level = slog.LevelInfo
		}
		e.log.Log(ctx, level, "network policies are in force", "policies", now.policies, "pods", now.pods, "isolated", now.isolated, "added", added, "removed", gone, "took", took.Round(100*time.Microsecond))
	}
}

// write brings the kernel from what it has to what is wanted.
func (e *Enforcer) write(ctx context.Context, want desired) (gone, added []admit.Elem, err error) {
	if e.have.Rules != nil {
		gone, added = changes(e.tables.Sets, e.have, want)
		if len(gone)+len(added) == 0 {
			whole, _, err := e.tables.Whole(ctx)
			if err != nil || whole {
				return nil, nil, err
			}
		}
		err := e.tables.Change(ctx, gone, added)
		if err == nil {
			e.have = want
			return gone, added, nil
		}
		if e.have = (desired{}); !errors.Is(err, admit.ErrLost) {
			return nil, nil, err
		}
		e.log.Error("another program has changed our rules: they are written anew", "table", admit.TableName)
	}
	_, added = changes(e.tables.Sets, desired{Rules: &netpolicy.Rules{}}, want)
	if err := e.tables.Replace(ctx, added); err != nil {
		return nil, nil, err
	}
	e.have = want
	e.mu.Lock()
	e.elems = 0
	e.mu.Unlock()
	return nil, added, nil
}

// Err says why policies are not in force; nil: they are.
func (e *Enforcer) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	errs := append([]error{e.fault}, e.lacking...)
	for _, kind := range slices.Sorted(maps.Keys(e.trouble)) {
		errs = append(errs, fmt.Errorf("%s: %w", kind, e.trouble[kind]))
	}
	for _, kind := range slices.Sorted(maps.Keys(e.missing)) {
		if e.trouble[kind] == nil {
			errs = append(errs, fmt.Errorf("%s have not been received yet", kind))
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(e.unread), func(a, b netpolicy.Key) int { return slices.Compare([]byte(a.String()), []byte(b.String())) }) {
		errs = append(errs, fmt.Errorf("NetworkPolicy %s: %w", k, e.unread[k]))
	}
	return errors.Join(errs...)
}

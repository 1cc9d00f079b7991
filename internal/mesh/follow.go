package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/service"
)

const (
	// again is how soon what failed is tried again.
	again = time.Second
	// rarely is how often definitions are looked through for containers that are gone.
	rarely = time.Minute
	// compared is how often elements are compared with the records while some are removed: our own
	// calls remove elements, too, and the comparison costs time with every service. It takes one part
	// of comparedPart of the time at most.
	compared, comparedPart = 5 * time.Second, 20
)

// Run keeps this host's part of services until ctx ends. The kernel then stays as it is.
func (m *Mesh) Run(ctx context.Context) error {
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return m.checkLoop(inner) })
	g.Go(func() error { return m.followLoop(inner) })
	return g.Wait()
}

func (m *Mesh) followLoop(ctx context.Context) error {
	open := controllers{}
	defer open.close()
	tick := time.NewTicker(rarely)
	defer tick.Stop()
	elements := time.NewTimer(compared)
	defer elements.Stop()
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.look:
		case <-retry:
		case <-tick.C:
			m.prune(ctx, open)
			m.mu.Lock()
			m.mend = true // news of a removal may have been lost
			m.mu.Unlock()
		case <-elements.C:
			start := time.Now()
			if m.doubtful() && !m.restore(ctx, open, true) {
				retry = time.After(again)
			}
			elements.Reset(max(compared, comparedPart*time.Since(start)))
			continue
		}
		if retry = nil; !m.once(ctx, open) {
			retry = time.After(again)
		}
	}
}

// controllers are kept, by state directory: each has sockets.
type controllers map[string]*engine.Controller

func (open controllers) services(dir string) (*balancer.Services, error) {
	if open[dir] == nil {
		c, err := engine.New(engine.WithStateDir(dir))
		if err != nil {
			return nil, err
		}
		open[dir] = c
	}
	return open[dir].Services(), nil
}

func (open controllers) close() {
	for _, c := range open {
		c.Close()
	}
}

// once does what there is to do. false: some of it failed.
func (m *Mesh) once(ctx context.Context, open controllers) (done bool) {
	todo, begins, mend := m.work()
	begun := true
	for _, n := range begins {
		err := m.begin(ctx, open, n, todo)
		m.note(key{network: n.Name}, err)
		begun = begun && err == nil
	}
	done = m.forget(ctx) && begun
	for some := range slices.Chunk(slices.SortedFunc(maps.Keys(todo), compare), portion) {
		done = ctx.Err() == nil && m.applySome(ctx, open, some) && done
	}
	if mend {
		done = m.restore(ctx, open, false) && done
	}
	if !begun { // a service that fails does not have all networks begun anew
		m.mu.Lock()
		m.begun = false
		m.mu.Unlock()
	}
	return done && ctx.Err() == nil
}

func compare(a, b key) int {
	return cmp.Or(cmp.Compare(a.network, b.network), cmp.Compare(a.name, b.name))
}

// work takes what there is to do.
func (m *Mesh) work() (todo map[key]bool, begins []Network, mend bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.defined || !m.heard {
		return nil, nil, false
	}
	todo, mend = m.dirty, m.mend || !m.begun
	m.dirty, m.mend = map[key]bool{}, false
	if !m.begun {
		m.begun, m.doubt = true, true // a removal before is told to no agent
		for _, n := range m.networks {
			begins = append(begins, n)
		}
		for k := range m.defs {
			todo[k] = true
		}
	}
	return todo, begins, mend
}

// begin looks what this host has of a network's services from before: those that are gone
// meanwhile, and containers that no service has.
func (m *Mesh) begin(ctx context.Context, open controllers, n Network, todo map[key]bool) error {
	s, err := open.services(n.StateDir)
	if err != nil {
		return err
	}
	all, err := s.Shared(n.Name)
	for _, one := range all {
		todo[keyOf(one)], m.has[keyOf(one)] = true, placeOf(one)
	}
	return errors.Join(err, s.Rejoin(ctx, n.Name))
}

// rename has names follow.
func (m *Mesh) rename(ctx context.Context, open controllers, dir string) bool {
	s, err := open.services(dir)
	if err == nil {
		err = s.Note(ctx)
	}
	m.note(key{}, err)
	return err == nil
}

// note keeps how it went, tells those that wait, and has what failed be done again.
func (m *Mesh) note(k key, err error) {
	m.mu.Lock()
	before := m.errs[k]
	if delete(m.errs, k); err != nil {
		m.errs[k] = err
		if k.name != "" {
			m.dirty[k] = true
		}
	}
	close(m.turn)
	m.turn = make(chan struct{})
	m.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		m.conf.Log.Error("service not reconciled", "network", k.network, "service", k.name, "error", err)
	case err == nil && before != nil:
		m.conf.Log.Info("service reconciled", "network", k.network, "service", k.name)
	}
}

// doubtful says, once, that elements may have been removed.
func (m *Mesh) doubtful() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	is := m.doubt && m.defined && m.heard
	if is {
		m.doubt = false
	}
	return is
}

// restore puts the rules of services back, as far as any are missing; elements: also elements of
// sets, which tables that are whole may lack.
func (m *Mesh) restore(ctx context.Context, open controllers, elements bool) bool {
	m.mu.Lock()
	dirs := map[string]bool{}
	for _, n := range m.networks {
		dirs[n.StateDir] = true
	}
	m.mu.Unlock()
	done := true
	for dir := range dirs {
		s, err := open.services(dir)
		if err == nil {
			var missing bool
			if missing, err = s.Mend(ctx, elements); missing && err == nil {
				m.conf.Log.Warn("rules of services were gone, and are there again")
			}
		}
		m.note(key{}, err)
		done = done && err == nil
	}
	if !done {
		m.mu.Lock()
		m.mend, m.doubt = true, m.doubt || elements
		m.mu.Unlock()
	}
	return done
}

// prune takes the weights of containers that this host had, and has no more, out of the
// definitions.
func (m *Mesh) prune(ctx context.Context, open controllers) {
	m.mu.Lock()
	var stale []service.Shared
	for k, s := range m.defs {
		if _, ours := m.networks[k.network]; ours && slices.Contains(slices.Collect(maps.Values(s.Homes)), m.conf.Node) {
			stale = append(stale, s)
		}
	}
	networks := maps.Clone(m.networks)
	m.mu.Unlock()
	for _, s := range stale {
		all, err := open.services(networks[s.Network].StateDir)
		if err != nil {
			continue // it is told elsewhere
		}
		gone := false
		s.Weights, s.Homes = maps.Clone(s.Weights), maps.Clone(s.Homes)
		for id, node := range s.Homes {
			if has, err := all.HasContainer(s.Network, id); node == m.conf.Node && err == nil && !has {
				delete(s.Weights, id)
				delete(s.Homes, id)
				gone = true
			}
		}
		if gone {
			if _, err := m.conf.Registry.PutService(ctx, s); err != nil && !errors.Is(err, overlay.ErrTaken) {
				m.conf.Log.Warn("weights of containers that are gone", "service", s.Name, "network", s.Network, "error", err)
			}
		}
	}
}

// Err says which services are not as they are to be; nil: all are.
func (m *Mesh) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, k := range slices.SortedFunc(maps.Keys(m.errs), compare) {
		errs = append(errs, m.errs[k])
	}
	if m.staleErr != nil && !errors.Is(m.staleErr, conntrack.ErrUnsupported) {
		errs = append(errs, fmt.Errorf("connections to containers that services have no more: %w", m.staleErr))
	}
	errs = append(errs, m.failing()...)
	return errors.Join(errs...)
}

package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/service"
)

const (
	// again is how soon what failed is tried again.
	again = time.Second
	// rarely is how often definitions are looked through for containers that are gone.
	rarely = time.Minute
)

// Run keeps this host's part of services until ctx ends. The kernel then stays as it is.
func (m *Mesh) Run(ctx context.Context) error {
	open := controllers{}
	defer open.close()
	tick := time.NewTicker(rarely)
	defer tick.Stop()
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.look:
		case <-retry:
		case <-tick.C:
			m.prune(ctx, open)
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
	done = begun
	did := outcome{errs: map[key]error{}, revision: map[key]int64{}, named: map[string]bool{}}
	for _, k := range slices.SortedFunc(maps.Keys(todo), compare) {
		did.errs[k] = m.apply(ctx, open, k, &did)
		done = done && did.errs[k] == nil
	}
	m.forget(ctx, did.stale)
	for dir := range did.named {
		done = m.rename(ctx, open, dir) && done
	}
	m.publish(did)
	if mend {
		done = m.restore(ctx, open) && done
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
		m.begun = true
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

// forget has datagrams of clients that go on sending led to other containers. Streams stay: the
// container may live, and its host be out of touch with etcd only.
func (m *Mesh) forget(ctx context.Context, stale []conntrack.Led) {
	if len(stale) == 0 {
		return
	}
	t := conntrack.New(nil)
	if err := errors.Join(t.Flush(ctx, conntrack.Filter{Led: stale}), t.Close()); err != nil {
		m.conf.Log.Warn("datagrams to containers that services have no more", "error", err)
	}
}

// staleOf are the datagrams that a service led to backends which it has no more.
func staleOf(s service.Service, left []service.Backend) (all []conntrack.Led) {
	for _, b := range left {
		for _, a := range b.Addresses {
			for _, vip := range s.VIPs {
				for _, p := range s.Ports {
					if p.Protocol == firewall.UDP && vip.Is4() == a.Is4() {
						all = append(all, conntrack.Led{Protocol: uint8(p.Protocol), To: netip.AddrPortFrom(vip, p.Port), By: a})
					}
				}
			}
		}
	}
	return all
}

// outcome is what came of changes of services, and what they entail.
type outcome struct {
	errs     map[key]error
	revision map[key]int64   // that this host has now; 0: it has the service no more
	stale    []conntrack.Led // led to containers that a service has no more
	named    map[string]bool // state directories in which something is about names
}

// publish tells those that wait.
func (m *Mesh) publish(did outcome) {
	m.mu.Lock()
	for k, revision := range did.revision {
		if m.applied[k] = revision; revision == 0 {
			delete(m.applied, k)
		}
	}
	m.mu.Unlock()
	for k, err := range did.errs {
		m.note(k, err)
	}
}

// apply brings one service to what is known of it now.
func (m *Mesh) apply(ctx context.Context, open controllers, k key, did *outcome) error {
	m.mu.Lock()
	def, defined := m.defs[k]
	n, ours := m.networks[k.network]
	others := m.backends(def)
	m.mu.Unlock()
	if !ours {
		return nil
	}
	s, err := open.services(n.StateDir)
	if err != nil {
		return err
	}
	now := placeOf(def.Service)
	if before, has := m.has[k]; has && before != now { // it was removed, and another one may have been made
		did.named[n.StateDir] = true
		if err := s.Unfollow(ctx, k.network, before.name, before.selected); err != nil {
			return err
		}
		delete(m.has, k)
	}
	if defined {
		if err := m.follow(ctx, s, n, def, others, did); err != nil {
			return err
		}
		m.has[k] = now
	}
	did.revision[k] = def.Revision
	return nil
}

func (m *Mesh) follow(ctx context.Context, s *balancer.Services, n Network, def service.Shared, others []service.Backend, did *outcome) error {
	if len(def.VIPs) > 0 && n.Refused != nil {
		return fmt.Errorf("service %q of network %q: %w", def.Name, def.Network, n.Refused)
	}
	if preserves(def) && n.Encrypted {
		return fmt.Errorf("service %q: %w", def.Name, n.cannotPreserve())
	}
	left, named, err := s.Follow(ctx, balancer.Followed{Service: def.Service, Device: n.Device, Node: m.conf.Node, Others: others})
	if named {
		did.named[n.StateDir] = true
	}
	did.stale = append(did.stale, staleOf(def.Service, left)...)
	return err
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

// restore puts the rules of services back, as far as any are missing.
func (m *Mesh) restore(ctx context.Context, open controllers) bool {
	m.mu.Lock()
	dirs := map[string]bool{}
	for _, n := range m.networks {
		dirs[n.StateDir] = true
	}
	m.mu.Unlock()
	done := true
	for dir := range dirs {
		s, err := open.services(dir)
		if err == nil && s.Lost(ctx) != nil {
			if err = s.Restore(ctx); err == nil {
				m.conf.Log.Warn("rules of services were gone, and are there again")
			}
		}
		m.note(key{}, err)
		done = done && err == nil
	}
	if !done {
		m.mu.Lock()
		m.mend = true
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
	return errors.Join(errs...)
}

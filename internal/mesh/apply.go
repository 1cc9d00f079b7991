package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/service"
)

// portion is how many services are brought to what is known of them before those that wait for
// them are told, and names follow.
const portion = 256

// task is a service that this host is to have.
type task struct {
	key
	balancer.Followed
	revision int64
	dir      string // of the records
}

// outcome is what came of changes of services, and what they entail.
type outcome struct {
	errs     map[key]error
	revision map[key]int64   // that this host has now; 0: it has the service no more
	stale    []conntrack.Led // led to containers that a service has no more
	named    map[string]bool // state directories in which something is about names
}

// applySome brings services to what is known of them now. false: some of it failed.
func (m *Mesh) applySome(ctx context.Context, open controllers, todo []key) (done bool) {
	did := outcome{errs: map[key]error{}, revision: map[key]int64{}, named: map[string]bool{}}
	var tasks []task
	for _, k := range todo {
		t, is, err := m.prepare(ctx, open, k, &did)
		if did.errs[k] = err; err == nil && is {
			tasks = append(tasks, t)
		}
	}
	for len(tasks) > 0 {
		n := 1
		for n < len(tasks) && tasks[n].dir == tasks[0].dir {
			n++
		}
		m.follow(ctx, open, tasks[:n], &did)
		tasks = tasks[n:]
	}
	done = true
	for _, err := range did.errs {
		done = done && err == nil
	}
	for dir := range did.named {
		done = m.rename(ctx, open, dir) && done
	}
	m.publish(did)
	for _, led := range did.stale {
		m.stale[led] = true
	}
	return m.forget(ctx) && done
}

// prepare says what a service is to be on this host, and removes what that does not follow on. It
// is nothing if the service is gone.
func (m *Mesh) prepare(ctx context.Context, open controllers, k key, did *outcome) (t task, is bool, err error) {
	m.mu.Lock()
	def, defined := m.defs[k]
	n, ours := m.networks[k.network]
	others, well := m.backends(def), m.well[k]
	m.mu.Unlock()
	if !ours {
		return t, false, nil
	}
	s, err := open.services(n.StateDir)
	if err != nil {
		return t, false, err
	}
	if before, has := m.has[k]; has && before != placeOf(def.Service) { // it was removed, and another one may have been made
		did.named[n.StateDir] = true
		if err := s.Unfollow(ctx, k.network, before.name, before.selected); err != nil {
			return t, false, err
		}
		delete(m.has, k)
	}
	if !defined {
		did.revision[k] = 0
		return t, false, nil
	}
	if len(def.VIPs) > 0 && n.Refused != nil {
		return t, false, fmt.Errorf("service %q of network %q: %w", def.Name, def.Network, n.Refused)
	}
	if err := n.cannotPreserve(); err != nil && preserves(def) {
		return t, false, fmt.Errorf("service %q: %w", def.Name, err)
	}
	f := balancer.Followed{Service: def.Service, Device: n.Device, Node: m.conf.Node, Others: others, Well: well}
	return task{k, f, def.Revision, n.StateDir}, true, nil
}

// follow has this host follow, with tasks of one directory.
func (m *Mesh) follow(ctx context.Context, open controllers, tasks []task, did *outcome) {
	s, err := open.services(tasks[0].dir)
	if err != nil {
		for _, t := range tasks {
			did.errs[t.key] = err
		}
		return
	}
	all := make([]balancer.Followed, len(tasks))
	for i, t := range tasks {
		all[i] = t.Followed
	}
	for i, one := range s.Follow(ctx, all...) {
		t := tasks[i]
		if one.Named {
			did.named[t.dir] = true
		}
		did.stale = append(did.stale, staleOf(t.Service, one.Left, true)...)
		did.stale = append(did.stale, staleOf(t.Service, one.Drained, false)...)
		if did.errs[t.key] = one.Err; one.Err == nil {
			m.has[t.key], did.revision[t.key] = placeOf(t.Service), t.revision
		}
	}
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

// forget has datagrams of clients that go on sending led to other containers, and attempts to connect
// that were not answered. Streams stay: the container may live, and its host be out of touch with
// etcd only. Of streams that have ended conntrack would lead a new one of the client's port to a
// container that is gone. false: it is to be done again.
func (m *Mesh) forget(ctx context.Context) (done bool) {
	if len(m.stale) == 0 {
		return true
	}
	t := conntrack.New(nil)
	err := errors.Join(t.Flush(ctx, conntrack.Filter{Led: slices.Collect(maps.Keys(m.stale))}), t.Close())
	if m.noteStale(err); err == nil || errors.Is(err, conntrack.ErrUnsupported) {
		clear(m.stale)
	}
	return len(m.stale) == 0
}

// noteStale keeps what keeps connections from being forgotten, for Err, and says it once.
func (m *Mesh) noteStale(err error) {
	m.mu.Lock()
	before := m.staleErr
	m.staleErr = err
	m.mu.Unlock()
	if err != nil && (before == nil || before.Error() != err.Error()) {
		m.conf.Log.Warn("connections to containers that services have no more", "error", err)
	}
}

// staleOf are what a service led to backends which it has no more, or leads nothing new to: of
// these, datagrams are led on.
func staleOf(s service.Service, backends []service.Backend, gone bool) (all []conntrack.Led) {
	add := func(at netip.Addr, p firewall.Protocol, port uint16) {
		if p != firewall.TCP && (p != firewall.UDP || !gone) {
			return
		}
		for _, b := range backends {
			for _, a := range b.Addresses {
				if a.Is4() == at.Is4() {
					all = append(all, conntrack.Led{Protocol: uint8(p), To: netip.AddrPortFrom(at, port), By: a, Gone: gone})
				}
			}
		}
	}
	for _, vip := range s.VIPs {
		for _, p := range s.Ports {
			add(vip, p.Protocol, p.Port)
		}
	}
	for _, p := range s.Published { // of whatever address of the host
		add(netip.IPv4Unspecified(), p.Protocol, p.Port)
		add(netip.IPv6Unspecified(), p.Protocol, p.Port)
	}
	return all
}

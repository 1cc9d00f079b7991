package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/service"
)

// Registry is where definitions are; etcd.Registry is one.
type Registry interface {
	CreateService(ctx context.Context, v overlay.View, def service.Service, auto bool) (service.Shared, error)
	ReadService(ctx context.Context, network, name string) (service.Shared, error)
	PutService(ctx context.Context, s service.Shared) (service.Shared, error)
	DeleteService(ctx context.Context, network, name string) error
}

// Config is what a Mesh works with.
type Config struct {
	Node     string // name of this host
	Registry Registry
	Log      *slog.Logger
	// Well tells the other hosts by which services' checks a container of this one is well; nil:
	// none are told.
	Well func(network, container, ifName string, services []string)
}

// Network is one that spans hosts, as this host has it configured.
type Network struct {
	Name, StateDir string
	// Device is the interface by which packets of its containers come to the host.
	Device string
	// Internal: nothing comes in from outside.
	Internal bool
	// Encrypted: WireGuard leads to the other hosts.
	Encrypted bool
	// Direct: other hosts are reached without a tunnel where they can be (directRouting).
	Direct bool
	// NoHost: the host has no way to the containers.
	NoHost bool
	// Refused is why it can have no service with an address; nil: it can.
	Refused error
}

// Mesh keeps this host's part of services while Run runs.
type Mesh struct {
	conf Config
	look chan struct{} // with room for one

	mu       sync.Mutex
	networks map[string]Network
	view     *overlay.View // nil: none yet
	evicted  map[string]bool
	// addresses are those of the hosts.
	addresses map[string][]netip.Addr
	// publishing and preserving count the services of a network whose ports are published, and
	// those of them that preserve the addresses of clients.
	publishing, preserving map[string]int
	onPublishing           func()
	// defined and heard: all definitions, and all containers of other hosts, have been told
	// once. Before that nothing of this host is touched.
	defined, heard, begun bool
	defs                  map[key]service.Shared
	bySelect              map[selection]map[key]bool
	others                map[overlay.NamedID]*overlay.Named
	byName                map[selection][]*overlay.Named // in the order of compareNamed
	dirty                 map[key]bool
	// own are the containers of this host, of services with a check, and well the keys of those
	// of them that are.
	own     map[key][]service.Backend
	well    map[key][]string
	mend    bool          // the rules may be gone
	doubt   bool          // elements may be gone
	applied map[key]int64 // revision that this host has; missing: it has none
	has     map[key]place // services that this host has; for the goroutine of Run
	errs    map[key]error
	// stale is what services led to containers that they have no more, as far as conntrack has not
	// forgotten it; for the goroutine of Run. staleErr is why not.
	stale    map[conntrack.Led]bool
	staleErr error
	turn     chan struct{} // closed at the next change of applied or errs
}

// key is a service, by the lower case of its name.
type key struct{ network, name string }

// place tells a service from another one of its name.
type place struct{ name, selected, vips string }

func placeOf(s service.Service) place {
	return place{s.Name, strings.ToLower(s.Select), fmt.Sprint(s.VIPs)}
}

// selection is a name of a network's containers, in lower case.
type selection struct{ network, name string }

// New returns a Mesh that knows nothing yet.
func New(c Config) *Mesh {
	if c.Well == nil {
		c.Well = func(string, string, string, []string) {}
	}
	return &Mesh{
		conf: c, look: make(chan struct{}, 1), networks: map[string]Network{}, evicted: map[string]bool{},
		own: map[key][]service.Backend{}, well: map[key][]string{}, publishing: map[string]int{}, preserving: map[string]int{}, onPublishing: func() {},
		defs: map[key]service.Shared{}, bySelect: map[selection]map[key]bool{},
		others: map[overlay.NamedID]*overlay.Named{}, byName: map[selection][]*overlay.Named{},
		dirty: map[key]bool{}, applied: map[key]int64{}, has: map[key]place{}, errs: map[key]error{}, stale: map[conntrack.Led]bool{}, turn: make(chan struct{}),
	}
}

func keyOf(s service.Service) key { return key{s.Network, strings.ToLower(s.Name)} }

func (m *Mesh) hint() {
	select {
	case m.look <- struct{}{}:
	default:
	}
}

// Keep says which networks this host has. One that is configured no more stays as it is, as its
// tunnel does.
func (m *Mesh) Keep(networks []Network) {
	for _, n := range networks {
		m.mu.Lock()
		_, known := m.networks[n.Name]
		m.mu.Unlock()
		if !known {
			m.recall(n)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := map[string]Network{}
	for _, n := range networks {
		if now[n.Name] = n; m.networks[n.Name] != n {
			m.begun = false // what of it is there has to be looked at
		}
	}
	m.networks = now
	m.hint()
}

// Seen takes over a view of the registry.
func (m *Mesh) Seen(v overlay.View) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.view = &v
	evicted, addresses := map[string]bool{}, map[string][]netip.Addr{}
	for node := range v.Evicted {
		evicted[node] = true
	}
	for node, is := range v.Members {
		addresses[node] = append([]netip.Addr{is.Address}, is.Also...)
	}
	sameEvicted, sameAddresses := maps.Equal(evicted, m.evicted), maps.EqualFunc(addresses, m.addresses, slices.Equal)
	if sameEvicted && sameAddresses {
		return
	}
	m.evicted, m.addresses = evicted, addresses
	for k, s := range m.defs {
		if !sameEvicted || preserves(s) {
			m.dirty[k] = true
		}
	}
	m.hint()
}

// publishes says that a port of each host leads to the service.
func publishes(s service.Shared) bool { return len(s.Published) > 0 && len(s.VIPs) > 0 }

// preserves says that backends on all hosts see clients of the service's published ports.
func preserves(s service.Shared) bool {
	return s.External == service.ExternalPreserve && publishes(s)
}

// Publishes says whether a network has services with published ports, and whether any of these
// preserves the addresses of clients; not known: the definitions have not been told yet.
func (m *Mesh) Publishes(network string) (is, preserves, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.publishing[network] > 0, m.preserving[network] > 0, m.defined
}

// Lost says that rules or elements have been removed, by whatever program.
func (m *Mesh) Lost() {
	m.mu.Lock()
	m.mend, m.doubt = true, true
	m.mu.Unlock()
	m.hint()
}

// Defined takes over the definitions of all services, or those that changed. One without Select
// is gone.
func (m *Mesh) Defined(these []service.Shared, all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	publishing, preserving := maps.Clone(m.publishing), maps.Clone(m.preserving)
	gone := map[key]bool{}
	if all {
		for k := range m.defs {
			gone[k] = true
		}
	}
	for _, s := range these {
		k := keyOf(s.Service)
		if gone[k] = s.Select == ""; gone[k] {
			continue
		}
		if before, had := m.defs[k]; !had || before.Revision != s.Revision {
			m.undefine(k)
			m.defs[k], m.dirty[k] = s, true
			m.tally(s, 1)
			enter(m.bySelect, selection{s.Network, strings.ToLower(s.Select)}, k)
		}
	}
	for k, is := range gone {
		if is {
			m.undefine(k)
			m.dirty[k] = true
		}
	}
	first := all && !m.defined
	m.defined = m.defined || all
	if first || !maps.Equal(publishing, m.publishing) || !maps.Equal(preserving, m.preserving) {
		m.onPublishing()
	}
	m.hint()
}

func (m *Mesh) undefine(k key) {
	if s, had := m.defs[k]; had {
		m.tally(s, -1)
		leave(m.bySelect, selection{s.Network, strings.ToLower(s.Select)}, k)
		delete(m.defs, k)
	}
}

// OnPublishing has fn be called whenever Publishes may say something else than before. It is to be
// called before there are definitions, and fn returns at once.
func (m *Mesh) OnPublishing(fn func()) { m.onPublishing = fn }

// tally counts a service that comes or goes.
func (m *Mesh) tally(s service.Shared, n int) {
	for _, of := range []struct {
		is  bool
		all map[string]int
	}{{publishes(s), m.publishing}, {preserves(s), m.preserving}} {
		if !of.is {
			continue
		}
		if of.all[s.Network] += n; of.all[s.Network] == 0 {
			delete(of.all, s.Network)
		}
	}
}

func (m *Mesh) touch(at selection) {
	for k := range m.bySelect[at] {
		m.dirty[k] = true
	}
}

func enter[K, V comparable](all map[K]map[V]bool, at K, v V) {
	if all[at] == nil {
		all[at] = map[V]bool{}
	}
	all[at][v] = true
}

func leave[K, V comparable](all map[K]map[V]bool, at K, v V) {
	if delete(all[at], v); len(all[at]) == 0 {
		delete(all, at)
	}
}

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/diagnostics"
	"github.com/libnet-cni/libnet/internal/diagnostics/server"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/overlay"
)

// status is what is known of a network.
type status struct {
	claimErr, mendErr error
	problems          []string // with other hosts
	unmet             []string // hosts of an encrypted network that are out of reach, and what to do
	epoch             int      // of its keys; 0: it is not encrypted
	blocks            []netip.Prefix
	use               []address.Use
	peers, lacking    int
	synced            time.Time // when all was reconciled, last
}

func (s status) errs() []error {
	all := []error{s.claimErr, s.mendErr}
	for _, p := range slices.Concat(s.problems, s.unmet) {
		all = append(all, errors.New(p))
	}
	return slices.DeleteFunc(all, func(err error) bool { return err == nil })
}

// errUnseen is the state of a network of which nothing is known yet, as when the agent starts.
var errUnseen = errors.New("not reconciled yet")

// unwell returns what is wrong, a line each.
func (a *Agent) unwell() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	add := func(about string, err error) {
		if err != nil {
			all = append(all, about+": "+err.Error())
		}
	}
	add(a.conf.RegistryName, a.apart)
	add("configurations", a.confErr)
	if a.conf.Names != nil {
		add("names", a.conf.Names.Err())
	}
	if a.conf.Services != nil {
		add("services", a.conf.Services.Err())
	}
	if a.conf.Policies != nil {
		add("network policies", a.conf.Policies.Err())
	}
	if a.view != nil {
		for _, p := range a.view.Problems {
			all = append(all, a.conf.RegistryName+": "+p)
		}
	}
	for _, n := range slices.SortedFunc(slices.Values(a.networks), func(x, y netconf.AgentNetwork) int { return cmp.Compare(x.Name, y.Name) }) {
		s := a.status[n.Name]
		errs := s.errs()
		if len(errs) == 0 && s.synced.IsZero() {
			errs = append(errs, errUnseen)
		}
		for _, err := range errs {
			add(n.Name, err)
		}
	}
	return slices.Compact(all)
}

func (a *Agent) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	bad := a.unwell()
	if len(bad) == 0 {
		_, _ = fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	for _, line := range bad {
		_, _ = fmt.Fprintln(w, line)
	}
}

// serve offers /healthz and /metrics, and /livez, which only says that the process answers: a restart
// would mend none of what /healthz complains about.
func (a *Agent) serve(ctx context.Context) error {
	if a.conf.Listen == "" {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.conf.Listen)
	if err != nil {
		return fmt.Errorf("health and metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", a.healthz)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("health and metrics: %w", err)
	}
	return ctx.Err()
}

// diagnose answers lnctl agent, and draws the host's networks.
func (a *Agent) diagnose(ctx context.Context) error {
	return server.Serve(ctx, diagnostics.Socket(a.conf.StateDir), server.Source{State: a.State, Graph: a.conf.Graph})
}

// State is what the agent knows, for diagnostics.
func (a *Agent) State() diagnostics.State {
	problems := a.unwell()
	a.mu.Lock()
	defer a.mu.Unlock()
	s := diagnostics.State{
		Status: diagnostics.Status{
			Node: a.conf.Name, Started: a.started, Connected: a.conf.Registry != nil && a.apart == nil,
			Tasks: a.taskNames(), Networks: len(a.networks), Problems: append([]string{}, problems...),
		},
		Networks: []diagnostics.Network{}, Peers: []diagnostics.Peer{}, Blocks: []diagnostics.Block{},
	}
	if a.conf.Address.IsValid() {
		s.Status.Address = a.conf.Address.String()
	}
	if a.conf.Registry != nil {
		s.Status.Registry = a.conf.RegistryName
	}
	others := map[string]bool{}
	for _, n := range slices.SortedFunc(slices.Values(a.networks), func(x, y netconf.AgentNetwork) int { return cmp.Compare(x.Name, y.Name) }) {
		s.Networks = append(s.Networks, networkState(n, a.status[n.Name], a.view))
		if a.view == nil {
			continue
		}
		hosts, _ := a.view.Hosts(n.Name) // what is wrong with others is among the problems
		for _, h := range hosts {
			if h.Name != a.conf.Name {
				others[h.Name] = true
				s.Peers = append(s.Peers, diagnostics.Peer{Network: n.Name, Node: h.Name, Address: h.Address.String(), Blocks: texts(h.Blocks), Live: a.view.Members[h.Name].Live})
			}
		}
		held := a.view.Networks[n.Name].Blocks
		for _, b := range slices.SortedFunc(maps.Keys(held), netip.Prefix.Compare) {
			node := held[b].Node
			live := node == overlay.ServiceHolder || a.view.Members[node].Live
			s.Blocks = append(s.Blocks, diagnostics.Block{Network: n.Name, Block: b.String(), Node: node, Own: node == a.conf.Name, Live: live})
		}
	}
	s.Status.Peers = len(others)
	return s
}

// taskNames are what the agent does, beside answering here.
func (a *Agent) taskNames() []string {
	all := []string{}
	for _, task := range []struct {
		name string
		on   bool
	}{
		{"overlay", a.conf.Registry != nil}, {"encryption", a.conf.Keys != nil}, {"names", a.conf.Names != nil},
		{"services", a.conf.Services != nil}, {"metrics", a.conf.Listen != ""}, {"calls", a.conf.Calls != nil},
	} {
		if task.on {
			all = append(all, task.name)
		}
	}
	return all
}

func networkState(n netconf.AgentNetwork, s status, view *overlay.View) diagnostics.Network {
	d := diagnostics.Network{
		Name: n.Name, Subnets: texts(n.Subnets), Encryption: string(n.Config.Tunnel.Encryption), KeyEpoch: s.epoch,
		Blocks: texts(s.blocks), Peers: s.peers, Programmed: s.peers - s.lacking, Problems: []string{},
	}
	if view != nil {
		if shared := view.Networks[n.Name]; shared.Agreed {
			d.VNI, d.Port = shared.Terms.VNI, shared.Terms.Port
		}
	}
	for _, u := range s.use { // of both families the smaller one is what runs out
		if d.Capacity == 0 || u.Capacity < d.Capacity {
			d.Held, d.Capacity = u.Held, u.Capacity
		}
	}
	if !s.synced.IsZero() {
		d.Synced = &s.synced
	}
	errs := s.errs()
	if len(errs) == 0 && s.synced.IsZero() {
		errs = append(errs, errUnseen)
	}
	for _, err := range errs {
		d.Problems = append(d.Problems, err.Error())
	}
	return d
}

func texts(all []netip.Prefix) []string {
	words := []string{}
	for _, p := range all {
		words = append(words, p.String())
	}
	return words
}

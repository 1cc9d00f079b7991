package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/netconf"
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

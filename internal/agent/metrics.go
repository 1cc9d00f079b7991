package agent

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are what Prometheus scrapes. Gauges are read off the agent's state at
// each scrape.
type metrics struct {
	agent     *Agent
	registry  *prometheus.Registry
	reconcile prometheus.Histogram
	changes   *prometheus.CounterVec
	lost      *prometheus.CounterVec
}

func newMetrics(a *Agent) *metrics {
	m := &metrics{
		agent: a, registry: prometheus.NewRegistry(),
		reconcile: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "libnet_agent_reconcile_seconds", Help: "How long it took to compare a network with the kernel and put it right.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "libnet_agent_changes_total", Help: "Addresses, routes, neighbours and forwarding entries that were added or deleted.",
		}, []string{"network"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "libnet_agent_blocks_lost_total", Help: "Blocks that were given up while this node was away.",
		}, []string{"network"}),
	}
	m.registry.MustRegister(m, m.reconcile, m.changes, m.lost, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if a.conf.Names != nil {
		m.registry.MustRegister(a.conf.Names)
	}
	if a.conf.Calls != nil {
		m.registry.MustRegister(a.conf.Calls)
	}
	if a.conf.Services != nil {
		m.registry.MustRegister(a.conf.Services)
	}
	if a.conf.Policies != nil {
		m.registry.MustRegister(a.conf.Policies)
	}
	return m
}

// gauge is one that is read at each scrape.
type gauge struct{ name, help string }

func (g gauge) of(value float64, labels ...string) prometheus.Metric {
	names := []string{"network", "family"}[:len(labels)]
	return prometheus.MustNewConstMetric(prometheus.NewDesc("libnet_agent_"+g.name, g.help, names, nil), prometheus.GaugeValue, value, labels...)
}

var (
	registryUp = gauge{"registry_up", "1 while there is a session with the registry, etcd or Kubernetes."}
	etcdUp     = gauge{"etcd_up", "The same, under the name of before there was Kubernetes."}
	networkOK  = gauge{"network_ok", "1 while a network has no fault."}
	wanted     = gauge{"peers_wanted", "Other hosts of a network."}
	programmed = gauge{"peers_programmed", "Other hosts of a network whose entries are all in the kernel."}
	lastSync   = gauge{"last_sync_timestamp_seconds", "When kernel and registry agreed on a network, last."}
	held       = gauge{"leases_held", "Addresses in use of this node's blocks."}
	capacity   = gauge{"leases_capacity", "Addresses of this node's blocks."}
	blocks     = gauge{"blocks", "This node's blocks."}
	keyEpoch   = gauge{"key_epoch", "Epoch of the keys of an encrypted network that this node has, or changes to."}
	stuck      = gauge{"peers_stuck", "Other hosts of an encrypted network that are out of reach, although they are made anew."}
)

// Describe leaves it to Collect, as networks come and go.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect sends the gauges.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	a := m.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conf.Registry != nil {
		to <- registryUp.of(number(a.apart == nil))
		to <- etcdUp.of(number(a.apart == nil))
	}
	for _, n := range a.networks {
		s := a.status[n.Name]
		to <- networkOK.of(number(len(s.errs()) == 0 && !s.synced.IsZero()), n.Name)
		to <- wanted.of(float64(s.peers), n.Name)
		to <- programmed.of(float64(s.peers-s.lacking), n.Name)
		if !s.synced.IsZero() {
			to <- lastSync.of(float64(s.synced.UnixNano())/1e9, n.Name)
		}
		if s.epoch > 0 {
			to <- keyEpoch.of(float64(s.epoch), n.Name)
			to <- stuck.of(float64(len(s.unmet)), n.Name)
		}
		byFamily := map[bool]int{}
		for _, b := range s.blocks {
			byFamily[b.Addr().Is6()]++
		}
		for _, u := range s.use {
			family := map[bool]string{false: "ipv4", true: "ipv6"}[u.IPv6]
			to <- held.of(float64(u.Held), n.Name, family)
			to <- capacity.of(float64(u.Capacity), n.Name, family)
			to <- blocks.of(float64(byFamily[u.IPv6]), n.Name, family)
		}
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

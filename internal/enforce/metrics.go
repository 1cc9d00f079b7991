package enforce

import "github.com/prometheus/client_golang/prometheus"

// metrics are what is counted.
type metrics struct {
	changes prometheus.Counter
	took    prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		changes: prometheus.NewCounter(prometheus.CounterOpts{Name: "libnet_policy_changes_total", Help: "Elements of the rules of NetworkPolicies that were added or removed."}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "libnet_policy_in_force_seconds", Help: "How long it took from the news of a change to when it was in force.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
	}
}

var (
	okDesc       = prometheus.NewDesc("libnet_policy_ok", "1 while all NetworkPolicies are in force.", nil, nil)
	policiesDesc = prometheus.NewDesc("libnet_policy_policies", "NetworkPolicies of the cluster.", nil, nil)
	podsDesc     = prometheus.NewDesc("libnet_policy_pods", "Pods of the cluster that have a network of their own.", nil, nil)
	elemsDesc    = prometheus.NewDesc("libnet_policy_elements", "Elements of the rules of NetworkPolicies in the kernel.", nil, nil)
	closedDesc   = prometheus.NewDesc("libnet_policy_closed", "Attachments of this host that are closed, as their pod is not known yet.", nil, nil)
)

// Describe sends what Collect sends.
func (e *Enforcer) Describe(to chan<- *prometheus.Desc) {
	e.metrics.changes.Describe(to)
	e.metrics.took.Describe(to)
	for _, d := range []*prometheus.Desc{okDesc, policiesDesc, podsDesc, elemsDesc, closedDesc} {
		to <- d
	}
}

// Collect sends the metrics.
func (e *Enforcer) Collect(to chan<- prometheus.Metric) {
	e.metrics.changes.Collect(to)
	e.metrics.took.Collect(to)
	ok := 1
	if e.Err() != nil {
		ok = 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	closed := 0
	for _, rec := range e.places {
		if !e.known(rec) {
			closed++
		}
	}
	for d, n := range map[*prometheus.Desc]int{okDesc: ok, policiesDesc: e.compiler.Policies(), podsDesc: e.compiler.Pods(), elemsDesc: e.elems, closedDesc: closed} {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n))
	}
}

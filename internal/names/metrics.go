package names

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/libnet-cni/libnet/internal/resolver"
)

// counts are the queries since the start. Their labels are looked up once.
type counts struct {
	vec *prometheus.CounterVec
	of  [2][resolver.Outcomes]prometheus.Counter
}

func newCounts() *counts {
	c := &counts{vec: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "libnet_names_queries_total", Help: "DNS queries of containers; foreign ones went on to the server that they were sent to.",
	}, []string{"transport", "outcome"})}
	for by, transport := range []string{resolver.UDP: "udp", resolver.TCP: "tcp"} {
		for o := range c.of[by] {
			c.of[by][o] = c.vec.WithLabelValues(transport, resolver.Outcome(o).String())
		}
	}
	return c
}

func (c *counts) add(by resolver.Transport, o resolver.Outcome) { c.of[by][o].Inc() }

var (
	kernelDesc    = prometheus.NewDesc("libnet_names_kernel_queries_total", "DNS queries of containers that the kernel has read (responder bpf); foreign ones went on.", []string{"outcome"}, nil)
	endpointsDesc = prometheus.NewDesc("libnet_names_endpoints", "Attachments that have names.", nil, nil)
	okDesc        = prometheus.NewDesc("libnet_names_ok", "1 while queries for names are answered, or no network has names.", nil, nil)
)

// Describe sends what Collect sends.
func (s *Service) Describe(to chan<- *prometheus.Desc) {
	s.counts.vec.Describe(to)
	to <- kernelDesc
	to <- endpointsDesc
	to <- okDesc
}

// Collect sends the metrics of the service.
func (s *Service) Collect(to chan<- prometheus.Metric) {
	s.counts.vec.Collect(to)
	if c, err := s.kernel.Counts(context.Background()); err == nil { // else only these are missing
		for outcome, n := range map[resolver.Outcome]uint64{resolver.Foreign: c.Foreign, resolver.Answered: c.Answered, resolver.NoData: c.NoData} {
			to <- prometheus.MustNewConstMetric(kernelDesc, prometheus.CounterValue, float64(n), outcome.String())
		}
	}
	ok := 1
	s.mu.Lock()
	named := s.named()
	s.mu.Unlock()
	if s.Err() != nil {
		ok = 0
	}
	to <- prometheus.MustNewConstMetric(endpointsDesc, prometheus.GaugeValue, float64(named))
	to <- prometheus.MustNewConstMetric(okDesc, prometheus.GaugeValue, float64(ok))
}

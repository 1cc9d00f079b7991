package mesh

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/libnet-cni/libnet/internal/balancer"
)

var (
	connectionsDesc = prometheus.NewDesc("libnet_service_connections_total",
		"Connections to a port of a service that began on this host.", []string{"network", "service", "port"}, nil)
	ledDesc = prometheus.NewDesc("libnet_service_backend_connections_total",
		"Connections to a service that began on this host and were led to a container.", []string{"network", "service", "container", "host"}, nil)
	backendsDesc = prometheus.NewDesc("libnet_service_backends",
		"Containers behind a service, on all hosts: ready ones get connections, drained ones keep those that they have.", []string{"network", "service", "state"}, nil)
	okDesc = prometheus.NewDesc("libnet_service_ok", "1 while all services of networks that span hosts are as they are to be.", nil, nil)
)

// scrape is how long the state of services may take to read.
const scrape = 5 * time.Second

// Describe sends what Collect sends.
func (m *Mesh) Describe(to chan<- *prometheus.Desc) {
	to <- connectionsDesc
	to <- ledDesc
	to <- backendsDesc
	to <- okDesc
}

// Collect sends the metrics of the services of networks that span hosts.
func (m *Mesh) Collect(to chan<- prometheus.Metric) {
	ok := 1.0
	if m.Err() != nil {
		ok = 0
	}
	to <- prometheus.MustNewConstMetric(okDesc, prometheus.GaugeValue, ok)
	ctx, cancel := context.WithTimeout(context.Background(), scrape)
	defer cancel()
	m.mu.Lock()
	networks := make([]Network, 0, len(m.networks))
	for _, n := range m.networks {
		networks = append(networks, n)
	}
	m.mu.Unlock()
	open := controllers{}
	defer open.close()
	for _, n := range networks {
		s, err := open.services(n.StateDir)
		if err != nil {
			continue // Err tells
		}
		found, _ := s.List(ctx, n.Name) // what can be read
		for _, f := range found {
			if f.Shared {
				collect(to, f)
			}
		}
	}
}

func collect(to chan<- prometheus.Metric, f balancer.Found) {
	for i, p := range f.Ports {
		if i < len(f.Connections) && len(f.VIPs) > 0 {
			to <- prometheus.MustNewConstMetric(connectionsDesc, prometheus.CounterValue, float64(f.Connections[i]), f.Network, f.Name, p.String())
		}
	}
	ready, drained := 0, 0
	led := map[[2]string]uint64{} // a container may have several interfaces on a network
	for i, b := range f.Backends {
		if i < len(f.Led) && len(f.VIPs) > 0 {
			led[[2]string{b.ContainerID, b.Node}] += f.Led[i]
		}
		if f.Weight(b.ContainerID) > 0 {
			ready++
		} else {
			drained++
		}
	}
	for at, n := range led {
		to <- prometheus.MustNewConstMetric(ledDesc, prometheus.CounterValue, float64(n), f.Network, f.Name, at[0], at[1])
	}
	to <- prometheus.MustNewConstMetric(backendsDesc, prometheus.GaugeValue, float64(ready), f.Network, f.Name, "ready")
	to <- prometheus.MustNewConstMetric(backendsDesc, prometheus.GaugeValue, float64(drained), f.Network, f.Name, "drained")
}

// Package telemetry takes the reports of plugins' calls (internal/report) at a socket, and makes
// of them histograms for Prometheus and, of calls whose caller traces, spans for a collector of
// OpenTelemetry.
package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/libnet-cni/libnet/internal/report"
)

// Config is what Calls works with.
type Config struct {
	// StateDir is the directory of the records, where plugins look for the socket.
	StateDir string
	// Endpoint is the URL of a collector, as "http://127.0.0.1:4318"; empty: spans go nowhere.
	Endpoint string
	// Host is this host's name in spans.
	Host string
	Log  *slog.Logger
}

// Calls takes reports of calls. Its metrics are a prometheus.Collector.
type Calls struct {
	conf    Config
	spans   *forwarder // nil: none are forwarded
	calls   *prometheus.HistogramVec
	steps   *prometheus.HistogramVec
	garbled prometheus.Counter
}

// New returns Calls that listen once they run. An Endpoint that is no URL is an error.
func New(c Config) (*Calls, error) {
	buckets := prometheus.ExponentialBuckets(0.0005, 2, 14) // to 4 s
	all := &Calls{
		conf: c,
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "libnet_call_duration_seconds", Help: "How long calls of plugins took.", Buckets: buckets,
		}, []string{"plugin", "command", "result"}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "libnet_call_step_duration_seconds", Help: "How long steps of calls took.", Buckets: prometheus.ExponentialBuckets(0.00005, 2, 16),
		}, []string{"command", "step"}),
		garbled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "libnet_call_reports_garbled_total", Help: "Reports of calls that could not be read.",
		}),
	}
	if c.Endpoint != "" {
		var err error
		if all.spans, err = newForwarder(c); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Describe is a prometheus.Collector's.
func (c *Calls) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect is a prometheus.Collector's.
func (c *Calls) Collect(to chan<- prometheus.Metric) {
	c.calls.Collect(to)
	c.steps.Collect(to)
	c.garbled.Collect(to)
	if c.spans != nil {
		c.spans.dropped.Collect(to)
		c.spans.sent.Collect(to)
	}
}

// mostReport is more than any report has, in bytes.
const mostReport = 64 << 10

// Run takes reports until ctx ends.
func (c *Calls) Run(ctx context.Context) error {
	in, err := c.listen()
	if err != nil {
		return fmt.Errorf("listen for reports of calls: %w", err)
	}
	defer c.leave()()
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = in.Close() })
	defer stop()
	g.Go(func() error {
		defer func() { _ = in.Close() }()
		buf := make([]byte, mostReport)
		for {
			n, err := in.Read(buf)
			if err != nil {
				return errors.Join(ctx.Err(), err)
			}
			c.take(buf[:n])
		}
	})
	if c.spans != nil {
		g.Go(func() error { return c.spans.run(ctx) })
	}
	err = g.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = context.Canceled
	}
	return err
}

// listen makes the socket; only root reaches it.
func (c *Calls) listen() (*net.UnixConn, error) {
	path := report.Socket(c.conf.StateDir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of an agent that was killed
		return nil, err
	}
	in, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	_ = in.SetReadBuffer(1 << 20) // as much as the host allows
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// leave returns what removes the socket, which closing it does not, unless another agent has made
// its own there.
func (c *Calls) leave() func() {
	path := report.Socket(c.conf.StateDir)
	ours, err := os.Stat(path)
	return func() {
		if now, nowErr := os.Stat(path); err == nil && nowErr == nil && os.SameFile(ours, now) {
			_ = os.Remove(path)
		}
	}
}

func (c *Calls) take(data []byte) {
	var r report.Received
	if json.Unmarshal(data, &r) != nil || !known(r) {
		c.garbled.Inc()
		return
	}
	result := "ok"
	if r.Code != 0 {
		result = "error"
	}
	c.calls.WithLabelValues(r.Plugin, r.Command, result).Observe(seconds(r.NS))
	for _, s := range r.Steps {
		c.steps.WithLabelValues(r.Command, s.Step).Observe(seconds(s.NS))
	}
	if c.spans != nil {
		c.spans.give(r)
	}
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }

// known says that a report is of a plugin of ours: of anything else there would be a time series
// for each word.
func known(r report.Received) bool {
	switch r.Plugin {
	case "bridge-ln", "overlay-ln", "portmap-ln":
	default:
		return false
	}
	switch r.Command {
	case "ADD", "CHECK", "DEL", "GC", "STATUS":
	default:
		return false
	}
	for _, s := range r.Steps {
		if len(s.Step) > 20 || len(r.Steps) > report.MostSteps {
			return false
		}
	}
	return r.NS >= 0
}

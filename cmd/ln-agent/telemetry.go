package main

import (
	"cmp"
	"context"
	"log/slog"

	"github.com/spf13/pflag"

	"github.com/libnet-cni/libnet/internal/graph"
	"github.com/libnet-cni/libnet/internal/operator"
	"github.com/libnet-cni/libnet/internal/telemetry"
)

// telemetrySettings are the flags about reports of calls.
type telemetrySettings struct{ endpoint string }

func (t *telemetrySettings) flags(f *pflag.FlagSet, getenv func(string) string) {
	f.StringVar(&t.endpoint, "otlp-endpoint", cmp.Or(getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), getenv("OTEL_EXPORTER_OTLP_ENDPOINT")),
		"`URL` of an OpenTelemetry collector, as http://127.0.0.1:4318, for calls of plugins whose caller traces; empty: none")
}

// calls takes reports of the host's plugins.
func (s *settings) calls(host string, log *slog.Logger) (*telemetry.Calls, error) {
	calls, err := telemetry.New(telemetry.Config{StateDir: s.stateDir, Endpoint: s.telemetry.endpoint, Host: host, Log: log})
	if err != nil {
		return nil, usagef("--otlp-endpoint %w", err)
	}
	return calls, nil
}

// graph looks at this host's networks, for the drawing of them.
func (s *settings) graph(host string) func(context.Context) ([]graph.Host, error) {
	return func(ctx context.Context) ([]graph.Host, error) {
		o, err := operator.Open(operator.Options{StateDir: s.stateDir})
		if err != nil {
			return nil, err
		}
		defer o.Close()
		h, err := graph.Look(ctx, o)
		h.Host = host
		return []graph.Host{h}, err
	}
}

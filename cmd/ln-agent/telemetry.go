package main

import (
	"cmp"
	"log/slog"

	"github.com/spf13/pflag"

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

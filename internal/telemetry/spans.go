package telemetry

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/libnet-cni/libnet/internal/report"
)

// forwarder sends spans to a collector by OTLP over HTTP.
type forwarder struct {
	client   otlptrace.Client
	log      *slog.Logger
	host     string
	queue    chan []*trace.Span // of a call each
	dropped  prometheus.Counter
	sent     prometheus.Counter
	troubled bool
}

const (
	mostWaiting = 1000 // calls; what comes while the collector is away is dropped
	mostSent    = 200  // calls in one request
	gather      = 200 * time.Millisecond
	sendTime    = 10 * time.Second
	lastTime    = 2 * time.Second // when the agent stops
)

func newForwarder(c Config) (*forwarder, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q: want the URL of a collector, as http://127.0.0.1:4318", c.Endpoint)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return &forwarder{
		client: otlptracehttp.NewClient(otlptracehttp.WithEndpointURL(u.String())), log: c.Log, host: c.Host,
		queue: make(chan []*trace.Span, mostWaiting),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "libnet_spans_dropped_total", Help: "Calls whose spans did not get to the collector.",
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "libnet_spans_sent_total", Help: "Calls whose spans got to the collector.",
		}),
	}, nil
}

// give has the spans of a call forwarded, if its caller traces it.
func (f *forwarder) give(r report.Received) {
	parent, err := report.ParseParent(r.TraceParent)
	if err != nil || !parent.Sampled {
		return
	}
	select {
	case f.queue <- spansOf(r, parent):
	default:
		f.dropped.Inc()
	}
}

func (f *forwarder) run(ctx context.Context) error {
	if err := f.client.Start(ctx); err != nil {
		return fmt.Errorf("forward spans: %w", err)
	}
	for {
		var calls [][]*trace.Span
		select {
		case <-ctx.Done():
			f.last(context.WithoutCancel(ctx))
			return ctx.Err()
		case first := <-f.queue:
			calls = f.more(ctx, first)
		}
		f.send(ctx, calls, sendTime)
	}
}

// more waits a moment for what comes with the first call.
func (f *forwarder) more(ctx context.Context, first []*trace.Span) [][]*trace.Span {
	calls := [][]*trace.Span{first}
	for late := time.After(gather); len(calls) < mostSent; {
		select {
		case <-ctx.Done():
			return calls
		case <-late:
			return calls
		case next := <-f.queue:
			calls = append(calls, next)
		}
	}
	return calls
}

// last sends what waits when the agent stops.
func (f *forwarder) last(ctx context.Context) {
	var calls [][]*trace.Span
	for len(f.queue) > 0 {
		calls = append(calls, <-f.queue)
	}
	if len(calls) > 0 {
		f.send(ctx, calls, lastTime)
	}
	_ = f.client.Stop(ctx)
}

func (f *forwarder) send(ctx context.Context, calls [][]*trace.Span, most time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
	defer cancel()
	scope := &trace.ScopeSpans{Scope: &common.InstrumentationScope{Name: "github.com/libnet-cni/libnet"}}
	for _, spans := range calls {
		scope.Spans = append(scope.Spans, spans...)
	}
	of := &resource.Resource{Attributes: []*common.KeyValue{text("service.name", "libnet"), text("host.name", f.host)}}
	err := f.client.UploadTraces(ctx, []*trace.ResourceSpans{{Resource: of, ScopeSpans: []*trace.ScopeSpans{scope}}})
	if err != nil {
		f.dropped.Add(float64(len(calls)))
	} else {
		f.sent.Add(float64(len(calls)))
	}
	if was := f.troubled; was != (err != nil) {
		f.troubled = !was
		if err != nil {
			f.log.Warn("spans do not get to the collector", "error", err)
		} else {
			f.log.Info("spans get to the collector")
		}
	}
}

// spansOf are one span for the call, below its caller's, and one for each step.
func spansOf(r report.Received, parent report.Parent) []*trace.Span {
	call := span(parent, r.Plugin+" "+r.Command, r.Start, r.Start+r.NS)
	call.ParentSpanId = parent.Span[:]
	call.Attributes = attributes(r)
	if r.Code != 0 {
		call.Status = &trace.Status{Code: trace.Status_STATUS_CODE_ERROR, Message: r.Error}
	}
	all := []*trace.Span{call}
	for _, s := range r.Steps {
		step := span(parent, s.Step, r.Start+s.At, r.Start+s.At+s.NS)
		step.ParentSpanId = call.SpanId
		all = append(all, step)
	}
	return all
}

func span(parent report.Parent, name string, start, end int64) *trace.Span {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	return &trace.Span{
		TraceId: parent.Trace[:], SpanId: id, Name: name, Kind: trace.Span_SPAN_KIND_INTERNAL,
		StartTimeUnixNano: uint64(max(start, 0)), EndTimeUnixNano: uint64(max(end, 0)),
	}
}

func attributes(r report.Received) []*common.KeyValue {
	all := []*common.KeyValue{text("cni.plugin", r.Plugin), text("cni.command", r.Command)}
	for _, a := range []struct{ key, value string }{
		{"cni.network", r.Network}, {"container.id", r.Container}, {"cni.ifname", r.IfName}, {"service.version", r.Version}, {"libnet.warning", r.Warning},
	} {
		if a.value != "" {
			all = append(all, text(a.key, a.value))
		}
	}
	if r.Code != 0 {
		all = append(all, &common.KeyValue{Key: "cni.code", Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(r.Code)}}})
	}
	return all
}

func text(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}

package telemetry

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/libnet-cni/libnet/internal/report"
)

const patience = 20 * time.Second

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for until := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// start runs Calls until the test ends, or stop is called.
func start(t *testing.T, c Config) (calls *Calls, stop func()) {
	t.Helper()
	c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	calls, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := calls.Run(ctx); ctx.Err() == nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	await(t, "the socket", func() bool { return report.Listened(report.Socket(c.StateDir)) })
	return calls, stop
}

func send(dir, plugin, parent string, code uint) {
	s := report.NewSteps(time.Now().Add(-3 * time.Millisecond))
	s.At("lease")
	c := report.Call{Plugin: plugin, Command: "ADD", Network: "net", ContainerID: "c1", Steps: s, Parent: parent, Code: code, Error: "no"}
	c.Send(report.Socket(dir))
}

func metrics(t *testing.T, c *Calls) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			all[f.GetName()+labels(m)] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

func labels(m *dto.Metric) (all string) {
	for _, l := range m.Label {
		all += " " + l.GetValue()
	}
	return all
}

// Reports become histograms; what is no report is counted, and makes no series of its own.
func TestHistograms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, stop := start(t, Config{StateDir: dir})
	send(dir, "bridge-ln", "", 0)
	send(dir, "bridge-ln", "", 7)
	send(dir, "evil", "", 0)
	conn, err := net.Dial("unixgram", report.Socket(dir))
	if err == nil {
		_, err = conn.Write([]byte(`{"plugin":`))
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	await(t, "four reports", func() bool { return metrics(t, c)["libnet_call_reports_garbled_total"] == 2 })
	m := metrics(t, c)
	for name, want := range map[string]float64{
		"libnet_call_duration_seconds ADD bridge-ln ok": 1, "libnet_call_duration_seconds ADD bridge-ln error": 1,
		"libnet_call_step_duration_seconds ADD lease": 2, "libnet_call_step_duration_seconds ADD read": 2,
	} {
		if m[name] != want {
			t.Errorf("%s: %v, want %v of %v", name, m[name], want, m)
		}
	}
	if info, err := os.Stat(report.Socket(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if stop(); report.Listened(report.Socket(dir)) {
		t.Error("the socket is there after the end")
	}
}

// A call whose caller samples its trace becomes spans below the caller's. A collector that is
// away costs the calls, and nothing else; those that wait when the agent stops still go.
func TestSpans(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
	var mu sync.Mutex
	var spans []*trace.Span
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in collector.ExportTraceServiceRequest
		data, err := io.ReadAll(r.Body)
		if err != nil || proto.Unmarshal(data, &in) != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v, %d bytes", r.URL, err, len(data))
		}
		mu.Lock()
		defer mu.Unlock()
		for _, of := range in.ResourceSpans {
			for _, s := range of.ScopeSpans {
				spans = append(spans, s.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer server.Close()
	dir := t.TempDir()
	c, stop := start(t, Config{StateDir: dir, Endpoint: server.URL, Host: "h1"})
	send(dir, "bridge-ln", parent+"0", 0) // not sampled
	send(dir, "bridge-ln", "rubbish", 0)
	send(dir, "bridge-ln", parent+"1", 7)
	await(t, "three calls", func() bool { return metrics(t, c)["libnet_call_step_duration_seconds ADD read"] == 3 })
	stop()
	mu.Lock()
	defer mu.Unlock()
	if len(spans) != 3 || metrics(t, c)["libnet_spans_sent_total"] != 1 {
		t.Fatalf("%d spans: %v", len(spans), spans)
	}
	call := spans[0]
	if call.Name != "bridge-ln ADD" || call.ParentSpanId[0] != 0xb7 || call.TraceId[0] != 0x0a || call.Status.GetCode() != trace.Status_STATUS_CODE_ERROR || call.Status.GetMessage() != "no" {
		t.Errorf("%v", call)
	}
	for i, name := range []string{"read", "lease"} {
		s := spans[i+1]
		if s.Name != name || string(s.ParentSpanId) != string(call.SpanId) || s.StartTimeUnixNano < call.StartTimeUnixNano || s.EndTimeUnixNano > call.EndTimeUnixNano {
			t.Errorf("%v is no part of %v", s, call)
		}
	}
}

func TestNoCollector(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, stop := start(t, Config{StateDir: dir, Endpoint: "http://127.0.0.1:1"})
	send(dir, "overlay-ln", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", 0)
	await(t, "the call", func() bool { return metrics(t, c)["libnet_call_step_duration_seconds ADD read"] == 1 })
	stop()
	if m := metrics(t, c); m["libnet_spans_dropped_total"] != 1 || m["libnet_spans_sent_total"] != 0 {
		t.Errorf("%v", m)
	}
	for _, bad := range []string{"127.0.0.1:4318", "ftp://x", "http://", "%"} {
		if _, err := New(Config{StateDir: dir, Endpoint: bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

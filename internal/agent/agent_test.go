package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/plugin"
)

// noRegistry is one that cannot be reached.
type noRegistry struct{}

var _ Registry = noRegistry{}

var errAway = errors.New("away")

func (noRegistry) Session(context.Context, func(overlay.View)) error { return errAway }

func (noRegistry) Agree(context.Context, string, overlay.Terms) error { return errAway }

func (noRegistry) Claim(context.Context, string, overlay.Shared, netip.Prefix) error { return errAway }

func (noRegistry) Reclaim(context.Context, overlay.View, string) ([]netip.Prefix, error) {
	return nil, errAway
}

func (noRegistry) Quiet(context.Context) error { return errAway }

func newAgent(t *testing.T) (*Agent, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	return New(Config{
		ConfDir: t.TempDir(), Name: "h1", Address: netip.MustParseAddr("192.0.2.1"), Registry: noRegistry{},
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}), log
}

// Of a directory's files those that libcni reads are read; one that is bad, or
// names a network again, keeps no other out.
func TestReadConfDir(t *testing.T) {
	dir := t.TempDir()
	conf := func(name, subnet string) string {
		return fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"overlay-ln","subnet":%q}`, name, subnet)
	}
	for name, text := range map[string]string{
		"10-a.conf": conf("a", "10.5.0.0/16"), "20-bad.conflist": `{`, "30-again.json": conf("a", "10.6.0.0/16"),
		"40-b.conflist":   `{"cniVersion":"1.1.0","name":"b","plugins":[` + conf("", "10.7.0.0/16") + `]}`,
		"50-c.conf.saved": conf("c", "10.8.0.0/16"), "60-other.conf": `{"cniVersion":"1.1.0","name":"d","type":"bridge"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadConfDir(dir)
	var names []string
	for _, n := range got {
		names = append(names, fmt.Sprint(n.Name, n.Subnets))
	}
	if s := fmt.Sprint(names); s != "[a[10.5.0.0/16] b[10.7.0.0/16]]" {
		t.Errorf("got %s", s)
	}
	if err == nil || !strings.Contains(err.Error(), "20-bad.conflist") || !strings.Contains(err.Error(), "10-a.conf already") {
		t.Errorf("error %v, want one with both files", err)
	}
}

// Health names all that is wrong; a line of the log comes once, and one more
// when it is good again.
func TestHealth(t *testing.T) {
	a, log := newAgent(t)
	get := func() (int, string) {
		w := httptest.NewRecorder()
		a.healthz(w, nil)
		return w.Code, w.Body.String()
	}
	a.networks = []plugin.AgentNetwork{{Name: "n"}}
	a.change("n", func(s *status) { s.mendErr = overlay.ErrDiffers; s.problems = []string{"node x is odd"} })
	if code, body := get(); code != 503 || !strings.Contains(body, "etcd: etcd has not been reached") || !strings.Contains(body, "n: differs") || !strings.Contains(body, "n: node x is odd") {
		t.Errorf("%d %s", code, body)
	}
	for _, err := range []error{overlay.ErrDiffers, overlay.ErrDiffers, nil, nil} {
		a.say("n", err, "bad", "good")
	}
	if s := log.String(); strings.Count(s, "msg=bad") != 1 || strings.Count(s, "msg=good") != 1 {
		t.Errorf("log:\n%s", s)
	}
	a.seen(overlay.View{})
	a.change("n", func(s *status) { *s = status{} })
	if code, body := get(); code != 200 || body != "ok\n" {
		t.Errorf("%d %s, want 200", code, body)
	}
}

// The agent's metrics are as Prometheus wants them, also before anything is
// known.
func TestMetrics(t *testing.T) {
	a, _ := newAgent(t)
	a.networks = []plugin.AgentNetwork{{Name: "n"}}
	for range 2 {
		families, err := a.metrics.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, f := range families {
			found[f.GetName()] = true
		}
		for _, name := range []string{"etcd_up", "network_ok", "peers_wanted", "peers_programmed", "reconcile_seconds"} {
			if !found["libnet_agent_"+name] {
				t.Errorf("there is no libnet_agent_%s", name)
			}
		}
		a.seen(overlay.View{})
	}
}

// A node file's date is put off rarely, and never lies behind our right.
func TestPutOff(t *testing.T) {
	for _, tt := range []struct{ before, until, now, want int64 }{
		{0, 2000, 1000, 2000},    // the first
		{2000, 2010, 1010, 2000}, // not yet worth it
		{2000, 2100, 1100, 2100},
		{2000, 1200, 1100, 1200}, // --block-ttl is shorter now
		{2000, 0, 1100, 0},       // and never ends
		{1050, 2100, 1100, 2100}, // it had run out
		{1000, 1000, 1100, 1000}, // not renewed
	} {
		if got := putOff(tt.before, tt.until, tt.now); got != tt.want {
			t.Errorf("%+v: got %d", tt, got)
		}
	}
}

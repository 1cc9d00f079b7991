package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// noRegistry is one that cannot be reached.
type noRegistry struct{}

var _ Registry = noRegistry{}

var errAway = errors.New("away")

func (noRegistry) Session(context.Context, func() []overlay.Known, func(overlay.View)) error {
	return errAway
}

func (noRegistry) Agree(context.Context, string, overlay.Terms) error { return errAway }

func (noRegistry) Claim(context.Context, string, overlay.Shared, overlay.Moment, netip.Prefix) error {
	return errAway
}

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
	a.networks = []netconf.AgentNetwork{{Name: "n"}}
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
	if code, body := get(); code != 503 || body != "n: not reconciled yet\n" {
		t.Errorf("%d %q of a network that nothing was done for", code, body)
	}
	a.change("n", func(s *status) { s.synced = time.Now() })
	if code, body := get(); code != 200 || body != "ok\n" {
		t.Errorf("%d %s, want 200", code, body)
	}
}

// The agent's metrics are as Prometheus wants them, also before anything is
// known.
func TestMetrics(t *testing.T) {
	a, _ := newAgent(t)
	a.networks = []netconf.AgentNetwork{{Name: "n"}}
	for range 2 {
		families, err := a.metrics.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, f := range families {
			found[f.GetName()] = true
		}
		for _, name := range []string{"registry_up", "etcd_up", "network_ok", "peers_wanted", "peers_programmed", "reconcile_seconds"} {
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

// The agent forgets a network with its configuration, in health and in metrics, even if
// a loop reports on it afterwards.
func TestForgets(t *testing.T) {
	a, _ := newAgent(t)
	path := filepath.Join(a.conf.ConfDir, "a.conf")
	if err := os.WriteFile(path, []byte(`{"cniVersion":"1.1.0","name":"n","type":"overlay-ln","subnet":"10.5.0.0/16"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	a.readConf()
	a.seen(overlay.View{})
	a.change("n", func(s *status) { s.mendErr = overlay.ErrDiffers })
	a.metrics.lost.WithLabelValues("n").Inc()
	if bad := a.unwell(); len(bad) != 1 {
		t.Fatalf("%q, want what is wrong with n", bad)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	a.readConf()
	a.change("n", func(s *status) { s.claimErr = overlay.ErrFull })
	if bad := a.unwell(); len(bad) != 0 {
		t.Errorf("%q of a network that is not configured any more", bad)
	}
	families, err := a.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "network" {
					t.Errorf("%s still has network %s", f.GetName(), l.GetValue())
				}
			}
		}
	}
}

// A template that cannot be used takes no network from the agent: it may be below many, and is
// written in steps. A configuration that cannot be read does.
func TestKeepsWhatIsBelow(t *testing.T) {
	a, _ := newAgent(t)
	for _, tt := range []struct {
		text string
		want int
	}{
		{`{"cniVersion":"1.1.0","name":"n","type":"overlay-ln","subnet":"10.5.0.0/16"}`, 1},
		{`{"cniVersion":"1.1.0","name":"n","type":"overlay-ln","subnet":"10.5.0.0/16","configFrom":"there.is.none"}`, 1},
		{`{"cniVersion":"1.1.0","name":"n",`, 0},
	} {
		if err := os.WriteFile(filepath.Join(a.conf.ConfDir, "a.conf"), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		a.readConf()
		if got := len(a.networks); got != tt.want {
			t.Errorf("%s: %d networks, want %d", tt.text, got, tt.want)
		}
	}
	if a.confErr == nil {
		t.Error("health does not tell")
	}
}

// A directory of configurations that is removed and made anew, or moved and
// replaced, with those above it or without, is read again each time.
func TestFollowsConfDirMadeAnew(t *testing.T) {
	t.Parallel()
	a, _ := newAgent(t)
	root := t.TempDir()
	a.conf.ConfDir = filepath.Join(root, "cni", "net.d")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.followConf(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	has := func(what string, want ...string) {
		t.Helper()
		var got []string
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			got = nil
			for _, n := range a.situation().networks {
				got = append(got, n.Name)
			}
			if slices.Equal(got, want) {
				return
			}
		}
		t.Fatalf("%s: networks are %q, want %q", what, got, want)
	}
	write := func(dir, name string) {
		t.Helper()
		conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"overlay-ln","subnet":"10.5.0.0/16"}`, name)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "a.conf"), []byte(conf), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write(a.conf.ConfDir, "first")
	has("first", "first")
	must(os.RemoveAll(a.conf.ConfDir))
	has("removed")
	write(a.conf.ConfDir, "second")
	has("made anew", "second")
	must(os.RemoveAll(filepath.Join(root, "cni")))
	has("removed with the one above")
	write(a.conf.ConfDir, "third")
	has("both made anew", "third")
	write(filepath.Join(root, "new"), "fourth")
	must(errors.Join(os.Rename(a.conf.ConfDir, filepath.Join(root, "old")), os.Rename(filepath.Join(root, "new"), a.conf.ConfDir)))
	has("replaced", "fourth")
	write(a.conf.ConfDir, "fifth")
	has("changed after it was replaced", "fifth")
}

// While the lock of a pool is held, a caller that asks how much of it is in use waits
// on one descriptor, however often it asks; once the lock is free, the answer comes. Only
// an answer that the claim loop may not have waited for has it look again: otherwise it
// would look all the time.
func TestUsageWaitsOnce(t *testing.T) {
	t.Parallel()
	a, _ := newAgent(t)
	n := netconf.AgentNetwork{Name: "n", DataDir: t.TempDir()}
	a.networks = []netconf.AgentNetwork{n}
	own := []netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}
	if _, err := a.usage(t.Context(), n, own); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.claim:
		t.Error("an answer that came at once has the loop look again")
	case <-time.After(lntest.WaitForNone):
	}
	lock := filepath.Join(n.DataDir, n.Name, "lock")
	if err := os.MkdirAll(filepath.Dir(lock), 0o755); err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(held.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := a.usage(t.Context(), n, own); !errors.Is(err, ipamstore.ErrLocked) {
			t.Errorf("got %v, want ErrLocked", err)
		}
	}
	if n := openFiles(t, lock); n != 2 { // held, and the one that waits
		t.Errorf("%d descriptors of the lock, want 2", n)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if use, err := a.usage(t.Context(), n, own); err != nil || len(use) != 1 {
		t.Errorf("once it is free: %v, %v", use, err)
	}
	select {
	case <-a.claim:
	case <-time.After(lntest.WaitForAnswer):
		t.Error("an answer that came late does not have the loop look again")
	}
}

func openFiles(t *testing.T, path string) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == path {
			n++
		}
	}
	return n
}

func TestBroadcastOf(t *testing.T) {
	for cidr, want := range map[string]string{"192.0.2.1/24": "192.0.2.255", "10.1.2.3/30": "10.1.2.3", "10.1.2.2/31": "", "10.1.2.2/32": "", "2001:db8::1/64": ""} {
		ip, n, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := broadcastOf(&net.IPNet{IP: ip, Mask: n.Mask}); ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: got %s, want %q", cidr, got, want)
		}
	}
}

// brokenNetwork cannot be removed the first times.
type brokenNetwork struct{ left, tries int }

var _ spanning = (*brokenNetwork)(nil)

func (*brokenNetwork) Connect(context.Context) (engine.Connected, error) {
	return engine.Connected{}, errAway
}

func (*brokenNetwork) Heal(context.Context) error { return nil }

func (n *brokenNetwork) Disconnect(context.Context) error {
	n.tries++
	if n.left--; n.left >= 0 {
		return errAway
	}
	return nil
}

// The agent tries to remove a network whose block is another host's again until nothing is
// left; the log is loud once.
func TestRemovesAgain(t *testing.T) {
	a, log := newAgent(t)
	c, err := engine.New(engine.WithStateDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	block := netip.MustParsePrefix("10.5.1.0/24")
	n := netconf.AgentNetwork{Name: "n", Subnets: []netip.Prefix{block}, Size: model.BlockSize{IPv4: 24, IPv6: 64}}
	a.networks = []netconf.AgentNetwork{n}
	v := overlay.View{Networks: map[string]overlay.Shared{"n": {
		Terms: a.terms(n), Agreed: true, Blocks: map[netip.Prefix]overlay.Holding{block: {Node: "h9"}},
	}}}
	broken := &brokenNetwork{left: 2}
	k := keeper{agent: a, controller: c, network: n, define: func(nodefile.File) (spanning, error) { return broken, nil }}
	k.before = nodefile.File{Network: "n", Blocks: []netip.Prefix{block}, Nodes: []nodefile.Node{{Name: "h1"}}}
	for i, fails := range []bool{true, true, false, false} {
		_, err := k.follow(t.Context(), v)
		if !errors.Is(err, errSoon) || errors.Is(err, errAway) != fails {
			t.Errorf("pass %d: %v, want an error of removing: %t", i, err, fails)
		}
		k.before = nodefile.File{} // the node file goes first
	}
	if broken.tries != 3 {
		t.Errorf("it was removed %d times, want 3: until it succeeds", broken.tries)
	}
	if n := strings.Count(log.String(), "BLOCK LOST"); n != 1 {
		t.Errorf("the log says %d times that the block is lost, want once", n)
	}
}

// A task beside the networks does not end the agent.
func TestBeside(t *testing.T) {
	a, log := newAgent(t)
	if err := a.beside("this", func(context.Context) error { return errors.New("no room") })(t.Context()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), `msg="this cannot be served" error="no room"`) {
		t.Errorf("log:\n%s", log)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := log.String()
	if err := a.beside("this", func(ctx context.Context) error { return ctx.Err() })(ctx); err != nil || log.String() != before {
		t.Errorf("%v, log:\n%s", err, log)
	}
}

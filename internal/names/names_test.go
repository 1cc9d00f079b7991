package names

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/capture"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/state"
)

func TestMain(m *testing.M) { os.Exit(lntest.Main(m)) }

// lab is a Service with records. It looks when the test says so, in the test's namespace.
type lab struct {
	*Service
	t   *testing.T
	dir *state.Dir
	log *bytes.Buffer
}

func newLab(t *testing.T, c Config) *lab {
	t.Helper()
	l := &lab{t: t, log: &bytes.Buffer{}}
	c.StateDir = t.TempDir()
	c.Log = slog.New(slog.NewTextHandler(l.log, nil))
	l.dir = state.New(c.StateDir)
	s := New(c)
	l.must(s.begin())
	l.Service = s
	t.Cleanup(func() { s.setCapture(nil); l.must(s.follow.Close()) })
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// put writes the record of a container's attachment to a network; without names the
// network has none.
func (l *lab) put(network, container, address string, names ...string) state.Endpoint {
	l.t.Helper()
	p := netip.MustParsePrefix(address)
	e := state.Endpoint{
		Network: network, ContainerID: container, IfName: "eth-" + network, Phase: state.PhaseReady, Bridge: "br-" + network,
		Addresses: []state.Address{{Prefix: p, Gateway: p.Masked().Addr().Next()}, {}},
	}
	if names != nil {
		e.Names = &state.Names{Own: names, Domain: "libnet.internal"}
	}
	l.must(l.dir.SaveEndpoint(e))
	return e
}

// ask asks as a container, and says what came: addresses, or the outcome.
func (l *lab) ask(network, from, name string, tcp bool) string {
	l.t.Helper()
	l.update() // as when queries have come
	return l.answer(network, from, name, tcp)
}

// answer is ask by what is known already.
func (l *lab) answer(network, from, name string, tcp bool) string {
	l.t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	wire, err := m.Pack()
	l.must(err)
	q := capture.Query{From: netip.MustParseAddr(from), To: netip.MustParseAddrPort("192.0.2.53:53"), Message: wire, TCP: tcp}
	if !tcp {
		q.Bridge = "br-" + network
	}
	answer := l.respond(q)
	if answer == nil {
		return "foreign"
	}
	l.must(m.Unpack(answer))
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 {
		return dns.RcodeToString[m.Rcode]
	}
	var all []string
	for _, rr := range m.Answer {
		all = append(all, rr.(*dns.A).A.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// A record counts from the moment at which it is written, without a word to the service;
// one of an attachment that is being made does not. Queries are counted and logged.
func TestRecordsAreAnswers(t *testing.T) {
	l := newLab(t, Config{Queries: true})
	web := l.put("front", "c-web", "10.1.0.2/24", "web")
	l.put("plain", "c-bare", "10.2.0.2/24")
	half := l.put("front", "c-half", "10.1.0.3/24", "half")
	half.Phase = state.PhaseLeased
	l.must(l.dir.SaveEndpoint(half))
	for _, c := range []struct {
		network, from, name string
		tcp                 bool
		want                string
	}{
		{"front", "10.1.0.2", "web", false, "10.1.0.2"},
		{"front", "10.1.0.2", "web", true, "10.1.0.2"},
		{"front", "10.1.0.2", "half", false, "foreign"},
		{"front", "10.1.0.2", "no.libnet.internal", false, "NXDOMAIN"},
		{"front", "10.1.0.2", "libnet.internal", false, "NOERROR"},
		{"front", "10.1.0.3", "web", false, "foreign"}, // it is not there yet
		{"front", "10.1.0.9", "web", true, "foreign"},
		{"plain", "10.2.0.2", "web", false, "foreign"},
		{"other", "10.1.0.2", "web", false, "foreign"},
	} {
		if got := l.ask(c.network, c.from, c.name, c.tcp); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	web.Names.Own = []string{"shop"}
	l.must(l.dir.SaveEndpoint(web))
	if got := l.ask("front", "10.1.0.2", "web", false) + l.ask("front", "10.1.0.2", "shop", false); got != "foreign10.1.0.2" {
		t.Errorf("after it is renamed: %s", got)
	}
	l.put("back", "c-web", "10.3.0.2/24", "web")
	l.put("back", "c-db", "10.3.0.3/24", "db")
	if got := l.ask("front", "10.1.0.2", "db", false); got != "10.3.0.3" {
		t.Errorf("after connect: %s", got)
	}
	l.must(l.dir.DeleteEndpoint("back", "c-web", "eth-back"))
	if got := l.ask("front", "10.1.0.2", "db", false); got != "foreign" {
		t.Errorf("after disconnect: %s", got)
	}
	if got := strings.Count(l.log.String(), "msg=query"); got != 13 {
		t.Errorf("%d queries in the log, want 13:\n%s", got, l.log)
	}
	if line := `container=c-web network=front from=10.1.0.2 server=192.0.2.53:53 name=shop. type=A outcome=answered`; !strings.Contains(l.log.String(), line) {
		t.Errorf("the log has no %q:\n%s", line, l.log)
	}
	want := map[string]float64{
		"udp answered": 3, "tcp answered": 1, "udp nxdomain": 1, "udp nodata": 1, "udp foreign": 6, "tcp foreign": 1,
		"udp truncated": 0, "tcp nxdomain": 0, "tcp nodata": 0, "tcp truncated": 0,
		"kernel answered": 0, "kernel nodata": 0, "kernel foreign": 0,
		"libnet_names_endpoints": 3, "libnet_names_ok": 0, // nothing is captured
	}
	if diff := cmp.Diff(want, l.metrics()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// metrics returns the counters by their labels, and the gauges by their names.
func (l *lab) metrics() map[string]float64 {
	l.t.Helper()
	r := prometheus.NewPedanticRegistry()
	l.must(r.Register(l.Service))
	families, err := r.Gather()
	l.must(err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetCounter() == nil {
				got[f.GetName()] = m.GetGauge().GetValue()
				continue
			}
			labels := map[string]string{}
			for _, p := range m.GetLabel() {
				labels[p.GetName()] = p.GetValue()
			}
			by := labels["transport"]
			if by == "" {
				by = "kernel"
			}
			got[by+" "+labels["outcome"]] = m.GetCounter().GetValue()
		}
	}
	return got
}

// Subnets of networks with names are captured, and of their containers the addresses on
// other networks.
func TestAskers(t *testing.T) {
	l := newLab(t, Config{})
	l.put("front", "c-web", "10.1.0.2/24", "web")
	l.put("front", "c-db", "10.1.0.3/24", "db")
	l.put("plain", "c-web", "10.2.0.2/24")
	l.put("plain", "c-bare", "10.2.0.3/24")
	l.put("six", "c-six", "fd00::2/64", "six")
	l.update()
	var got []string
	for _, p := range l.askers() {
		got = append(got, p.String())
	}
	slices.Sort(got)
	if s := fmt.Sprint(got); s != "[10.1.0.0/24 10.2.0.2/32 fd00::/64]" {
		t.Errorf("got %s", s)
	}
}

// It is no fault if nothing can be captured, until a network has names.
func TestFaults(t *testing.T) {
	lntest.Isolate(t)
	taken, err := capture.Start(capture.Config{})
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, Config{})
	if err := l.Err(); !errors.Is(err, errNotBegun) {
		t.Errorf("before the first look: %v", err)
	}
	l.look()
	l.put("plain", "c-bare", "10.2.0.3/24")
	l.look()
	if err := l.Err(); err != nil {
		t.Errorf("without a network that has names: %v", err)
	}
	l.put("front", "c-web", "10.1.0.2/24", "web")
	for range 2 {
		l.look()
	}
	if err := l.Err(); !errors.Is(err, unix.EPERM) || l.metrics()["libnet_names_ok"] != 0 {
		t.Errorf("the table is another process's, and names are not answered: %v", err)
	}
	l.must(taken.Close())
	l.look()
	if err := l.Err(); err != nil || l.metrics()["libnet_names_ok"] != 1 {
		t.Errorf("after it is gone: %v", err)
	}
	for text, n := range map[string]int{"could not be captured": 1, "are not answered": 1, "are captured": 1, "containers are answered": 1} {
		if got := strings.Count(l.log.String(), text); got != n {
			t.Errorf("%q is %d times in the log, want %d:\n%s", text, got, n, l.log)
		}
	}
}

// A connection goes on out of the namespace of the container that asked, and of no other
// that its path leads to.
func TestInside(t *testing.T) {
	l := newLab(t, Config{})
	l.put("front", "c-lost", "10.1.0.9/24", "lost")
	path := lntest.NewNetns(t)
	n, err := netns.Open(path)
	l.must(err)
	id, err := n.ID()
	l.must(errors.Join(err, n.Close()))
	web := l.put("front", "c-web", "10.1.0.2/24", "web")
	web.Netns, web.NetnsID = path, state.NetnsID(id)
	l.must(l.dir.SaveEndpoint(web))
	old := l.put("front", "c-old", "10.1.0.3/24", "old")
	old.Netns, old.NetnsID = path, state.NetnsID{Dev: id.Dev, Ino: id.Ino + 1, Cookie: id.Cookie + 1}
	l.must(l.dir.SaveEndpoint(old))
	l.update()
	var there bool
	err = l.inside(netip.MustParseAddr("10.1.0.2"), func() error {
		now, err := netns.Current()
		if err != nil {
			return err
		}
		at, err := now.ID()
		there = at == id
		return errors.Join(err, now.Close())
	})
	if err != nil || !there {
		t.Errorf("not in the container: %v", err)
	}
	for _, from := range []string{"10.1.0.3", "10.1.0.4", "10.1.0.9"} {
		err := l.inside(netip.MustParseAddr(from), func() error { t.Errorf("%s: called", from); return nil })
		if !errors.Is(err, errNoHome) {
			t.Errorf("%s: %v", from, err)
		}
	}
}

// Of networks that span hosts the others hear, and those of theirs are answered.
func TestOtherHosts(t *testing.T) {
	l := newLab(t, Config{})
	l.put("over", "c-a", "10.5.1.2/24", "a", "alias")
	l.put("bridge", "c-b", "10.6.1.2/24", "b")
	l.update()
	own := func(all bool) string {
		var text []string
		for _, one := range l.Own(all) {
			text = append(text, fmt.Sprint(one.Network, "/", one.Container, "/", one.IfName, one.Names))
		}
		slices.Sort(text)
		return fmt.Sprint(text)
	}
	changed := func() bool {
		select {
		case <-l.Changed():
			return true
		default:
			return false
		}
	}
	if got := own(true); got != "[]" || changed() {
		t.Errorf("shared before any network spans hosts: %s", got)
	}
	l.Share([]string{"over"})
	if got := own(false); got != "[over/c-a/eth-over[a alias]]" || !changed() {
		t.Errorf("once its network does: %s", got)
	}
	l.put("over", "c-new", "10.5.1.3/24", "new")
	l.put("bridge", "c-b2", "10.6.1.3/24", "b2")
	l.update()
	if got := own(false); got != "[over/c-new/eth-over[new]]" || !changed() {
		t.Errorf("another container: %s", got)
	}
	l.must(l.dir.DeleteEndpoint("over", "c-a", "eth-over"))
	l.update()
	if got := own(false); got != "[over/c-a/eth-over[]]" || !changed() {
		t.Errorf("one that is gone: %s", got)
	}
	if got := own(true); got != "[over/c-new/eth-over[new]]" || own(false) != "[]" {
		t.Errorf("all: %s", got)
	}

	far := func(node, container, name, address string) overlay.Named {
		one := overlay.Named{NamedID: overlay.NamedID{Node: node, Network: "over", Container: container, IfName: "eth0"}}
		if name != "" {
			one.Names, one.Addresses, one.Domain = []string{name}, []netip.Addr{netip.MustParseAddr(address)}, "far.example"
		}
		return one
	}
	ask := func(name string) string { return l.ask("over", "10.5.1.3", name, false) }
	l.Others([]overlay.Named{far("h2", "c-x", "x", "10.5.2.2"), far("h3", "c-y", "new", "10.5.3.2"), far("h3", "c-new", "twin", "10.5.3.3")}, true)
	if got := ask("x") + " " + ask("new") + " " + ask("new.libnet.internal") + " " + ask("twin"); got != "10.5.2.2 10.5.1.3 10.5.3.2 10.5.1.3 10.5.3.2 10.5.3.3" {
		t.Errorf("names of other hosts: %s", got)
	}
	if got := l.ask("bridge", "10.6.1.2", "x", false); got != "foreign" {
		t.Errorf("from another network: %s", got)
	}
	l.Others([]overlay.Named{far("h2", "c-x", "", ""), far("h2", "c-z", "z", "10.5.2.3")}, false)
	if got := ask("x") + " " + ask("z") + " " + ask("twin"); got != "foreign 10.5.2.3 10.5.3.3" {
		t.Errorf("after a change: %s", got)
	}
	l.Others(nil, true)
	if got := ask("z") + " " + ask("twin") + " " + ask("new"); got != "foreign foreign 10.5.1.3" {
		t.Errorf("without other hosts: %s", got)
	}
	l.Share(nil)
	if got := own(false); got != "[over/c-new/eth-over[]]" {
		t.Errorf("once its network spans none: %s", got)
	}
}

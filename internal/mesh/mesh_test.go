package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/service"
)

func TestMain(m *testing.M) { os.Exit(lntest.Main(m)) }

// defs is a registry that holds one definition for PutService.
type defs struct {
	Registry
	mu  sync.Mutex
	put []service.Shared
}

func (d *defs) PutService(_ context.Context, s service.Shared) (service.Shared, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.put = append(d.put, s)
	return s, nil
}

func newMesh() *Mesh {
	return New(Config{Node: "h1", Registry: &defs{}, Log: slog.New(slog.DiscardHandler)})
}

func webOf(name string, revision int64) service.Shared {
	return service.Shared{Revision: revision, Service: service.Service{
		Network: "net1", Name: name, Select: "shop", Shared: true, Affinity: service.AffinityNone, VIPs: []netip.Addr{netip.MustParseAddr("10.5.9.1")},
		Ports: []service.Port{{Protocol: firewall.TCP, Port: 80, Target: 8080}},
	}}
}

func far(node, container, name, addr string) overlay.Named {
	return overlay.Named{
		NamedID: overlay.NamedID{Network: "net1", Node: node, Container: container, IfName: "eth0"},
		Names:   []string{name}, Addresses: []netip.Addr{netip.MustParseAddr(addr)},
	}
}

func gone(one overlay.Named) overlay.Named { return overlay.Named{NamedID: one.NamedID} }

// led says to which containers of other hosts a service leads, and which services are to be
// looked at since the last call.
func (m *Mesh) led(name string) (to, dirty string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all, changed []string
	for _, b := range m.backends(m.defs[key{"net1", name}]) {
		all = append(all, b.Node+"/"+b.ContainerID)
	}
	for k := range m.dirty {
		changed = append(changed, k.name)
	}
	clear(m.dirty)
	slices.Sort(changed)
	return strings.Join(all, " "), strings.Join(changed, " ")
}

// A service that preserves the addresses of clients has those of its containers' hosts, as they
// change, and any change of whether a network has such services is told.
func TestPublishes(t *testing.T) {
	m := newMesh()
	told := 0
	m.OnPublishing(func() { told++ })
	want := func(publishes, preserves, known bool, calls int) {
		t.Helper()
		if is, p, k := m.Publishes("net1"); is != publishes || p != preserves || k != known || told != calls {
			t.Errorf("Publishes: %v, preserves %v, known %v, told %d times; want %v, %v, %v, %d", is, p, k, told, publishes, preserves, known, calls)
		}
	}
	want(false, false, false, 0)
	web, other := webOf("web", 1), webOf("other", 1)
	m.Defined([]service.Shared{web, other}, true)
	want(false, false, true, 1)
	web.Revision, web.External = 2, service.ExternalPreserve
	m.Defined([]service.Shared{web}, false)
	want(false, false, true, 1) // no port is published
	web.Revision, web.Published = 3, []service.Published{{Protocol: firewall.TCP, Port: 8080, To: 80}}
	m.Defined([]service.Shared{web}, false)
	want(true, true, true, 2)
	m.Others([]overlay.Named{far("h2", "c1", "shop", "10.5.2.2")}, true)
	_, _ = m.led("web")
	for i, address := range []string{"192.0.2.2", "192.0.2.22"} {
		at, also := netip.MustParseAddr(address), netip.MustParseAddr("2001:db8::2")
		m.Seen(overlay.View{Members: map[string]overlay.Member{"h2": {Name: "h2", Address: at, Also: []netip.Addr{also}}}})
		if _, dirty := m.led("web"); dirty != "web" {
			t.Errorf("view %d: %q is looked at, want web alone", i, dirty)
		}
		if got := m.backends(web)[0].NodeAddresses; !slices.Equal(got, []netip.Addr{at, also}) {
			t.Errorf("view %d: addresses %v", i, got)
		}
	}
	web.Revision, web.External = 4, service.ExternalNAT
	m.Defined([]service.Shared{web}, false)
	want(true, false, true, 3)
	m.Defined([]service.Shared{{Service: service.Service{Network: "net1", Name: "web"}}}, false)
	want(false, false, true, 4)
}

// A network refuses to preserve the addresses of clients where what has them would not get to a
// container, or not back: when a service is made, and when it is followed.
func TestCannotPreserve(t *testing.T) {
	lntest.Isolate(t)
	open := controllers{}
	defer open.close()
	dir, web := t.TempDir(), webOf("web", 1)
	web.Published = []service.Published{{Protocol: firewall.TCP, Port: 8080, To: 80}}
	for _, tt := range []struct {
		network  Network
		external service.External
		want     string
	}{
		{Network{}, service.ExternalPreserve, ""},
		{Network{Encrypted: true}, service.ExternalPreserve, "is encrypted"},
		{Network{Direct: true}, service.ExternalPreserve, "has directRouting"},
		{Network{Direct: true}, service.ExternalNAT, ""},
		{Network{Direct: true}, service.ExternalLocal, ""},
	} {
		tt.network.Name, tt.network.StateDir, web.External = "net1", dir, tt.external
		made := web.Service
		m := newMesh()
		m.Keep([]Network{tt.network})
		m.Defined([]service.Shared{web}, true)
		_, _, followErr := m.prepare(t.Context(), open, key{"net1", "web"}, &outcome{})
		for _, err := range []error{tt.network.complete(&made), followErr} {
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, service.ErrInvalid) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%+v, external %s: %v, want %q", tt.network, tt.external, err, tt.want)
			}
		}
	}
}

// Containers come to the services that select one of their names, in any case, and go from
// these alone.
func TestBackends(t *testing.T) {
	m := newMesh()
	other := webOf("Other", 2)
	other.Select = "depot"
	a, b, c := far("h2", "a", "SHOP", "10.5.2.2"), far("h3", "b", "shop", "10.5.3.2"), far("h3", "c", "depot", "10.5.3.3")
	renamed := a
	renamed.Names = []string{"depot"}
	for _, step := range []struct {
		does                       string
		do                         func()
		web, webDirty, other, also string
	}{
		{"definitions", func() { m.Defined([]service.Shared{webOf("web", 1), other}, true) }, "", "other web", "", ""},
		{"containers", func() { m.Others([]overlay.Named{a, b, c}, true) }, "h2/a h3/b", "other web", "h3/c", ""},
		{"the same again", func() { m.Others([]overlay.Named{a, b, c}, true) }, "h2/a h3/b", "", "h3/c", ""},
		{"one goes", func() { m.Others([]overlay.Named{gone(b)}, false) }, "h2/a", "web", "h3/c", ""},
		{"one that was never there goes", func() { m.Others([]overlay.Named{gone(b)}, false) }, "h2/a", "", "h3/c", ""},
		{"another name", func() { m.Others([]overlay.Named{renamed}, false) }, "", "other web", "h2/a h3/c", ""},
		{"evicted", func() { m.Seen(overlay.View{Evicted: map[string]string{"h2": "h1"}}) }, "", "other web", "h3/c", ""},
		{"this host is", func() { m.Seen(overlay.View{Evicted: map[string]string{"h1": "h2"}}) }, "", "other web", "", ""},
		{"all are admitted", func() { m.Seen(overlay.View{}) }, "", "other web", "h2/a h3/c", ""},
		{"all that there is", func() { m.Others([]overlay.Named{b}, true) }, "h3/b", "other web", "", ""},
		{"a definition goes", func() { m.Defined([]service.Shared{{Service: service.Service{Network: "net1", Name: "other"}}}, false) }, "h3/b", "other", "", ""},
		{"of all one is left out", func() { m.Defined(nil, true) }, "", "web", "", ""},
	} {
		step.do()
		web, dirty := m.led("web")
		others, _ := m.led("other")
		if web != step.web || others != step.other || dirty != step.webDirty {
			t.Errorf("%s: web leads to %q, other to %q, %q are to be looked at; want %q, %q, %q", step.does, web, others, dirty, step.web, step.other, step.webDirty)
		}
	}
}

// Before all definitions and all containers of other hosts were told, nothing is done: what this
// host has from before its restart stays.
func TestNothingBeforeAllIsKnown(t *testing.T) {
	for _, first := range []string{"definitions", "containers"} {
		m := newMesh()
		m.Keep([]Network{{Name: "net1"}})
		tell := map[string]func(){
			"definitions": func() { m.Defined([]service.Shared{webOf("web", 1)}, true) },
			"containers":  func() { m.Others(nil, true) },
		}
		tell[first]()
		if todo, begins, _ := m.work(); len(todo)+len(begins) > 0 {
			t.Errorf("%s first: %v, %v", first, todo, begins)
		}
		for _, also := range tell {
			also()
		}
		if todo, begins, _ := m.work(); len(todo) != 1 || len(begins) != 1 {
			t.Errorf("%s first, then all: %v, %v", first, todo, begins)
		}
	}
}

// lnctl hears at once of what cannot be, and of what another host did meanwhile.
func TestDo(t *testing.T) {
	m := newMesh()
	ask := func(do string) error {
		_, err := m.Do(context.Background(), do, service.Request{Shared: webOf("web", 1)})
		return err
	}
	if err := ask(service.DoCreate); err == nil || !strings.Contains(err.Error(), `"net1"`) {
		t.Errorf("a network that is not kept: %v", err)
	}
	refused := errors.New("iptables")
	m.Keep([]Network{{Name: "net1", Refused: refused}})
	m.Seen(overlay.View{})
	if err := ask(service.DoCreate); !errors.Is(err, refused) {
		t.Errorf("a network that can have none: %v", err)
	}
	m.Keep([]Network{{Name: "net1"}})
	m.Others([]overlay.Named{far("h2", "a", "shop", "10.5.2.2")}, true)
	weighed := webOf("web", 1)
	weighed.Weights = map[string]int{"a": 0, "own": 3}
	m.mu.Lock()
	m.applied[keyOf(weighed.Service)] = 1
	m.mu.Unlock()
	if _, err := m.Do(context.Background(), service.DoPut, service.Request{Shared: weighed}); err != nil {
		t.Fatal(err)
	}
	if got := m.conf.Registry.(*defs).put[0].Homes; got["a"] != "h2" || got["own"] != "h1" {
		t.Errorf("hosts of the containers with a weight: %v", got)
	}
	m.Defined([]service.Shared{webOf("web", 0)}, true)
	done := make(chan error)
	go func() { done <- m.await(context.Background(), keyOf(weighed.Service), 2) }()
	time.Sleep(10 * time.Millisecond) // either order is right
	m.Defined(nil, true)
	m.note(keyOf(weighed.Service), nil)
	if err := <-done; err == nil {
		t.Error("a service that is removed is waited for in vain, and no error")
	}
}

// The weight of a container goes with it: its host takes it out of the definition, and no other
// host does.
func TestPrune(t *testing.T) {
	lntest.Isolate(t)
	m := newMesh()
	m.Keep([]Network{{Name: "net1", StateDir: filepath.Join(t.TempDir(), "state")}})
	s := webOf("web", 1)
	s.Weights, s.Homes = map[string]int{"gone": 0, "far": 2}, map[string]string{"gone": "h1", "far": "h2"}
	m.Defined([]service.Shared{s}, true)
	open := controllers{}
	defer open.close()
	m.prune(t.Context(), open)
	put := m.conf.Registry.(*defs).put
	if len(put) != 1 || len(put[0].Weights) != 1 || put[0].Weights["far"] != 2 || put[0].Homes["far"] != "h2" || put[0].Revision != 1 {
		t.Errorf("written: %+v", put)
	}
	if len(s.Weights) != 2 {
		t.Error("the definition that others read has changed")
	}
}

// Many services of many containers: what a host takes up, and how long one change takes it. The
// figures are in the log. LIBNET_MANY says how many services there are.
func TestManyServices(t *testing.T) {
	lntest.Isolate(t)
	services, backends := 500, 10
	if many := os.Getenv("LIBNET_MANY"); many != "" {
		services, _ = strconv.Atoi(many)
	}
	dir := filepath.Join(t.TempDir(), "state")
	m := newMesh()
	var all []service.Shared
	var named []overlay.Named
	for i := range services {
		s := webOf(fmt.Sprint("web", i), int64(i+1))
		s.Select = fmt.Sprint("shop", i)
		s.VIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 5, byte(100 + i>>8), byte(i)})}
		all = append(all, s)
		for j := range backends {
			named = append(named, far(fmt.Sprint("h", 2+j), fmt.Sprintf("c%d-%d", i, j), s.Select, fmt.Sprintf("10.%d.%d.%d", 6+j, i>>8, i&255)))
		}
	}
	m.Keep([]Network{{Name: "net1", StateDir: dir, Device: "br"}})
	m.Defined(all, true)
	m.Others(named, true)
	open := controllers{}
	defer open.close()
	start := time.Now()
	if !m.once(t.Context(), open) {
		t.Fatal(m.Err())
	}
	first := time.Since(start)
	var took []time.Duration
	for i := range 21 {
		one := named[i*backends]
		if m.Others([]overlay.Named{gone(one)}, false); i%2 == 1 {
			m.Others([]overlay.Named{one}, false)
		}
		start := time.Now()
		if !m.once(t.Context(), open) {
			t.Fatal(m.Err())
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	runtime.KeepAlive(m)
	t.Logf("%d services of %d containers: all at first %s; one change p50 %s, max %s; %d MiB in use", services, backends,
		first.Round(time.Millisecond), took[len(took)/2], took[len(took)-1], mem.HeapInuse>>20)
	if took[len(took)/2] > time.Second { // it grows with their number
		t.Errorf("one change: %s", took)
	}
	checkMend(t, m, open, dir)
}

// While containers come and go nothing is missing: our own removals are no loss.
func TestMendBesideChanges(t *testing.T) {
	lntest.Isolate(t)
	dir := filepath.Join(t.TempDir(), "state")
	m, open := newMesh(), controllers{}
	defer open.close()
	m.Keep([]Network{{Name: "net1", StateDir: dir, Device: "br"}})
	m.Defined([]service.Shared{webOf("web", 1)}, true)
	m.Others(nil, true)
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	var looked atomic.Int64
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with it
		done <- mendUntil(t.Context(), ns, dir, stop, &looked)
	}()
	one := far("h2", "c1", "shop", "10.6.0.1")
	for i := 0; looked.Load() < 2000; i++ {
		if m.Others([]overlay.Named{one}, false); i%2 == 1 {
			m.Others([]overlay.Named{gone(one)}, false)
		}
		if !m.once(t.Context(), open) {
			t.Error(m.Err())
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// mendUntil mends until stop is closed, and has nothing to mend.
func mendUntil(ctx context.Context, ns *os.File, dir string, stop <-chan struct{}, looked *atomic.Int64) error {
	defer looked.Store(math.MaxInt64)
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	open := controllers{}
	defer open.close()
	s, err := open.services(dir)
	for err == nil {
		select {
		case <-stop:
			return nil
		default:
		}
		var missing bool
		if missing, err = s.Mend(ctx, true); missing {
			err = fmt.Errorf("look %d found something missing", looked.Load())
		}
		looked.Add(1)
	}
	return err
}

// checkMend has elements and a table be removed, and put back. What nothing was removed of is not
// touched, also while a container comes and goes.
func checkMend(t *testing.T, m *Mesh, open controllers, dir string) {
	t.Helper()
	s, err := open.services(dir)
	if err != nil {
		t.Fatal(err)
	}
	mend := func(about string, elements, want bool) {
		t.Helper()
		start := time.Now()
		missing, err := s.Mend(t.Context(), elements)
		t.Logf("%s: looked, and mended, in %s", about, time.Since(start).Round(time.Millisecond))
		if err != nil || missing != want {
			t.Errorf("%s: missing %t, %v; want %t", about, missing, err, want)
		}
	}
	mend("all is there", true, false)
	lntest.Run(t, "nft", "flush", "map", "inet", balancer.TableName, "spread4")
	mend("a map is flushed, and tables alone are looked at", false, false)
	mend("a map is flushed", true, true)
	mend("it is mended", true, false)
	lntest.Run(t, "nft", "delete", "table", "bridge", balancer.TableName)
	mend("a table is gone", false, true)
	if mend("it is there", true, false); m.Err() != nil {
		t.Error(m.Err())
	}
}

// Elements that were removed while no agent was there to be told are put back by the next one.
func TestMendAfterStart(t *testing.T) {
	lntest.Isolate(t)
	dir := filepath.Join(t.TempDir(), "state")
	for i, want := range []bool{false, true} {
		m, open := newMesh(), controllers{}
		m.Keep([]Network{{Name: "net1", StateDir: dir, Device: "br"}})
		m.Defined([]service.Shared{webOf("web", 1)}, true)
		m.Others([]overlay.Named{far("h2", "c1", "shop", "10.6.0.1")}, true)
		if !m.once(t.Context(), open) {
			t.Fatal(m.Err())
		}
		s, err := open.services(dir)
		if err != nil {
			t.Fatal(err)
		}
		if faults, err := s.Faults(t.Context()); err != nil || strings.Contains(fmt.Sprint(faults), "rules are missing") != want {
			t.Errorf("agent %d: %v, %v", i, faults, err)
		}
		if m.doubtful() && !m.restore(t.Context(), open, true) {
			t.Fatal(m.Err())
		}
		if missing, err := s.Mend(t.Context(), true); err != nil || missing || m.doubtful() {
			t.Errorf("agent %d: still missing: %t, %v", i, missing, err)
		}
		open.close()
		lntest.Run(t, "nft", "flush", "map", "inet", balancer.TableName, "spread4")
	}
}

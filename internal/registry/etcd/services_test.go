package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/service"
)

func webOf(name string) service.Service {
	return service.Service{
		Network: "net1", Name: name, Select: "shop", Affinity: service.AffinityNone,
		Ports: []service.Port{{Protocol: firewall.TCP, Port: 80, Target: 8080}},
	}
}

// makeService makes the one of docs/etcd.md and returns its address.
func (l *lab) makeService(a *agent) netip.Addr {
	l.t.Helper()
	s, err := a.CreateService(context.Background(), a.now(), webOf("web"), true)
	l.must(err)
	s.Weights, s.Homes = map[string]int{"6f2d1c9b4a70": 0}, map[string]string{"6f2d1c9b4a70": "h1"}
	_, err = a.PutService(context.Background(), s)
	l.must(err)
	return s.VIPs[0]
}

// now is what the host saw last.
func (a *agent) now() overlay.View {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.view
}

// listing hears of services.
type listing struct {
	mu  sync.Mutex
	all map[string]service.Shared
}

func newListing() *listing { return &listing{all: map[string]service.Shared{}} }

func (n *listing) Defined(these []service.Shared, all bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if all {
		clear(n.all)
	}
	for _, s := range these {
		if n.all[s.Name] = s; s.Select == "" {
			delete(n.all, s.Name)
		}
	}
}

func (n *listing) heard() map[string]service.Shared {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := map[string]service.Shared{}
	for k, v := range n.all {
		all[k] = v
	}
	return all
}

// startServing is start for a host that hears of services.
func (l *lab) startServing(c Config) (*agent, *listing) {
	l.t.Helper()
	n := newListing()
	a := l.prepare(c, overlay.View{})
	a.Serve(n)
	a.run(l)
	return a, n
}

// Of many services that are made at once on several hosts, in one block, each has an address of
// its own, outside of all hosts' blocks; of one name there is one. All hosts hear of all.
func TestServicesAtOnce(t *testing.T) {
	l := newLab(t, 21, 1)
	ctx := context.Background()
	var hosts []*agent
	var lists []*listing
	for i := range 4 {
		a, n := l.startServing(l.conf(i + 1))
		hosts, lists = append(hosts, a), append(lists, n)
		a.awaitMember(fmt.Sprintf("h%d", i+1))
		a.agree("net1", terms("10.5.0.0/16", 24))
		_, err := a.claim()
		l.must(err)
	}
	const services = 16
	var mu sync.Mutex
	var wg sync.WaitGroup
	vips, twice := map[netip.Addr]string{}, 0
	for i := range services {
		for copies := range 2 {
			wg.Go(func() {
				a := hosts[(i+copies)%len(hosts)]
				s, err := a.CreateService(ctx, a.now(), webOf(fmt.Sprint("web", i)), true)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, overlay.ErrTaken):
					twice++
				case err != nil:
					t.Error(err)
				case vips[s.VIPs[0]] != "":
					t.Errorf("%s and %s have the address %s", s.Name, vips[s.VIPs[0]], s.VIPs[0])
				default:
					vips[s.VIPs[0]] = s.Name
				}
			})
		}
	}
	wg.Wait()
	if len(vips) != services || twice != services {
		t.Errorf("%d services were made and %d refused, want %d of each", len(vips), twice, services)
	}
	for i, n := range lists {
		l.await(fmt.Sprint("services at h", i+1), func() bool { return len(n.heard()) == services })
	}
	v := hosts[0].now()
	for vip := range vips {
		h := v.Networks["net1"].Blocks[netip.PrefixFrom(vip, 24).Masked()]
		if h.Node != overlay.ServiceHolder {
			t.Errorf("%s is in a block of %q", vip, h.Node)
		}
	}
	if members, problems := v.Hosts("net1"); len(members) != len(hosts) || len(problems) > 0 || len(v.Gone()) > 0 {
		t.Errorf("hosts %v, problems %v, gone %v", members, problems, v.Gone())
	}
}

// An address that is asked for is refused where it is a host's or another service's; with the
// service it is free again.
func TestServiceAddress(t *testing.T) {
	l := newLab(t, 22, 1)
	ctx := context.Background()
	a, n := l.startServing(l.conf(1))
	a.awaitMember("h1")
	a.agree("net1", terms("10.5.0.0/16", 24))
	block, err := a.claim()
	l.must(err)
	make := func(name string, addrs ...string) (service.Shared, error) {
		def := webOf(name)
		for _, one := range addrs {
			def.VIPs = append(def.VIPs, netip.MustParseAddr(one))
		}
		return a.CreateService(ctx, a.now(), def, false)
	}
	free := "10.5.77.7"
	if block.Contains(netip.MustParseAddr(free)) {
		free = "10.5.78.7"
	}
	if _, err := make("web", free); err != nil {
		t.Fatal(err)
	}
	for name, addrs := range map[string][]string{"a host's": {block.Addr().Next().String()}, "elsewhere": {"10.6.0.1"}, "a service's": {free}, "two of a family": {"10.5.77.8", "10.5.77.9"}} {
		if _, err := make("other", addrs...); !errors.Is(err, service.ErrInvalid) {
			t.Errorf("%s: %v, want service.ErrInvalid", name, err)
		}
	}
	s, err := make("names") // and no address
	l.must(err)
	l.await("both", func() bool { return len(n.heard()) == 2 })
	if len(s.VIPs) > 0 {
		t.Errorf("%v", s.VIPs)
	}
	l.must(a.DeleteService(ctx, "net1", "WEB"))
	if err := a.DeleteService(ctx, "net1", "web"); !errors.Is(err, ErrNoService) {
		t.Errorf("removed again: %v", err)
	}
	l.await("one", func() bool { return len(n.heard()) == 1 })
	if _, err := make("again", free); err != nil {
		t.Error(err)
	}
}

// Of two that change a definition at once one has to look again; what is gone is not put back.
func TestServiceChanged(t *testing.T) {
	l := newLab(t, 23, 1)
	ctx := context.Background()
	a, n := l.startServing(l.conf(1))
	a.awaitMember("h1")
	a.agree("net1", terms("10.5.0.0/16", 24))
	first, err := a.CreateService(ctx, a.now(), webOf("web"), true)
	l.must(err)
	second := first
	first.Weights = map[string]int{"c1": 0}
	now, err := a.PutService(ctx, first)
	l.must(err)
	second.Weights = map[string]int{"c2": 0}
	if _, err := a.PutService(ctx, second); !errors.Is(err, overlay.ErrTaken) {
		t.Errorf("by what was read before: %v", err)
	}
	l.await("the weight", func() bool { return n.heard()["web"].Revision == now.Revision })
	l.must(a.DeleteService(ctx, "net1", "web"))
	if _, err := a.PutService(ctx, now); !errors.Is(err, overlay.ErrTaken) {
		t.Errorf("after it was removed: %v", err)
	}
	if _, err := a.PutService(ctx, service.Shared{Service: webOf("web")}); !errors.Is(err, overlay.ErrTaken) {
		t.Errorf("one that was never there: %v", err)
	}
	if _, err := a.ReadService(ctx, "net1", "web"); !errors.Is(err, ErrNoService) {
		t.Errorf("read: %v", err)
	}
}

// A definition is read as it was written.
func TestServiceValue(t *testing.T) {
	s := service.Shared{Service: webOf("web"), Homes: map[string]string{"c1": "h2"}, Revision: 7}
	s.VIPs, s.StartDrained, s.Shared = []netip.Addr{netip.MustParseAddr("10.5.9.1"), netip.MustParseAddr("fd05::9:1")}, true, true
	s.Affinity, s.External, s.Weights = service.AffinityClient, service.ExternalLocal, map[string]int{"c1": 0}
	s.Published = []service.Published{{Protocol: firewall.TCP, Port: 8080, To: 80}}
	s.Health = service.Health{Port: 8081, Every: 7 * time.Second}
	got, err := decodeService("net1", &mvccpb.KeyValue{Value: []byte(encodeService(s)), ModRevision: 7})
	if diff := cmp.Diff(s, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("%v (-written +read):\n%s", err, diff)
	}
}

package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/overlay"
)

// lab is etcd and hosts that use it.
type lab struct {
	t       *testing.T
	members []*lntest.Etcd
	urls    []string
}

// newLab starts a cluster. Each test has a net of its own.
func newLab(t *testing.T, net, members int, args ...string) *lab {
	t.Helper()
	t.Parallel()
	l := &lab{t: t}
	var addrs []string
	for i := range members {
		addrs = append(addrs, fmt.Sprintf("127.0.%d.%d", net, i+1))
	}
	l.members = lntest.NewEtcd(t, addrs, args...)
	for _, m := range l.members {
		m.Start()
		l.urls = append(l.urls, m.URL)
	}
	for _, m := range l.members {
		m.Await()
	}
	return l
}

// conf is that of host number i, from 1.
func (l *lab) conf(i int) Config {
	return Config{
		Endpoints: l.urls, Live: 3 * time.Second, Hold: time.Hour,
		Self:   Self{Name: fmt.Sprintf("h%d", i), Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Instance: fmt.Sprintf("boot%d", i)},
		Uptime: func() int64 { return 1000 },
	}
}

// client is for a look beside the registry.
func (l *lab) client() *clientv3.Client {
	l.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: l.urls, DialTimeout: patience})
	l.must(err)
	l.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// agent is a host whose session is begun again whenever it ends.
type agent struct {
	*Registry
	t    *testing.T
	name string
	stop func()

	mu    sync.Mutex
	view  overlay.View
	views int
	news  chan struct{}
	ended []error
}

func (l *lab) start(c Config, names ...Names) *agent {
	l.t.Helper()
	return l.startKnowing(c, overlay.View{}, names...)
}

// startKnowing starts a host that has been there before, and knows what it saw.
func (l *lab) startKnowing(c Config, v overlay.View, names ...Names) *agent {
	l.t.Helper()
	a := l.prepare(c, v, names...)
	a.run(l)
	return a
}

func (l *lab) prepare(c Config, v overlay.View, names ...Names) *agent {
	a := &agent{Registry: New(c), t: l.t, name: c.Self.Name, view: v, news: make(chan struct{}, 1)}
	for _, n := range names {
		a.Exchange(n)
	}
	return a
}

// run begins sessions until stop is called.
func (a *agent) run(l *lab) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			err := a.Session(ctx, a.known, a.seen)
			a.mu.Lock()
			a.ended = append(a.ended, err)
			a.mu.Unlock()
			a.poke()
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	a.stop = sync.OnceFunc(func() { cancel(); <-done })
	l.t.Cleanup(a.stop)
}

// knowsNothing is of a host that is new.
func knowsNothing() []overlay.Known { return nil }

// known is what the host saw last, as its node files have it.
func (a *agent) known() []overlay.Known {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []overlay.Known
	for name, s := range a.view.Networks {
		hosts := map[string]overlay.KnownHost{}
		for b, h := range s.Blocks {
			if hosts[h.Node].Blocks == nil {
				hosts[h.Node] = overlay.KnownHost{Name: h.Node, Address: a.view.Members[h.Node].Address, Blocks: map[netip.Prefix]overlay.Epoch{}}
			}
			hosts[h.Node].Blocks[b] = h.Epoch
		}
		if _, member := hosts[a.name]; member {
			all = append(all, overlay.Known{Network: name, At: a.view.At, Hosts: slices.Collect(maps.Values(hosts))})
		}
	}
	return all
}

func (a *agent) seen(v overlay.View) {
	a.mu.Lock()
	a.view = v
	a.views++
	a.mu.Unlock()
	a.poke()
}

func (a *agent) poke() {
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// await waits until a view has what is asked for.
func (a *agent) await(what string, has func(overlay.View) bool) overlay.View {
	a.t.Helper()
	bound := time.After(90 * time.Second)
	for {
		a.mu.Lock()
		v, ended := a.view, slices.Clone(a.ended)
		a.mu.Unlock()
		if has(v) {
			return v
		}
		select {
		case <-a.news:
		case <-time.After(100 * time.Millisecond): // what failed brings no news
		case <-bound:
			a.t.Fatalf("%s: no %s; the view is %+v, sessions ended with %v", a.name, what, v, ended)
		}
	}
}

// awaitEnd waits for a session to end with an error.
func (a *agent) awaitEnd(want error) {
	a.t.Helper()
	a.await("session that ends with "+want.Error(), func(overlay.View) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return slices.ContainsFunc(a.ended, func(err error) bool { return errors.Is(err, want) })
	})
}

func (a *agent) awaitMember(name string) overlay.View {
	a.t.Helper()
	return a.await("member "+name, func(v overlay.View) bool { return v.Members[name].Live })
}

// terms are those of a network with few blocks.
func terms(subnet string, bits int) overlay.Terms {
	return overlay.Terms{Subnets: []netip.Prefix{netip.MustParsePrefix(subnet)}, Size: overlay.BlockSize{IPv4: bits, IPv6: 64}, Port: 4789, By: "h1"}
}

func (a *agent) agree(network string, t overlay.Terms) overlay.View {
	a.t.Helper()
	a.await("session", func(overlay.View) bool { return a.Agree(context.Background(), network, t) == nil })
	return a.await("terms", func(v overlay.View) bool { return v.Networks[network].Agreed })
}

// claim takes a free block of net1, with as many tries as it needs.
func (a *agent) claim() (netip.Prefix, error) {
	a.t.Helper()
	const network = "net1"
	for {
		a.mu.Lock()
		v := a.view
		a.mu.Unlock()
		if !v.Settled {
			<-a.news
			continue
		}
		s := v.Networks[network]
		b, err := s.Choose(s.Terms.Subnets[0], a.name)
		if err != nil {
			return b, err
		}
		if err = a.Claim(context.Background(), network, s, v.At, b); !errors.Is(err, overlay.ErrTaken) {
			return b, err
		}
		<-a.news
	}
}

// claimAgain is claim as the agent does it: again after whatever error.
func (a *agent) claimAgain() (b netip.Prefix) {
	a.t.Helper()
	a.await("block", func(v overlay.View) bool {
		var err error
		if v.Settled {
			b, err = a.choice()
		}
		return v.Settled && err == nil && a.Claim(context.Background(), "net1", v.Networks["net1"], v.At, b) == nil
	})
	return b
}

// choice is the block that the host would take.
func (a *agent) choice() (netip.Prefix, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.view.Networks["net1"]
	if len(s.Terms.Subnets) == 0 {
		return netip.Prefix{}, errors.New("no terms")
	}
	return s.Choose(s.Terms.Subnets[0], a.name)
}

package etcd

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// naming is what a host knows of names.
type naming struct {
	mu      sync.Mutex
	own     map[overlay.NamedID]overlay.Named
	news    map[overlay.NamedID]bool
	others  map[overlay.NamedID]overlay.Named
	changed chan struct{}
}

func newNaming() *naming {
	return &naming{own: map[overlay.NamedID]overlay.Named{}, news: map[overlay.NamedID]bool{}, others: map[overlay.NamedID]overlay.Named{}, changed: make(chan struct{}, 1)}
}

// set gives a container of net1 a name and an address; without a name it is gone.
func (n *naming) set(container, name, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := overlay.NamedID{Network: "net1", Container: container, IfName: "eth0"}
	if delete(n.own, id); name != "" {
		n.own[id] = overlay.Named{NamedID: id, Names: []string{name}, Domain: "libnet.internal", Addresses: []netip.Addr{netip.MustParseAddr(address)}}
	}
	n.news[id] = true
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

func (n *naming) Own(all bool) (these []overlay.Named) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if all {
		n.news = map[overlay.NamedID]bool{}
		these = slices.Collect(maps.Values(n.own))
	}
	for id := range n.news {
		one := n.own[id]
		one.NamedID = id
		these = append(these, one)
	}
	clear(n.news)
	return these
}

func (n *naming) Changed() <-chan struct{} { return n.changed }

func (n *naming) Others(these []overlay.Named, all bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if all {
		clear(n.others)
	}
	for _, one := range these {
		if n.others[one.NamedID] = one; len(one.Names) == 0 {
			delete(n.others, one.NamedID)
		}
	}
}

// heard says what other hosts have.
func (n *naming) heard() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	for id, one := range n.others {
		all = append(all, fmt.Sprintf("%s/%s=%v%v", id.Node, id.Container, one.Names, one.Addresses))
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

// leased returns the keys below a prefix that hang by a lease.
func (l *lab) leased(prefix string) (all []string) {
	l.t.Helper()
	got, err := l.client().Get(context.Background(), prefix, clientv3.WithPrefix())
	l.must(err)
	for _, kv := range got.Kvs {
		if kv.Lease != 0 {
			all = append(all, string(kv.Key))
		}
	}
	return all
}

func (l *lab) await(what string, is func() bool) {
	l.t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("%s: not within a minute", what)
		}
	}
}

// Names of a host come to the others, change, and go: with the container, with the
// network, and with the host.
func TestNames(t *testing.T) {
	l := newLab(t, 20, 1)
	n1, n2 := newNaming(), newNaming()
	n1.set("c0", "early", "10.5.1.9")
	a := l.start(l.conf(1), n1)
	a.awaitMember("h1")
	b := l.start(l.conf(2), n2)
	heard := func(n *naming, want string) {
		t.Helper()
		l.await("hears "+want, func() bool { return n.heard() == want })
	}
	heard(n2, "[h1/c0=[early][10.5.1.9]]")
	for i := range 250 { // more than a transaction takes
		n1.set(fmt.Sprint("m", i), "many", "10.5.1.8")
	}
	l.await("many", func() bool { n2.mu.Lock(); defer n2.mu.Unlock(); return len(n2.others) == 251 })
	for i := range 250 {
		n1.set(fmt.Sprint("m", i), "", "")
	}
	n1.set("c0", "renamed", "10.5.1.9")
	heard(n2, "[h1/c0=[renamed][10.5.1.9]]")
	n2.set("c2", "second", "10.5.2.2")
	heard(n1, "[h2/c2=[second][10.5.2.2]]")

	views := func() int { b.mu.Lock(); defer b.mu.Unlock(); return b.views }
	before := views()
	for i := range 20 {
		n1.set("c1", fmt.Sprint("turn", i), "10.5.1.7")
		heard(n2, fmt.Sprintf("[h1/c0=[renamed][10.5.1.9] h1/c1=[turn%d][10.5.1.7]]", i))
	}
	if now := views(); now > before+5 { // a lease may be renewed meanwhile
		t.Errorf("20 changes of names made %d views of the networks", now-before)
	}
	// The registry puts back a key that others remove or change.
	key := a.keys.named(overlay.NamedID{Node: "h1", Network: "net1", Container: "c1", IfName: "eth0"})
	_, err := l.client().Delete(context.Background(), key)
	l.must(err)
	l.await("put back", func() bool { return len(l.leased(key)) == 1 })
	_, err = l.client().Put(context.Background(), a.keys.named(overlay.NamedID{Node: "h1", Network: "net1", Container: "c7", IfName: "eth0"}), "{}")
	l.must(err)
	heard(n2, "[h1/c0=[renamed][10.5.1.9] h1/c1=[turn19][10.5.1.7]]")
	// A bad value is told, and keeps no other from being heard.
	bad := a.keys.namedOf("net1", "h3") + "c1:eth0"
	_, err = l.client().Put(context.Background(), bad, "{")
	l.must(err)
	l.await("a problem", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.view.Problems) == 1 })
	_, err = l.client().Delete(context.Background(), bad)
	l.must(err)

	a.stop() // its session ends, and its lease --live-ttl later
	heard(n2, "[]")
	a = l.start(l.conf(1), n1)
	heard(n2, "[h1/c0=[renamed][10.5.1.9] h1/c1=[turn19][10.5.1.7]]")
	a.stop()
	l.must(a.Leave(context.Background(), "net1"))
	heard(n2, "[]")
}

// counted forwards connections to a member, and counts what comes from hosts.
func (l *lab) counted() (url string, sent *atomic.Int64) {
	l.t.Helper()
	in, err := net.Listen("tcp", "127.0.0.1:0")
	l.must(err)
	l.t.Cleanup(func() { _ = in.Close() })
	sent = &atomic.Int64{}
	member := strings.TrimPrefix(l.urls[0], "http://")
	go func() {
		for {
			from, err := in.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", member)
			if err != nil {
				_ = from.Close()
				continue
			}
			go func() { _, _ = io.Copy(from, to); _ = from.Close() }()
			go func() { _, _ = io.Copy(to, io.TeeReader(from, counter{sent})); _ = to.Close() }()
		}
	}()
	return "http://" + in.Addr().String(), sent
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) { c.n.Add(int64(len(b))); return len(b), nil }

// A host that hears of a change says nothing: of a thousand hosts etcd would have to hear a thousand.
func TestHearsInSilence(t *testing.T) {
	l := newLab(t, 25, 1)
	n1, n2 := newNaming(), newNaming()
	a := l.start(l.conf(1), n1)
	a.awaitMember("h1")
	c := l.conf(2)
	c.Live = time.Hour // it renews nothing meanwhile
	url, sent := l.counted()
	c.Endpoints = []string{url}
	l.start(c, n2)
	const changes, ping = 200, 17 // bytes of a frame of HTTP/2 that needs an answer
	var before int64
	for i := range changes {
		if n1.set("c1", fmt.Sprint("turn", i), "10.5.1.7"); i == changes/2 {
			before = sent.Load()
		}
		l.await("a change", func() bool { return n2.heard() == fmt.Sprintf("[h1/c1=[turn%d][10.5.1.7]]", i) })
	}
	if said := sent.Load() - before; before == 0 || said > changes/4*ping { // one may come when all is silent for long
		t.Errorf("a host that heard of %d changes sent %d bytes to etcd, after %d of its session's beginning", changes/2, said, before)
	}
}

package balancer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
	"github.com/libnet-cni/libnet/internal/service"
)

// shared is a service of a network that spans hosts, which selects a name.
func shared(i int, selects string, others ...service.Backend) Followed {
	s := web(fmt.Sprintf("s%03d", i), netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}).String(), 80)
	s.Select, s.Shared, s.External = selects, true, service.ExternalNAT
	return Followed{Service: s, Device: "br0", Node: "h1", Others: others}
}

func farBackend(id, addr string, names ...string) service.Backend {
	return service.Backend{ContainerID: id, IfName: "eth0", Names: names, Addresses: []netip.Addr{netip.MustParseAddr(addr)}, Node: "h2"}
}

// transactions is how many there have been in this network namespace.
func (l *lab) transactions() (n uint32) {
	l.t.Helper()
	nl, err := nfnl.Open()
	l.must(err)
	defer func() { _ = nl.Close() }()
	n, err = transaction.Generation(nl)
	l.must(err)
	return n
}

func (l *lab) follow(all ...Followed) (did []Outcome) {
	l.t.Helper()
	did = l.Follow(context.Background(), all...)
	for i, one := range did {
		if one.Err != nil {
			l.t.Fatalf("service %d: %v", i, one.Err)
		}
	}
	return did
}

// Many services are made, changed and restored in few transactions. One of them that cannot be, as
// this host has one of that name, keeps no other from it.
func TestFollowTogether(t *testing.T) {
	l, ctx := newLab(t), context.Background()
	a := l.attach("a", "10.1.0.2/24", "web")
	l.must(l.Create(ctx, web("s002", "10.1.0.9", 80), "br0"))
	const services, most = 150, 6
	var all []Followed
	for i := range services {
		all = append(all, shared(i, []string{"web", "db"}[i%2], farBackend("x", "10.2.0.2", "web"), farBackend("y", "10.2.0.3", "db")))
	}
	before := l.transactions()
	for i, one := range l.Follow(ctx, all...) {
		if (i == 2) != errors.Is(one.Err, ErrExists) || i != 2 && (one.Err != nil || !one.Named) {
			t.Errorf("service %d: %+v", i, one)
		}
	}
	l.must(l.Remove(ctx, "net", "s002"))
	all = slices.Delete(all, 2, 3)
	if n := l.transactions() - before; n > most+services/2+1 { // a local container joins each one that selects it
		t.Errorf("%d transactions for %d services", n, services)
	}
	l.well("made")
	if found, err := l.Look(ctx, "net", "s000"); err != nil || !slices.Equal(backends(found), []string{"a", "x", "y"}) {
		t.Errorf("backends %v, %v", backends(found), err)
	}
	before = l.transactions()
	l.follow(all...)
	if n := l.transactions() - before; n != 0 {
		t.Errorf("%d transactions for what is as it is to be", n)
	}
	for i := range all {
		all[i].Others = all[i].Others[:1] // y is gone from all
	}
	for i, one := range l.follow(all...) {
		if len(one.Left) != 1 || one.Left[0].ContainerID != "y" || one.Named {
			t.Errorf("service %d: %+v", i, one)
		}
	}
	if n := l.transactions() - before; n > most {
		t.Errorf("%d transactions for a container that leaves %d services", n, services)
	}
	l.well("a container of all is gone")
	before = l.transactions()
	l.must(l.Restore(ctx))
	if n := l.transactions() - before; n != 0 {
		t.Errorf("%d transactions to restore what is there", n)
	}
	nl, err := nfnl.Open()
	l.must(err)
	b := transaction.New("libnet-services", 0)
	b.Add(unix.NFT_MSG_DELTABLE, 0, unix.NFPROTO_INET, func(a *nfnl.Attrs) { a.String(unix.NFTA_TABLE_NAME, "libnet-services") })
	l.must(errors.Join(b.Commit(nl), nl.Close()))
	before = l.transactions()
	l.must(l.Restore(ctx))
	if n := l.transactions() - before; n > most {
		t.Errorf("%d transactions to restore %d services", n, services)
	}
	l.well("restored")
	l.detach(a)
	l.well("the last container of this host is gone")
	for _, f := range all {
		l.must(l.Unfollow(ctx, "net", f.Name, f.Select))
	}
	l.must(l.Note(ctx))
	l.nothing("at last")
}

// An element that two services give up together goes; one that a third service needs stays.
func TestFollowSharedBackend(t *testing.T) {
	l := newLab(t)
	x := farBackend("x", "10.2.0.2", "web")
	published := func(i int, others ...service.Backend) Followed {
		f := shared(i, "web", others...)
		f.Published = []service.Published{{Protocol: firewall.TCP, Port: uint16(9000 + i), To: 80}}
		return f
	}
	l.follow(published(1, x), published(2, x), published(3, x))
	l.well("made")
	far := func() (n int) {
		t.Helper()
		all, err := l.kernel().List(context.Background())
		l.must(err)
		for _, e := range all {
			if e.Set.Name == "far4" {
				n++
			}
		}
		return n
	}
	if n := far(); n != 1 {
		t.Errorf("%d backends of other hosts are masqueraded for, want 1", n)
	}
	l.follow(published(1), published(2), published(3, x))
	l.well("two without it")
	if n := far(); n != 1 {
		t.Errorf("%d backends of other hosts are masqueraded for by one service, want 1", n)
	}
	l.follow(published(3))
	l.follow(published(1, x), published(2, x), published(3, x))
	l.follow(published(1), published(2), published(3))
	l.well("all without it")
	if n := far(); n != 0 {
		t.Errorf("%d backends of other hosts are masqueraded for by none, want 0", n)
	}
}

// Backends that a change takes away are told once, as conntrack has connections to them: also if another
// program has a port of the service, or the port cannot be freed.
func TestFollowTellsOfLeft(t *testing.T) {
	l, ctx := newLab(t), context.Background()
	l.refused = errors.New("held")
	x, y := farBackend("x", "10.2.0.2", "web"), farBackend("y", "10.2.0.3", "web")
	held := func(others ...service.Backend) Followed {
		f := shared(1, "web", others...)
		f.Published = []service.Published{{Protocol: firewall.TCP, Port: 9001, To: 80}}
		return f
	}
	if did := l.Follow(ctx, held(x, y)); !errors.Is(did[0].Err, l.refused) || len(did[0].Left) > 0 {
		t.Errorf("made: %+v", did[0])
	}
	drained := held(x, y)
	drained.Weights = map[string]int{"y": 0}
	if did := l.Follow(ctx, drained); !errors.Is(did[0].Err, l.refused) || len(did[0].Drained) != 1 || did[0].Drained[0].ContainerID != "y" {
		t.Errorf("y is drained: %+v", did[0])
	}
	if did := l.Follow(ctx, held(x)); !errors.Is(did[0].Err, l.refused) || len(did[0].Left) != 1 || did[0].Left[0].ContainerID != "y" {
		t.Errorf("y is gone: %+v", did[0])
	}
	if did := l.Follow(ctx, held(x)); !errors.Is(did[0].Err, l.refused) || len(did[0].Left)+len(did[0].Drained) > 0 {
		t.Errorf("tried again: %+v", did[0])
	}
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/state"
)

// member is a container on two networks, and what each of its attachments
// greets with on port 80.
type member struct {
	h        *realHost
	sb       *Sandbox
	networks []*Network
	served   map[netip.Addr]bool
	netns    string // of the host
}

// front and back are the networks of a test, each with its backend.
func newMember(t *testing.T, front, back model.Backend) *member {
	t.Helper()
	h := newHost(t)
	m := &member{h: h, sb: h.sandbox("c"), served: map[netip.Addr]bool{}, netns: fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())}
	for i, backend := range []model.Backend{front, back} {
		n, err := h.NewNetwork(context.Background(), "bridge", fmt.Sprintf("net%d", i+1), WithSubnet(netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", i+1))),
			WithConfig(model.NetworkConfig{Gateway: true, GatewayModeIPv4: model.GatewayNAT, Backend: backend}))
		if err != nil {
			t.Fatal(err)
		}
		m.networks = append(m.networks, n)
	}
	return m
}

func (m *member) attach(i int, ports ...model.PortMapping) *Endpoint {
	m.h.t.Helper()
	e, err := m.networks[i].Attach(context.Background(), m.sb, WithIfName(fmt.Sprintf("eth%d", i)), WithPorts(ports...))
	if err != nil {
		m.h.t.Fatal(err)
	}
	m.serve(e.Addressing().Addresses[0].Prefix.Addr())
	return e
}

// serve has the container answer at an address, by it.
func (m *member) serve(addr netip.Addr) {
	m.h.t.Helper()
	if !m.served[addr] {
		m.listen(netip.AddrPortFrom(addr, 80).String(), addr.String())
	}
	m.served[addr] = true
}

// serveAt has the container answer at a port of all its addresses.
func (m *member) serveAt(port int, text string) {
	m.h.t.Helper()
	m.listen(fmt.Sprintf(":%d", port), text)
}

func (m *member) listen(at, text string) {
	m.h.t.Helper()
	ns, err := life.OpenNetns(m.sb.Path())
	if err != nil {
		m.h.t.Fatal(err)
	}
	var l net.Listener
	if err := errors.Join(ns.Do(func() (err error) { l, err = net.Listen("tcp", at); return err }), ns.Close()); err != nil {
		m.h.t.Fatal(err)
	}
	m.h.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(c, text)
			_ = c.Close()
		}
	}()
}

func (m *member) id(i int) model.ID {
	return model.ID{Network: m.networks[i].Name(), ContainerID: "c", IfName: fmt.Sprintf("eth%d", i)}
}

// leads checks which address answers on ports of the host.
func (m *member) leads(when, want string, ports ...int) {
	m.h.t.Helper()
	for _, port := range ports {
		got := greets(fmt.Sprintf("127.0.0.1:%d", port))
		if want == "" && strings.HasPrefix(got, "10.") || want != "" && got != want {
			m.h.t.Errorf("%s: %q answers on port %d, want %q", when, got, port, want)
		}
	}
}

func (m *member) verify(when string, all ...*Endpoint) {
	m.h.t.Helper()
	for _, e := range all {
		if err := e.Verify(context.Background()); err != nil {
			m.h.t.Errorf("%s: %v", when, err)
		}
	}
}

var backendPairs = [][2]model.Backend{
	{model.BackendNFTables, model.BackendNFTables}, {model.BackendIPTables, model.BackendIPTables}, {model.BackendNFTables, model.BackendIPTables}, {model.BackendIPTables, model.BackendNFTables},
}

func forBackendPairs(t *testing.T, fn func(t *testing.T, m *member)) {
	t.Parallel()
	for _, p := range backendPairs {
		t.Run(string(p[0]+" "+p[1]), func(t *testing.T) {
			t.Parallel()
			fn(t, newMember(t, p[0], p[1]))
		})
	}
}

// A port that both attachments of a container ask for leads to the first, and to
// the second once the first is gone; another container does not get it.
func TestPortOfTwoAttachments(t *testing.T) {
	forBackendPairs(t, func(t *testing.T, m *member) {
		ctx := context.Background()
		both, own := model.PortMapping{HostPort: 8080, ContainerPort: 80}, model.PortMapping{HostPort: 8081, ContainerPort: 80}
		before := m.h.nft("list", "ruleset")
		a := m.attach(0, both)
		b := m.attach(1, both, own)
		m.leads("with both", "10.1.0.2", 8080)
		m.leads("with both", "10.2.0.2", 8081)
		m.verify("with both", a, b)
		if p, err := m.h.Ports().Waiting(b.rec); err != nil || len(p) != 1 || p[0].HostPort != 8080 {
			t.Errorf("the second attachment waits for %+v, %v", p, err)
		}
		var held *publish.PortHeldError
		if _, err := m.h.web(m.networks[0], "other", both); !errors.As(err, &held) || held.Owner != a.ID().String() {
			t.Errorf("another container: %v", err)
		}
		if e, err := m.networks[1].Attach(ctx, m.sb, WithIfName("eth1"), WithPorts(both, own)); err != nil || e.Addressing().Addresses[0].Prefix.Addr() != netip.MustParseAddr("10.2.0.2") {
			t.Errorf("the second attachment again: %v", err)
		}
		if err := m.networks[0].Remove(ctx, m.id(0)); err != nil {
			t.Fatal(err)
		}
		m.leads("without the first", "10.2.0.2", 8080, 8081)
		m.verify("without the first", b)
		if p, err := m.h.Ports().Waiting(b.rec); err != nil || len(p) > 0 {
			t.Errorf("the port still waits: %+v, %v", p, err)
		}
		m.attach(0, both)
		m.leads("the first is back", "10.2.0.2", 8080)
		for _, i := range []int{1, 0} {
			if err := m.networks[i].Remove(ctx, m.id(i)); err != nil {
				t.Error(err)
			}
		}
		m.leads("without any", "", 8080, 8081)
		if _, err := m.h.web(m.networks[0], "next", both); err != nil {
			t.Errorf("another container afterwards: %v", err)
		}
		if err := m.networks[0].Remove(ctx, model.ID{Network: "net1", ContainerID: "next", IfName: "eth0"}); err != nil {
			t.Error(err)
		}
		if m.networks[0].Config().Backend == model.BackendNFTables && m.networks[1].Config().Backend == model.BackendNFTables {
			for _, n := range m.networks { // the guards go with the bridges
				must(t, n.Delete(ctx))
			}
			if after := m.h.nft("list", "ruleset"); after != before {
				t.Errorf("rules are left: %s", after)
			}
		}
		if left, err := m.h.standby.Standbys(); len(left) > 0 || err != nil {
			t.Errorf("waiting at the end: %v, %v", left, err)
		}
	})
}

// The attachment that waits goes first.
func TestStandbyGoesFirst(t *testing.T) {
	forBackendPairs(t, func(t *testing.T, m *member) {
		local := model.PortMapping{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8080, ContainerPort: 80}
		a := m.attach(0, local, model.PortMapping{HostPort: 9001, ContainerPort: 80})
		m.attach(1, model.PortMapping{HostPort: 8080, ContainerPort: 80}, model.PortMapping{HostPort: 9000, HostPortEnd: 9002, ContainerPort: 80})
		if err := m.networks[1].Remove(context.Background(), m.id(1)); err != nil {
			t.Fatal(err)
		}
		m.leads("without the second", "10.1.0.2", 8080, 9001)
		if rules := m.h.nft("list", "ruleset"); strings.Contains(rules, "net2/c/eth1") {
			t.Errorf("rules of the second are left: %s", rules)
		}
		m.verify("without the second", a)
		if left, err := m.h.standby.Standbys(); len(left) > 0 || err != nil {
			t.Errorf("waiting at the end: %v, %v", left, err)
		}
	})
}

// Ports that meet in part: each attachment has what the other has not.
func TestPortsThatMeetInPart(t *testing.T) {
	forBackendPairs(t, func(t *testing.T, m *member) {
		ctx := context.Background()
		a := m.attach(0, model.PortMapping{HostPort: 9000, HostPortEnd: 9002, ContainerPort: 80}, model.PortMapping{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 7000, ContainerPort: 80})
		b := m.attach(1, model.PortMapping{HostPort: 9000, ContainerPort: 80}, model.PortMapping{HostPort: 9003, ContainerPort: 80}, model.PortMapping{HostPort: 7000, ContainerPort: 80})
		m.verify("with both", a, b)
		m.leads("with both", "10.1.0.2", 9000, 7000)
		m.leads("with both", "10.2.0.2", 9003)
		if got := greets("10.2.0.1:7000"); got != "10.2.0.2" {
			t.Errorf("another address of the host: %q answers", got)
		}
		if err := m.networks[0].Remove(ctx, m.id(0)); err != nil {
			t.Fatal(err)
		}
		m.verify("without the first", b)
		m.leads("without the first", "10.2.0.2", 9000, 9003, 7000)
		if err := m.networks[1].Remove(ctx, m.id(1)); err != nil {
			t.Fatal(err)
		}
		m.leads("without any", "", 9000, 9003, 7000)
		owners, err := m.h.rules.Owners(ctx, model.BackendIPTables)
		if len(owners) > 0 || err != nil {
			t.Errorf("owners of rules at the end: %v, %v", owners, err)
		}
	})
}

// ADDs and DELs of a container's attachments at once, by processes of their own:
// the port always ends with one of those that are there.
func TestPortOfAttachmentsAtOnce(t *testing.T) {
	t.Parallel()
	for _, backend := range []model.Backend{model.BackendNFTables, model.BackendIPTables} {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			m := newMember(t, backend, backend)
			port := model.PortMapping{HostPort: 8080, ContainerPort: 80}
			at := []*Endpoint{nil, nil}
			for round := range 6 {
				m.parallel(t, func(i int, n *Network) error {
					e, err := n.Attach(context.Background(), m.sb, WithIfName(fmt.Sprintf("eth%d", i)), WithPorts(port))
					at[i] = e
					return err
				})
				for i, e := range at {
					e.n = m.networks[i] // the one that made it is closed
				}
				m.verify("after both came", at...)
				stays, goes := round%2, 1-round%2
				if round%3 == 0 { // both at once
					m.parallel(t, func(i int, n *Network) error { return n.Remove(context.Background(), m.id(i)) })
					m.leads("after both went", "", 8080)
					continue
				}
				m.serve(at[stays].Addressing().Addresses[0].Prefix.Addr())
				m.parallel(t, func(i int, n *Network) error { // one goes while the other one comes again
					if i == goes {
						return n.Remove(context.Background(), m.id(i))
					}
					_, err := n.Attach(context.Background(), m.sb, WithIfName(fmt.Sprintf("eth%d", i)), WithPorts(port))
					return err
				})
				m.leads("after one went", at[stays].Addressing().Addresses[0].Prefix.Addr().String(), 8080)
				if err := m.networks[stays].Remove(context.Background(), m.id(stays)); err != nil {
					t.Fatal(err)
				}
			}
			if left, err := m.h.standby.Standbys(); len(left) > 0 || err != nil {
				t.Errorf("waiting at the end: %v, %v", left, err)
			}
		})
	}
}

// parallel runs fn for each network by a controller of its own, as plugins do.
func (m *member) parallel(t *testing.T, fn func(i int, n *Network) error) {
	t.Helper()
	var wg sync.WaitGroup
	for i, n := range m.networks {
		wg.Add(1)
		go func() {
			defer wg.Done()
			err := lntest.In(t, m.netns, func() error {
				c, err := New(WithStateDir(m.h.stateDir), WithDataDir(m.h.dataDir), WithNetnsDir(m.h.netnsDir))
				if err != nil {
					return err
				}
				defer c.Close()
				own := *n
				own.c = c
				return fn(i, &own)
			})
			if err != nil {
				t.Errorf("network %d: %v", i, err)
			}
		}()
	}
	wg.Wait()
}

// A process that was killed between the removal of the first attachment's rules
// and the hand-over: what comes next puts it right.
func TestHandOverKilled(t *testing.T) {
	t.Parallel()
	port := model.PortMapping{HostPort: 8080, ContainerPort: 80}
	for name, next := range map[string]func(*member) error{
		"repair":           func(m *member) error { _, err := m.h.Repair(context.Background()); return err },
		"DEL of the first": func(m *member) error { return m.networks[0].Remove(context.Background(), m.id(0)) },
		"GC": func(m *member) error {
			return m.networks[0].Collect(context.Background(), func(h life.Holder) bool { return h.ID != m.id(0) }, KeepNetwork)
		},
		"the second attachment's ADD": func(m *member) error {
			_, err := m.networks[1].Attach(context.Background(), m.sb, WithIfName("eth1"), WithPorts(port))
			return err
		},
	} {
		for _, backend := range []model.Backend{model.BackendNFTables, model.BackendIPTables} {
			t.Run(name+" "+string(backend), func(t *testing.T) {
				t.Parallel()
				m := newMember(t, backend, backend)
				m.attach(0, port)
				b := m.attach(1, port)
				if err := m.h.rules.Of(string(backend)).Remove(context.Background(), firewall.Endpoint{Owner: m.id(0).String()}); err != nil {
					t.Fatal(err)
				}
				if err := b.Verify(context.Background()); !errors.Is(err, model.ErrDifferent) {
					t.Errorf("CHECK of an attachment whose port leads nowhere: %v", err)
				}
				if name == "repair" {
					if err := m.h.endpoints.DeleteEndpoint("net1", "c", "eth0"); err != nil {
						t.Fatal(err)
					}
				}
				if err := next(m); err != nil {
					t.Fatal(err)
				}
				m.leads("after "+name, "10.2.0.2", 8080)
				m.verify("after "+name, b)
			})
		}
	}
}

// A flush is repaired to what it was, whichever record comes first.
func TestStandbyAfterFlush(t *testing.T) {
	t.Parallel()
	m := newMember(t, model.BackendNFTables, model.BackendNFTables)
	port := model.PortMapping{HostPort: 8080, ContainerPort: 80}
	b := m.attach(1, port)
	a := m.attach(0, port)
	m.h.nft("flush", "ruleset")
	if _, err := m.h.Repair(context.Background()); err != nil {
		t.Fatal(err)
	}
	m.leads("after the repair", "10.2.0.2", 8080)
	m.verify("after the repair", a, b)
}

// Ports of portmap-ln beside those of bridge-ln, and by two interfaces.
func TestPublisherOnStandby(t *testing.T) {
	t.Parallel()
	for _, backend := range []model.Backend{model.BackendNFTables, model.BackendIPTables} {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			m := newMember(t, backend, backend)
			var pubs []publish.Publication
			var publishers []*Publisher
			for i, n := range m.networks {
				e := m.attach(i)
				p, err := m.h.Publisher(n.Name(), model.PublishConfig{Backend: backend})
				if err != nil {
					t.Fatal(err)
				}
				pub := publish.Publication{ID: e.ID(), Netns: e.Netns(), Addrs: e.Addressing().Addrs(), Ports: []model.PortMapping{{HostPort: 8080, ContainerPort: 80}}}
				if _, err := p.Publish(ctx, pub); err != nil {
					t.Fatal(err)
				}
				pubs, publishers = append(pubs, pub), append(publishers, p)
			}
			for i, p := range publishers {
				if err := p.Verify(ctx, pubs[i]); err != nil {
					t.Error(err)
				}
			}
			m.leads("with both", "10.1.0.2", 8080)
			if err := publishers[0].Remove(ctx, pubs[0].ID); err != nil {
				t.Fatal(err)
			}
			m.leads("without the first", "10.2.0.2", 8080)
			if err := publishers[1].Verify(ctx, pubs[1]); err != nil {
				t.Error(err)
			}
			if err := publishers[1].Remove(ctx, pubs[1].ID); err != nil {
				t.Fatal(err)
			}
			m.leads("without any", "", 8080)
		})
	}
}

// The ports of a dead owner that comes back while they are taken stay its own.
func TestDeadOwnerComesBack(t *testing.T) {
	ctx := context.Background()
	w := newWorld()
	n, sb := faultNetwork(t, w)
	e, err := n.Attach(ctx, sb, WithPorts(model.PortMapping{HostPort: 8080, ContainerPort: 80}))
	if err != nil {
		t.Fatal(err)
	}
	c := w.controller()
	alive := e.rec
	dead := alive
	dead.Boot = "an earlier boot"
	w.records[recordKey("net1", "c1", "eth0")] = dead
	c.endpoints = &ownedBetween{w, func() { w.records[recordKey("net1", "c1", "eth0")] = alive }}
	other := e.rec
	other.ContainerID = "c2"
	if took, err := c.Ports().TakeFromDead(ctx, other, firewall.Key(e.ID().String())); took || err != nil {
		t.Errorf("taken from an owner that came back: %v, %v", took, err)
	}
}

// ownedBetween has another actor work just before an attachment is owned.
type ownedBetween struct {
	*world
	before func()
}

func (o *ownedBetween) Own(ctx context.Context, network, containerID, ifName string, create state.Creation) (func(), error) {
	o.before()
	return o.world.Own(ctx, network, containerID, ifName, create)
}

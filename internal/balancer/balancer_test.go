package balancer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

func TestMain(m *testing.M) { os.Exit(lntest.Main(m)) }

// lab is services with a real kernel for their rules, and fakes for the rest of the host.
type lab struct {
	*Services
	t     *testing.T
	root  string
	addrs []netip.Addr // of services
	taken map[string][]model.PortMapping
	// broken is what the host answers; refused what asks for a port.
	broken, refused error
	does            []string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	lntest.Isolate(t)
	l := &lab{t: t, root: t.TempDir(), taken: map[string][]model.PortMapping{}}
	l.Services = New(state.New(l.root), l, l)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

var mac = net.HardwareAddr{2, 0, 0, 0, 0, 1}

func (l *lab) EnsureServiceAddrs(_ string, addrs []netip.Addr) (net.HardwareAddr, error) {
	l.addrs = append(l.addrs, addrs...)
	slices.SortFunc(l.addrs, netip.Addr.Compare)
	l.addrs = slices.Compact(l.addrs)
	return mac, l.broken
}

func (l *lab) EnsureLocalAddrs(addrs []netip.Addr) error {
	_, err := l.EnsureServiceAddrs("", addrs)
	return err
}

func (l *lab) Forward(context.Context, bool, bool) error { return nil }

func (l *lab) RemoveServiceAddrs(_ string, addrs []netip.Addr) error {
	l.addrs = slices.DeleteFunc(l.addrs, func(a netip.Addr) bool { return slices.Contains(addrs, a) })
	return nil
}

func (l *lab) LacksServiceAddrs(_ string, addrs []netip.Addr) ([]netip.Addr, error) {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return slices.Contains(l.addrs, a) }), nil
}

func (l *lab) DeviceMAC(string) (net.HardwareAddr, error) { return mac, nil }

func (l *lab) SetHairpin(string, string) error { return nil }

func (l *lab) TakeForService(_ context.Context, s publish.ServicePorts) error {
	l.does = append(l.does, "take")
	if l.refused != nil {
		return l.refused
	}
	if all, err := l.kernel().List(context.Background()); err != nil || slices.ContainsFunc(all, isPublished(s)) {
		l.t.Errorf("a rule leads to the service before the port is its own: %v", err)
	}
	l.taken[s.Service] = append(l.taken[s.Service], s.Ports...)
	return nil
}

// isPublished says that an element is of a port that the service does not have yet.
func isPublished(s publish.ServicePorts) func(e balance.Elem) bool {
	return func(e balance.Elem) bool {
		return strings.HasPrefix(e.Set.Name, "taken") && slices.ContainsFunc(s.Ports, func(m model.PortMapping) bool {
			return strings.Contains(e.String(), ". "+m.Protocol+" . 8001 ")
		})
	}
}

func (l *lab) LeaveToService(_ context.Context, s publish.ServicePorts) error {
	l.does = append(l.does, "leave")
	if l.taken[s.Service] = s.Ports; len(s.Ports) == 0 {
		delete(l.taken, s.Service)
	}
	return nil
}

func (l *lab) OpenToService(publish.ServicePorts) error { return nil }

func (l *lab) VerifyService(_ context.Context, s publish.ServicePorts) error {
	if model.SamePorts(l.taken[s.Service], s.Ports) {
		return nil
	}
	return errors.New("other ports are taken")
}

// attach records an attachment, and makes it a backend of what selects it.
func (l *lab) attach(id, addr string, names ...string) state.Endpoint {
	l.t.Helper()
	rec := state.Endpoint{
		Network: "net", ContainerID: id, IfName: "eth0", Phase: state.PhaseReady, HostName: "veth0",
		Addresses: []state.Address{{Prefix: netip.MustParsePrefix(addr)}}, Names: &state.Names{Own: names},
	}
	release, err := l.dir.Own(context.Background(), "net", id, "eth0", state.Create)
	l.must(err)
	defer release()
	l.must(l.dir.CreateEndpoint(rec))
	l.must(l.Joined(context.Background(), rec))
	return rec
}

func (l *lab) detach(rec state.Endpoint) {
	l.t.Helper()
	l.must(l.Left(context.Background(), rec))
	l.must(l.dir.DeleteEndpoint(rec.Network, rec.ContainerID, rec.IfName))
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// well fails unless kernel and records agree.
func (l *lab) well(when string) {
	l.t.Helper()
	faults, err := l.Faults(context.Background())
	if err != nil || len(faults) > 0 {
		l.t.Errorf("%s: %v, %v", when, faults, err)
	}
}

// nothing fails if anything is left.
func (l *lab) nothing(when string) {
	l.t.Helper()
	all, err := l.kernel().List(context.Background())
	_, statErr := os.Stat(filepath.Join(l.root, "services"))
	if err != nil || len(all)+len(l.addrs)+len(l.taken) > 0 || !errors.Is(statErr, os.ErrNotExist) {
		l.t.Errorf("%s: left: %v %v %v, directory: %v, %v", when, all, l.addrs, l.taken, statErr, err)
	}
}

func web(name, vip string, port uint16) service.Service {
	return service.Service{
		Network: "net", Name: name, Select: "web", VIPs: []netip.Addr{netip.MustParseAddr(vip)}, Affinity: service.AffinityNone,
		Ports: []service.Port{{Protocol: firewall.TCP, Port: port, Target: 8080}},
	}
}

func backends(f Found) (all []string) {
	for _, b := range f.Backends {
		all = append(all, b.ContainerID)
	}
	return all
}

// Two services share containers: each has all of them, and what one gives up the other keeps.
func TestShared(t *testing.T) {
	l, ctx := newLab(t), context.Background()
	a := l.attach("a", "10.1.0.2/24", "web")
	l.must(l.Create(ctx, web("one", "10.1.0.8", 80), "br0"))
	l.well("one")
	b := l.attach("b", "10.1.0.3/24", "WEB")
	l.attach("c", "10.1.0.4/24", "db")
	l.must(l.Create(ctx, web("two", "10.1.0.9", 81), "br0"))
	l.well("two")
	for _, name := range []string{"one", "TWO"} {
		found, err := l.Look(ctx, "net", name)
		if got := backends(found); err != nil || !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%s has %v, %v; want a and b", name, got, err)
		}
	}
	if err := l.Create(ctx, web("one", "10.1.0.7", 80), "br0"); !errors.Is(err, ErrExists) {
		t.Errorf("one again: %v", err)
	}
	l.must(l.Update(ctx, "net", "one", func(s *service.Service) error {
		s.Weights, s.Affinity = map[string]int{"a": 3}, service.AffinityClient
		s.Ports = append(s.Ports, service.Port{Protocol: firewall.UDP, Port: 53, Target: 5353})
		return nil
	}))
	l.well("one changed")
	l.detach(a)
	l.well("a gone")
	if found, err := l.Look(ctx, "net", "one"); err != nil || len(found.Weights) > 0 {
		t.Errorf("the weight of a container that is gone: %v, %v", found.Weights, err)
	}
	l.must(l.Remove(ctx, "net", "one"))
	l.well("one removed")
	l.detach(b)
	l.well("all gone")
	l.must(l.Remove(ctx, "net", "two"))
	l.nothing("at last")
	if err := l.Remove(ctx, "net", "two"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

// Ports of the host are taken before a rule leads there and left after none does; where they
// cannot be had nothing is changed.
func TestPublished(t *testing.T) {
	l, ctx := newLab(t), context.Background()
	l.attach("a", "10.1.0.2/24", "web")
	def := web("one", "10.1.0.8", 80)
	def.Published = []service.Published{{Protocol: firewall.TCP, Port: 8000, To: 80}}
	l.refused = errors.New("held")
	if err := l.Create(ctx, def, "br0"); !errors.Is(err, l.refused) {
		t.Errorf("create: %v", err)
	}
	l.nothing("refused")
	l.refused = nil
	l.must(l.Create(ctx, def, "br0"))
	l.well("made")
	to := func(port uint16) error {
		return l.Update(ctx, "net", "one", func(s *service.Service) error {
			s.Published = []service.Published{{Protocol: firewall.TCP, Port: port, To: 80}}
			return nil
		})
	}
	l.refused = errors.New("held")
	if err := to(8001); !errors.Is(err, l.refused) {
		t.Errorf("update: %v", err)
	}
	l.refused = nil
	l.well("refused to change")
	l.must(to(8001))
	l.well("changed")
	if got := l.taken["one"]; len(got) != 1 || got[0].HostPort != 8001 {
		t.Errorf("taken: %v", got)
	}
	l.must(l.Remove(ctx, "net", "one"))
	l.nothing("removed")
}

// A change that came half way, as the host refused it, is brought to its end by the next call,
// whatever that is: of the ports of before nothing stays.
func TestHalfWay(t *testing.T) {
	for name, next := range map[string]func(l *lab, rec state.Endpoint) error{
		"update": func(l *lab, _ state.Endpoint) error {
			return l.Update(context.Background(), "net", "one", func(*service.Service) error { return nil })
		},
		"a container goes": func(l *lab, rec state.Endpoint) error { l.detach(rec); return nil },
		"repair":           func(l *lab, _ state.Endpoint) error { _, err := l.Repair(context.Background()); return err },
		"rm":               func(l *lab, _ state.Endpoint) error { return l.Remove(context.Background(), "net", "one") },
	} {
		t.Run(name, func(t *testing.T) {
			l, ctx := newLab(t), context.Background()
			rec := l.attach("a", "10.1.0.2/24", "web")
			l.must(l.Create(ctx, web("one", "10.1.0.8", 80), "br0"))
			for _, port := range []uint16{81, 82} { // twice: both are remembered
				l.broken = errors.New("no memory")
				err := l.Update(ctx, "net", "one", func(s *service.Service) error {
					s.Ports = []service.Port{{Protocol: firewall.UDP, Port: port, Target: port}}
					return nil
				})
				if !errors.Is(err, l.broken) {
					t.Fatalf("update: %v", err)
				}
			}
			l.broken = nil
			l.must(next(l, rec))
			l.well(name)
			if name != "rm" {
				l.must(l.Remove(ctx, "net", "one"))
			}
			l.nothing(name)
		})
	}
}

// A record that cannot be read does not keep its service from being removed, and repair takes
// the rules that it had.
func TestUnreadable(t *testing.T) {
	l, ctx := newLab(t), context.Background()
	l.attach("a", "10.1.0.2/24", "web")
	l.must(l.Create(ctx, web("one", "10.1.0.8", 80), "br0"))
	l.must(l.Create(ctx, web("two", "10.1.0.9", 81), "br0"))
	l.must(os.WriteFile(filepath.Join(l.root, "services/net/web/one/service.json"), []byte("{"), 0o600))
	l.must(l.Remove(ctx, "net", "one"))
	if _, err := l.Repair(ctx); err != nil {
		t.Errorf("repair: %v", err)
	}
	l.well("repaired")
	l.must(l.Remove(ctx, "net", "two"))
	l.addrs = nil // no record tells which one had
	l.nothing("removed")
}

// Tidy removes a service that no call finished to make.
func TestTidy(t *testing.T) {
	l, ctx := newLab(t), context.Background()
	l.must(os.MkdirAll(filepath.Join(l.root, "services/net/web/one/backends"), 0o700))
	if has, err := l.Has("net", "one"); has || err != nil {
		t.Errorf("it is there: %v", err)
	}
	l.must(l.Tidy(ctx, "net"))
	l.nothing("tidied")
}

// A service that is removed while another program has taken one of our tables leaves nothing in the
// other one, which stays as it is when the lost one is written anew.
func TestRemoveBesideLostTable(t *testing.T) {
	l, ctx := newLab(t), context.Background()
	l.attach("a", "10.1.0.2/24", "web")
	l.must(l.Create(ctx, web("stays", "10.1.0.9", 80), "br0"))
	for _, family := range []string{"bridge", "inet"} {
		l.must(l.Create(ctx, web("one", "10.1.0.8", 80), "br0"))
		lntest.Run(t, "nft", "delete", "table", family, TableName)
		l.must(l.Remove(ctx, "net", "one"))
		if _, err := l.Mend(ctx, true); err != nil {
			t.Error(err)
		}
		l.well(family + " was lost")
	}
}

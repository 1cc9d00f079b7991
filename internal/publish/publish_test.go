package publish

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/firewall/either"
	"github.com/libnet-cni/libnet/internal/firewall/iptables"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/guard"
	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/procfs"
	"github.com/libnet-cni/libnet/internal/state"
)

// lab is a host of its own: a network namespace, records, and the ports.
type lab struct {
	*Ports
	t   *testing.T
	dir *state.Dir
	nft *nft.Firewall
	// containers are their network namespaces.
	containers map[string]string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	lntest.Isolate(t)
	h, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	f := nft.New()
	t.Cleanup(func() { _ = f.Close() })
	flows := conntrack.New(procfs.New())
	t.Cleanup(func() { _ = flows.Close() })
	dir := state.New(t.TempDir())
	rules := either.Backends{NFTables: f, IPTables: iptables.New(filepath.Join(t.TempDir(), "lock"))}
	return &lab{t: t, dir: dir, nft: f, containers: map[string]string{}, Ports: &Ports{
		Boot: "boot1", Flush: flows.Flush, Endpoints: dir, Publications: state.New(t.TempDir()), Networks: dir, Standby: dir, Host: h,
		Guard: &guard.Book{Index: guard.IndexOf(dir), Networks: dir, Endpoints: dir, Bridges: h, Tunnels: h, Links: h, Rules: rules},
	}}
}

// network records a network whose bridge is br.
func (l *lab) network(name, br string, mode model.GatewayMode) *plan.Network {
	l.t.Helper()
	n := &plan.Network{Name: name, Driver: plan.DriverBridge, Config: model.NetworkConfig{Bridge: br, Gateway: true, GatewayModeIPv4: mode}}
	config, err := json.Marshal(n.Config)
	if err == nil {
		err = l.dir.CreateNetwork(state.Network{Name: name, Driver: n.Driver, Bridge: br, Config: config})
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// netns is the network namespace of a container.
func (l *lab) netns(container string) string {
	if l.containers[container] == "" {
		l.containers[container] = lntest.NewNetns(l.t)
	}
	return l.containers[container]
}

// attach records an attachment and publishes its ports, each of the host to 80.
func (l *lab) attach(n *plan.Network, container, addr string, hostPorts ...int) (state.Endpoint, Published, error) {
	l.t.Helper()
	netns := l.netns(container)
	id, err := life.NetnsIDOf(netns)
	if err != nil {
		l.t.Fatal(err)
	}
	var ports []model.PortMapping
	for _, p := range hostPorts {
		ports = append(ports, model.PortMapping{Protocol: "tcp", HostPort: p, ContainerPort: 80})
	}
	prefix := netip.MustParsePrefix(addr + "/24")
	rec := state.Endpoint{
		Network: n.Name, ContainerID: container, IfName: "eth0", Phase: state.PhaseIntent, Boot: l.Boot, Bridge: n.Config.Bridge, Netns: netns, NetnsID: state.NetnsID(id),
		HostName: "veth" + container, MAC: "02:00:00:00:00:01", Rules: true, Guard: n.GuardID(), Ports: plan.SavedPorts(ports), Addresses: []state.Address{{Prefix: prefix}},
	}
	if err := l.dir.CreateEndpoint(rec); err != nil {
		l.t.Fatal(err)
	}
	p, err := n.Recorded(rec)
	if err != nil {
		l.t.Fatal(err)
	}
	published, err := l.Publish(l.t.Context(), Ruleset{Backend: n.Config.Backend, Member: n, Endpoint: p.Endpoint, Rec: rec}, ports)
	return rec, published, err
}

// intact says whether the rules are said to be whole.
func (l *lab) intact() bool {
	err := l.nft.Intact(l.t.Context(), firewall.Network{})
	if err != nil && !errors.Is(err, firewall.ErrMissing) {
		l.t.Fatal(err)
	}
	return err == nil
}

// The first attachment of a host completes the tables that it makes: no other can have
// had rules, so none has to be looked for. If another one is recorded, its rules may be
// lost, and the tables are complete only when they are back.
func TestTheFirstAttachmentCompletesTheTables(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]model.GatewayMode{"closed": model.GatewayNAT, "open": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			n := l.network("net1", "br1", mode)
			if _, got, err := l.attach(n, "c1", "10.1.0.2", 8080); err != nil || got.Restored {
				t.Fatalf("%+v, %v", got, err)
			}
			if !l.intact() {
				t.Error("the first attachment is there, and its tables are not complete: GC, STATUS and the next ADD look for others")
			}
			if _, got, err := l.attach(n, "c2", "10.1.0.3", 8081); err != nil || got.Restored || !l.intact() {
				t.Errorf("the second one: %+v, %v", got, err)
			}
		})
	}
	t.Run("not the first", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		n := l.network("net1", "br1", model.GatewayNAT)
		if err := l.dir.CreateEndpoint(state.Endpoint{Network: "net1", ContainerID: "c0", IfName: "eth0", Phase: state.PhaseReady, Bridge: "br1", Guard: n.GuardID()}); err != nil {
			t.Fatal(err)
		}
		if _, got, err := l.attach(n, "c1", "10.1.0.2", 8080); err != nil || !got.Restored || l.intact() {
			t.Errorf("c0 may have lost its rules, and that is not told: %+v, %v", got, err)
		}
	})
}

// A port of a living owner is refused by its name; one of an owner of an earlier boot is
// taken, and what that one had goes.
func TestPortsOfTheLivingAndTheDead(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("net1", "br1", model.GatewayNAT)
	first, _, err := l.attach(n, "c1", "10.1.0.2", 8080)
	if err != nil {
		t.Fatal(err)
	}
	var held *PortHeldError
	rec, _, err := l.attach(n, "c2", "10.1.0.3", 8080)
	if !errors.As(err, &held) || held.Owner != "libnet:net1/c1/eth0" {
		t.Errorf("got %v, want that c1 has the port", err)
	}
	if err := l.dir.DeleteEndpoint(rec.Network, rec.ContainerID, rec.IfName); err != nil {
		t.Fatal(err)
	}
	first.Boot, first.Phase = "an earlier boot", state.PhaseReady
	if err := l.dir.SaveEndpoint(first); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.attach(n, "c2", "10.1.0.3", 8080); err != nil {
		t.Errorf("the owner is of an earlier boot: %v", err)
	}
	r, err := l.nft.Recorded(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Endpoints["libnet:net1/c1/eth0"]; len(got.Ports) > 0 {
		t.Errorf("the dead one has %v", got.Ports)
	}
}

// Two attachments of one container ask for one port: the second waits, and has the port
// in the moment in which the first goes.
func TestAnAttachmentOfTheSameContainerWaits(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ctx := context.Background()
	a, b := l.network("net1", "br1", model.GatewayNAT), l.network("net2", "br2", model.GatewayNAT)
	first, _, err := l.attach(a, "c1", "10.1.0.2", 8080)
	if err != nil {
		t.Fatal(err)
	}
	second, got, err := l.attach(b, "c1", "10.2.0.2", 8080, 9090)
	if err != nil || len(got.Standby) != 1 || got.Standby[0].HostPort != 8080 {
		t.Fatalf("%+v, %v; want 8080 on standby", got, err)
	}
	second.Phase, second.Backend = state.PhaseReady, string(model.BackendNFTables)
	if err := errors.Join(l.dir.SaveEndpoint(second), l.SetWaiting(second, got.Standby)); err != nil {
		t.Fatal(err)
	}
	if err := l.HandOver(ctx, first); err != nil {
		t.Fatal(err)
	}
	r, err := l.nft.Recorded(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Endpoints["libnet:net2/c1/eth0"].Ports; len(got) != 2 {
		t.Errorf("after the hand-over it has %v, want both ports", got)
	}
	if left, err := l.Waiting(second); err != nil || len(left) > 0 {
		t.Errorf("it waits for %v, %v", left, err)
	}
}

// A call that is killed after it had 127.0.0.0/8 lead to ports leaves its intent alone in
// the record. The removal goes by that, and closes 127.0.0.0/8 again.
func TestRemovalOfAKilledPublicationClosesLocalhost(t *testing.T) {
	l := newLab(t)
	const br = "br0"
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: br, Flags: net.FlagUp}}); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(br)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("10.1.0.1/24")
	if err = errors.Join(err, netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
		t.Fatal(err)
	}
	id := model.ID{Network: "pub", ContainerID: "c1", IfName: "eth0"}
	host := &watchedHost{Host: l.Host}
	l.Host = host
	p, err := l.Publisher("pub", model.PublishConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var intent state.Endpoint
	host.opening = func() {
		if intent, err = l.Publications.LoadEndpoint(id.Network, id.ContainerID, id.IfName); err != nil {
			t.Error(err)
		}
	}
	_, _, err = p.Publish(t.Context(), Publication{ID: id, Netns: l.netns("c1"), Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.2")},
		Ports: []model.PortMapping{{Protocol: "tcp", HostPort: 8080, ContainerPort: 80}}})
	if err = errors.Join(err, l.Publications.SaveEndpoint(intent)); err != nil {
		t.Fatal(err)
	}
	if on, err := l.Host.RouteLocalnet(br); err != nil || !on {
		t.Fatalf("published: route_localnet %t, %v", on, err)
	}
	if err := p.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
	if on, err := l.Host.RouteLocalnet(br); err != nil || on {
		t.Errorf("removed: route_localnet %t, %v", on, err)
	}
}

// watchedHost says when 127.0.0.0/8 is about to lead to ports.
type watchedHost struct {
	Host
	opening func()
}

func (w *watchedHost) SetRouteLocalnet(dev string, on bool) (bool, error) {
	if on {
		w.opening()
	}
	return w.Host.SetRouteLocalnet(dev, on)
}

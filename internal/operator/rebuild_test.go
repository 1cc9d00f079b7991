package operator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// lose deletes directories of the host's: "state", "leases".
func (h *realHost) lose(names ...string) {
	h.t.Helper()
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(h.dir, name)); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *realHost) attach(n *engine.Network, id string, opts ...engine.EndpointOption) *engine.Endpoint {
	h.t.Helper()
	e, err := n.Attach(context.Background(), h.sandbox(id), opts...)
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

func (h *realHost) rebuild(want ...string) {
	h.t.Helper()
	ids, err := h.Rebuild(context.Background())
	if err != nil {
		h.t.Error(err)
	}
	var got []string
	for _, id := range ids {
		got = append(got, id.ContainerID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.t.Errorf("rebuilt (-want +got):\n%s", diff)
	}
}

// records are those of all attachments and publications, by container.
func (h *realHost) records() map[string]state.Endpoint {
	h.t.Helper()
	all := map[string]state.Endpoint{}
	for kind, dir := range map[string]publish.Records{"": h.ports.Endpoints, "ports of ": h.ports.Publications} {
		networks, err := dir.EndpointNetworks()
		if err != nil {
			h.t.Fatal(err)
		}
		for _, n := range networks {
			recs, err := dir.Endpoints(n)
			if err != nil {
				h.t.Fatal(err)
			}
			for _, rec := range recs {
				all[kind+rec.ContainerID] = rec
			}
		}
	}
	return all
}

// sameRecord compares what the kernel can tell of an attachment.
var sameRecord = cmp.Options{
	cmpopts.IgnoreFields(state.Endpoint{}, "Routes", "DNS", "Runtime"), cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// leaseFiles are the lease files of net1 and what is in them.
func (h *realHost) leaseFiles() map[string]string {
	h.t.Helper()
	all := map[string]string{}
	files, err := os.ReadDir(filepath.Join(h.dataDir, "net1"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range files {
		if _, err := netip.ParseAddr(f.Name()); err != nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join(h.dataDir, "net1", f.Name()))
		if err != nil {
			h.t.Fatal(err)
		}
		all[f.Name()] = string(data)
	}
	return all
}

// Networks whose records differ in all that rules show.
func rebuiltNetworks() map[string]model.NetworkConfig {
	nat := model.NetworkConfig{Bridge: "br1", Gateway: true, DefaultGateway: true, GatewayModeIPv4: model.GatewayNAT, GatewayModeIPv6: model.GatewayRouted}
	strict := nat
	strict.SpoofCheck, strict.NoICC, strict.NoHairpin, strict.TrustedInterfaces = true, true, true, []string{"lo"}
	strict.AcceptFwMark, strict.SNATIPv4 = model.FwMark{Value: 1, Mask: 1}, netip.MustParseAddr("192.0.2.1")
	return map[string]model.NetworkConfig{
		"open":       {Bridge: "br1", Gateway: true, Masquerade: true},
		"nat":        nat,
		"strict":     strict,
		"internal":   {Bridge: "br1", Gateway: true, Internal: true, Isolated: true, IngressPolicy: model.IngressSameBridge},
		"no address": {Bridge: "br1", Hairpin: true},
		"isolated":   {Bridge: "br1", GatewayModeIPv4: model.GatewayIsolated, GatewayModeIPv6: model.GatewayIsolated},
	}
}

// Rebuild restores the lost records, CHECK and DEL need it no more than before,
// and the next ADD of the network disturbs no other attachment.
func TestRebuild(t *testing.T) {
	t.Parallel()
	for name, cfg := range rebuiltNetworks() {
		t.Run(name, func(t *testing.T) { testRebuild(t, cfg) })
	}
}

func testRebuild(t *testing.T, cfg model.NetworkConfig) {
	h := newHost(t)
	ctx := context.Background()
	before := append(h.links(), h.nft("list", "ruleset"))
	opts := []engine.NetworkOption{engine.WithConfig(cfg)}
	if cfg.Gateway {
		opts = append(opts, engine.WithSubnet(netip.MustParsePrefix("10.70.0.0/24")), engine.WithSubnet(netip.MustParsePrefix("fd70::/64")))
	}
	n, err := h.NewNetwork(ctx, "bridge", "net1", opts...)
	if err != nil {
		t.Fatal(err)
	}
	var ports []model.PortMapping
	if cfg.Gateway {
		clients := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
		ports = []model.PortMapping{{HostPort: 8080, ContainerPort: 80}, {Protocol: "udp", HostPort: 9000, HostPortEnd: 9002, ContainerPort: 9000, Sources: clients}}
	}
	a := h.attach(n, "a", engine.WithPorts(ports...))
	b := h.attach(n, "b", engine.WithMAC(net.HardwareAddr{2, 0, 0, 0, 0, 7}))
	want, rules := h.records(), h.nft("list", "ruleset")
	expected := func(e *engine.Endpoint) error {
		return n.Verify(ctx, engine.Expectation{ID: e.ID(), Netns: e.Netns(), Addressing: e.Addressing(), Ports: e.Ports()})
	}

	h.lose("state")
	if err := errors.Join(expected(a), expected(b)); err != nil {
		t.Errorf("verify without records: %v", err)
	}
	h.rebuild("a", "b")
	if got := want["a"]; cfg.GatewayModeIPv6 != model.GatewayRouted { // ports under a routed family are told by the container's
		if diff := cmp.Diff(want, h.records(), sameRecord); diff != "" {
			t.Errorf("records (-lost +rebuilt):\n%s", diff)
		}
	} else if diff := cmp.Diff(got, h.records()["a"], sameRecord, cmpopts.IgnoreFields(state.Endpoint{}, "Ports")); diff != "" {
		t.Errorf("record (-lost +rebuilt):\n%s", diff)
	}
	again, err := h.Network("net1")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		e, err := again.Endpoint(id, "eth0")
		if err == nil {
			err = e.Verify(ctx)
		}
		if err != nil {
			t.Errorf("verify by the rebuilt records: %v", err)
		}
	}
	if looked, err := h.Repair(ctx); err != nil {
		t.Errorf("repair: %d, %v", looked, err)
	}
	h.rebuild()
	if diff := cmp.Diff(rules, h.nft("list", "ruleset")); diff != "" {
		t.Errorf("ruleset (-before +after):\n%s", diff)
	}

	n, err = h.DefineNetwork("bridge", "net1", opts...)
	if err != nil {
		t.Fatal(err)
	}
	c := h.attach(n, "c")
	if err := errors.Join(expected(a), expected(b), expected(c), n.Remove(ctx, c.ID())); err != nil {
		t.Errorf("after the next attach: %v", err)
	}
	if diff := cmp.Diff(rules, h.nft("list", "ruleset")); diff != "" {
		t.Errorf("ruleset (-before +after):\n%s", diff)
	}
	if err := errors.Join(n.Remove(ctx, a.ID()), n.Remove(ctx, b.ID()), n.Delete(ctx)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, append(h.links(), h.nft("list", "ruleset"))); diff != "" {
		t.Errorf("left (-before +after):\n%s", diff)
	}
	if left := slices.DeleteFunc(h.files(), func(f string) bool { return strings.Contains(f, "sandboxes") }); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// An address that a living container has is not given away, whatever is lost.
func TestLostLeases(t *testing.T) {
	t.Parallel()
	for _, lost := range [][]string{{"leases"}, {"state", "leases"}, {"leases/net1"}, {"state", "leases/net1"}, {"state", "leases/.libnet"}} {
		t.Run(strings.Join(lost, "+"), func(t *testing.T) {
			h := newHost(t)
			ctx := context.Background()
			n := h.network("10.71.0.0/24", engine.WithSubnet(netip.MustParsePrefix("fd71::/64")))
			a, b := h.attach(n, "a"), h.attach(n, "b")
			h.lose(lost...)
			define := func() *engine.Network { // by another process
				c, err := Open(Options{StateDir: filepath.Join(h.dir, "state"), DataDir: h.dataDir})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Close)
				n, err := c.DefineNetwork("bridge", "net1", engine.WithSubnet(netip.MustParsePrefix("fd71::/64")), engine.WithSubnet(netip.MustParsePrefix("10.71.0.0/24")))
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			got := map[string]bool{}
			for i := range 4 {
				n := define()
				wg.Go(func() {
					e, err := n.CreateEndpoint(ctx, fmt.Sprintf("c%d", i))
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Error(err)
						return
					}
					for _, addr := range e.Addressing().Addresses {
						got[addr.Prefix.Addr().String()] = true
					}
				})
			}
			wg.Wait()
			want := map[string]bool{}
			for i := 4; i < 8; i++ {
				want[fmt.Sprintf("10.71.0.%d", i)], want[fmt.Sprintf("fd71::%d", i)] = true, true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("new addresses (-want +got):\n%s", diff)
			}
			leases := h.leaseFiles()
			for _, e := range []*engine.Endpoint{a, b} {
				for _, addr := range e.Addressing().Addrs() {
					if got, want := leases[addr.String()], e.Name()+"\r\neth0"; got != want {
						t.Errorf("lease of %s: %q, want %q", addr, got, want)
					}
				}
				if err := n.Remove(ctx, e.ID()); err != nil {
					t.Error(err)
				}
			}
			if got := len(h.leaseFiles()); got != 8 {
				t.Errorf("%d leases after the removal of two containers, want 8", got)
			}
		})
	}
}

// With records and leases gone, Rebuild writes both; what another container has
// by now stays that one's and is named.
func TestRebuildLeases(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.network("10.72.0.0/24")
	h.Configurations = func(string) (model.NetworkConfig, bool, error) { return n.Config(), true, nil } // it has no rules that tell
	h.attach(n, "a")
	h.attach(n, "b")
	h.attach(n, "c")
	want := h.leaseFiles()
	h.lose("state", "leases")
	h.rebuild("a", "b", "c")
	if diff := cmp.Diff(want, h.leaseFiles()); diff != "" {
		t.Errorf("leases (-lost +rebuilt):\n%s", diff)
	}
	again, err := h.Network("net1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("[10.72.0.0/24]", fmt.Sprint(again.Subnets())); diff != "" {
		t.Errorf("subnets (-want +got):\n%s", diff)
	}

	file := func(addr string) string { return filepath.Join(h.dataDir, "net1", addr) }
	if err := errors.Join(os.Remove(file("10.72.0.2")), os.WriteFile(file("10.72.0.2"), []byte("x\r\neth0"), 0o600), os.Remove(file("10.72.0.3"))); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{0 /* the pool knew of b */, 3} {
		ids, err := h.Rebuild(context.Background())
		if len(ids) != want || err == nil || !strings.Contains(err.Error(), "10.72.0.2 is held by x/eth0") || strings.Contains(err.Error(), "\n") {
			t.Errorf("a lease that is another's: rebuilt %v, %v, want %d and one error that names it", ids, err, want)
		}
		if got := h.leaseFiles()["10.72.0.3"]; got != "b\r\neth0" {
			t.Errorf("lease of b: %q", got)
		}
		h.lose("state")
	}
}

// A container can give itself addresses and another MAC; its leases, and the
// rule that guards the MAC, tell what it was given.
func TestRebuildBelievesNoContainer(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.network("10.73.0.0/24", engine.WithConfig(model.NetworkConfig{Gateway: true, SpoofCheck: true}))
	a := h.attach(n, "a")
	want := h.records()["a"]
	ns, err := life.OpenNetns(a.Netns())
	if err != nil {
		t.Fatal(err)
	}
	err = ns.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("10.73.0.99/24")
		return errors.Join(err, netlink.AddrAdd(link, addr), netlink.LinkSetHardwareAddr(link, net.HardwareAddr{2, 9, 9, 9, 9, 9}))
	})
	if err := errors.Join(err, ns.Close()); err != nil {
		t.Fatal(err)
	}
	h.lose("state")
	h.rebuild("a")
	if diff := cmp.Diff(want, h.records()["a"], sameRecord, cmpopts.IgnoreFields(state.Link{}, "MAC")); diff != "" {
		t.Errorf("record (-lost +rebuilt):\n%s", diff)
	}
}

func TestRebuildPublications(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	before := h.nft("list", "ruleset")
	n := h.network("fd74::/64", engine.WithSubnet(netip.MustParsePrefix("10.74.0.0/24")))
	e := h.attach(n, "a")
	for name, cfg := range map[string]model.PublishConfig{"plain": {}, "all": {MasqueradeAll: true}, "no hairpin": {NoHairpin: true}} {
		p, err := h.Publisher("pods", cfg)
		if err != nil {
			t.Fatal(err)
		}
		pub := publish.Publication{
			ID: model.ID{Network: "pods", ContainerID: "p", IfName: "eth0"}, Netns: e.Netns(), Addrs: e.Addressing().Addrs(),
			Ports: []model.PortMapping{{HostPort: 8080, ContainerPort: 80}, {Protocol: "sctp", HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 70, ContainerPort: 7}},
		}
		if _, err := p.Publish(ctx, pub); err != nil {
			t.Fatal(err)
		}
		want, rules := h.records()["ports of p"], h.nft("list", "ruleset")
		slices.SortFunc(want.Ports, func(a, b state.Port) int { return a.HostPort - b.HostPort })
		h.lose("state/portmap")
		h.rebuild("p")
		if diff := cmp.Diff(want, h.records()["ports of p"], sameRecord); diff != "" {
			t.Errorf("%s: record (-lost +rebuilt):\n%s", name, diff)
		}
		if _, err := h.Repair(ctx); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(rules, h.nft("list", "ruleset")); diff != "" {
			t.Errorf("%s: ruleset (-before +after):\n%s", name, diff)
		}
		if err := errors.Join(p.Verify(ctx, pub), p.Remove(ctx, pub.ID)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, h.nft("list", "ruleset")); diff != "" {
			t.Errorf("%s: left (-before +after):\n%s", name, diff)
		}
	}
}

// Of rules in iptables no record is made, which would say that there are none;
// the lease is.
func TestRebuildIPTables(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.75.0.0/24", engine.WithConfig(model.NetworkConfig{Gateway: true, Masquerade: true, Backend: model.BackendIPTables}))
	e := h.attach(n, "a", engine.WithPorts(model.PortMapping{HostPort: 8080, ContainerPort: 80}))
	h.lose("state", "leases")
	ids, err := h.Rebuild(ctx)
	if len(ids) != 1 || !errors.Is(err, errByIPTables) {
		t.Errorf("rebuilt %v, %v, want the lease of one and errByIPTables", ids, err)
	}
	if len(h.records()) != 0 || h.leaseFiles()["10.75.0.2"] != "a\r\neth0" {
		t.Errorf("records %v, leases %v, want a lease only", h.records(), h.leaseFiles())
	}
	if err := n.Remove(ctx, e.ID()); err != nil {
		t.Fatal(err)
	}
	if owners, err := h.rules.IPTables.List(ctx); err != nil || len(owners) > 0 {
		t.Errorf("rules left: %v, %v", owners, err)
	}
}

// finishing is networks beside which an ADD finishes, once one is read.
type finishing struct {
	networks
	add func()
}

func (f *finishing) LoadNetwork(name string) (state.Network, error) {
	rec, err := f.networks.LoadNetwork(name)
	if add := f.add; add != nil {
		f.add = nil
		add()
	}
	return rec, err
}

// The network record that an ADD writes while Rebuild completes it stays.
func TestRebuildBesideADD(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.network("10.70.0.0/24", engine.WithConfig(model.NetworkConfig{Gateway: true, MTU: 1400}))
	h.attach(n, "a")
	rec, err := h.networks.LoadNetwork("net1")
	must(t, err)
	untold := rec
	untold.Fingerprint = untoldConfig
	must(t, h.Operator.dir.SaveNetwork(untold))
	h.Configurations = func(string) (model.NetworkConfig, bool, error) {
		return model.NetworkConfig{Bridge: n.Config().Bridge, Gateway: true, MTU: 1300}, true, nil
	}
	whole := h.networks
	h.networks = &finishing{whole, func() { must(t, h.Operator.dir.SaveNetwork(rec)) }}
	_, err = h.Rebuild(context.Background())
	must(t, err)
	if got, err := whole.LoadNetwork("net1"); err != nil || got.Fingerprint != rec.Fingerprint || string(got.Config) != string(rec.Config) {
		t.Errorf("the record is %s %s, %v, want that of ADD", got.Fingerprint, got.Config, err)
	}
}

// An attachment that a DEL removes while Rebuild is at work has lost nothing.
func TestRebuildBesideDEL(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.attach(h.network("10.70.0.0/24"), "a")
	r := rebuilder{o: h.Operator}
	must(t, r.look(t.Context()))
	owned, there := r.owned[e.ID()]
	if !there {
		t.Fatalf("%s is not among %v", e.ID(), r.owned)
	}
	must(t, e.Leave(t.Context()))
	must(t, e.Delete(t.Context()))
	must(t, r.endpoint(t.Context(), e.ID(), owned))
}

// An interface under the next free name is found again by the kernel alone.
func TestRebuildOfTheNextName(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24", engine.WithMasquerade()) // its rules tell that it is open
	sb := h.sandbox("c1")
	for _, name := range []string{"one", "two"} {
		e, err := n.CreateEndpoint(ctx, name, engine.WithNextIfName())
		if err == nil {
			err = e.Join(ctx, sb)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	h.lose("state")
	if ids, err := h.Rebuild(ctx); len(ids) != 2 || err != nil {
		t.Fatalf("rebuilt %v: %v", ids, err)
	}
	found, err := h.Network("net1")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	err = found.WalkEndpoints(ctx, func(e *engine.Endpoint) bool {
		names = append(names, e.Name()+" "+e.IfName())
		if err := e.Verify(ctx); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
		}
		if err := found.Remove(ctx, e.ID()); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
		}
		return true
	})
	slices.Sort(names)
	if diff := cmp.Diff([]string{"one eth0", "two eth1"}, names); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

// A gateway outside its subnet: the container answers, ADD and CHECK know the
// route, and it is found again when the records are lost.
func TestLinkLocalGateway(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	pool, err := address.NewPool(ipamstore.Config{Network: "net1", DataDir: h.dataDir, Sets: []ipamstore.RangeSet{{
		{Subnet: netip.MustParsePrefix("fd31::/64"), Gateway: netip.MustParseAddr("fe80::1")},
	}}}, model.Addressing{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := h.NewNetwork(ctx, "bridge", "net1", engine.WithIPAM(pool), engine.WithMasquerade())
	if err != nil {
		t.Fatal(err)
	}
	e, err := h.web(n)
	if err != nil {
		t.Fatal(err)
	}
	addr := e.Addressing().Addresses[0]
	if addr.Gateway.String() != "fe80::1" || !strings.Contains(fmt.Sprint(e.Addressing().Routes), "::/0 via fe80::1") {
		t.Errorf("got %v", e.Addressing())
	}
	if got := greets("[" + addr.Prefix.Addr().String() + "]:80"); got != "a" {
		t.Errorf("%q answers, want a", got)
	}
	if err := e.Verify(ctx); err != nil {
		t.Error(err)
	}
	h.lose("state")
	h.rebuild("a")
	if got := h.records()["a"].Addresses; len(got) != 1 || got[0].Gateway != addr.Gateway || got[0].Prefix != addr.Prefix {
		t.Errorf("rebuilt addresses are %v, want %v", got, addr)
	}
}

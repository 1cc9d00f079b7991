package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/either"
	"github.com/libnet-cni/libnet/internal/firewall/iptables"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/policy"
	"github.com/libnet-cni/libnet/internal/state"
)

// lab is a host of its own: a network namespace with a bridge br0, and records.
type lab struct {
	*Book
	t   *testing.T
	dir *state.Dir
	nft *nft.Firewall
}

func newLab(t *testing.T) *lab {
	t.Helper()
	lntest.Isolate(t)
	h, err := kernel.Open()
	if err == nil {
		t.Cleanup(h.Close)
		err = lntest.AddLink(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	f := nft.New()
	t.Cleanup(func() { _ = f.Close() })
	dir := state.New(t.TempDir())
	rules := either.Backends{NFTables: f, IPTables: iptables.New(filepath.Join(t.TempDir(), "lock"))}
	return &lab{&Book{Index: IndexOf(dir), Networks: dir, Endpoints: dir, Bridges: h, Tunnels: h, Links: h, Rules: rules}, t, dir, f}
}

// network records a network on br0.
func (l *lab) network(name string, c model.NetworkConfig) *plan.Network {
	l.t.Helper()
	c.Bridge, c.Gateway = "br0", true
	n := &plan.Network{Name: name, Driver: plan.DriverBridge, Config: c}
	config, err := json.Marshal(c)
	if err == nil {
		err = l.dir.CreateNetwork(state.Network{Name: name, Driver: n.Driver, Bridge: "br0", Config: config})
	}
	l.must(err)
	return n
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// attach has an attachment hold the guard, apply it, and be complete; its link is a
// port of br0.
func (l *lab) attach(n *plan.Network, container string) state.Endpoint {
	l.t.Helper()
	id := model.ID{Network: n.Name, ContainerID: container, IfName: "eth0"}
	rec := state.Endpoint{Network: n.Name, ContainerID: container, IfName: "eth0", Phase: state.PhaseIntent, Bridge: "br0", HostName: id.HostName(), Guard: n.GuardID(), Backend: string(model.BackendNFTables)}
	l.must(l.dir.CreateEndpoint(rec))
	g, err := l.HoldFor(l.t.Context(), n, rec)
	l.must(err)
	l.must(l.Rules.NFTables.ApplyNetwork(l.t.Context(), g.Rules))
	l.must(g.Free(true, model.BackendNFTables))
	l.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: rec.HostName}, PeerName: "p" + rec.HostName[1:]}))
	link, err := netlink.LinkByName(rec.HostName)
	l.must(err)
	bridge, err := netlink.LinkByName("br0")
	l.must(err)
	l.must(errors.Join(netlink.LinkSetAlias(link, id.String()), netlink.LinkSetMaster(link, bridge)))
	rec.Phase = state.PhaseReady
	l.must(l.dir.SaveEndpoint(rec))
	return rec
}

// detach is the end of an attachment: its link goes, then what it asked of the bridge.
func (l *lab) detach(n *plan.Network, rec state.Endpoint) {
	l.t.Helper()
	link, err := netlink.LinkByName(rec.HostName)
	l.must(err)
	l.must(netlink.LinkDel(link))
	l.must(l.Leave(l.t.Context(), n, rec))
	l.must(l.dir.DeleteEndpoint(rec.Network, rec.ContainerID, rec.IfName))
}

// closes is what the kernel has of the guard of br0.
func (l *lab) closes() firewall.Network {
	l.t.Helper()
	r, err := l.nft.Recorded(l.t.Context())
	l.must(err)
	return policy.Of(r.Networks[plan.GuardOwner("br0")])
}

var (
	open     = model.NetworkConfig{}
	closed   = model.NetworkConfig{GatewayModeIPv4: model.GatewayNAT}
	internal = model.NetworkConfig{Internal: true}
)

// The bridge is as closed as the strictest network on it, from the first attachment of
// that network to its last one, and then as the others ask for.
func TestTheStrictestClosesTheBridge(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a, b, c := l.network("a", open), l.network("b", closed), l.network("c", internal)
	l.attach(a, "c1")
	if got := l.closes(); policy.Closes(got) {
		t.Errorf("an open network alone: %+v", got)
	}
	second := l.attach(b, "c2")
	if got := l.closes(); got.IPv4 != firewall.Published || got.Internal {
		t.Errorf("with a closed one: %+v", got)
	}
	l.attach(a, "c3")
	if got := l.closes(); got.IPv4 != firewall.Published {
		t.Errorf("another attachment of the open one: %+v", got)
	}
	third := l.attach(c, "c4")
	if got := l.closes(); got.IPv4 != firewall.Published || !got.Internal {
		t.Errorf("with an internal one: %+v", got)
	}
	l.detach(b, second)
	if got := l.closes(); !got.Internal {
		t.Errorf("the closed one left, the internal one is there: %+v", got)
	}
	l.detach(c, third)
	if got := l.closes(); policy.Closes(got) {
		t.Errorf("the open one is alone again: %+v", got)
	}
}

// The last attachment leaves the guard: the bridge stays, too.
func TestTheLastOneLeavesTheGuard(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("a", closed)
	l.detach(n, l.attach(n, "c1"))
	if got := l.closes(); got.IPv4 != firewall.Published {
		t.Errorf("the bridge is there, its guard: %+v", got)
	}
	l.must(l.Clear(t.Context(), n))
	if _, err := netlink.LinkByName("br0"); err != nil { // not libnet's: no alias
		t.Errorf("the bridge of the host: %v", err)
	}
}

// A link of which no record tells may have asked for anything: the guard stays.
func TestAnUnknownLinkKeepsTheGuard(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a, b := l.network("a", open), l.network("b", closed)
	l.attach(a, "c1")
	second, lost := l.attach(b, "c2"), l.attach(b, "c3")
	l.must(l.dir.DeleteEndpoint(lost.Network, lost.ContainerID, lost.IfName))
	l.detach(b, second)
	if got := l.closes(); got.IPv4 != firewall.Published {
		t.Errorf("c3 is there without a record, the guard: %+v", got)
	}
}

// A guard that was not applied is not in the index, and the lock is free again.
func TestAGuardThatWasNotApplied(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("a", closed)
	g, err := l.Hold(t.Context(), n, true)
	l.must(err)
	if !g.Fresh {
		t.Error("the bridge had no guard before, and that is not said")
	}
	l.must(g.Free(false, model.BackendNFTables))
	if _, err := l.Index.LockBridge(t.Context(), "br0", unix.LOCK_EX, state.OnlyExisting); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the index: %v, want none", err)
	}
}

// A network that has a bridge to itself has the rules that its guard in the index gives, also where it
// lets in trusted interfaces or a mark that its policy makes superfluous: ADD and CHECK agree on them.
func TestAloneAsJoined(t *testing.T) {
	l := newLab(t)
	count := 0
	for _, c := range []model.NetworkConfig{{}, {Internal: true}, {NoHost: true}} {
		for _, mode := range []model.GatewayMode{model.GatewayNAT, model.GatewayNATUnprotected, model.GatewayRouted, model.GatewayIsolated} {
			for _, trusted := range [][]string{nil, {"eth9"}} {
				for _, mark := range []model.FwMark{{}, {Value: 1, Mask: 1}} {
					c.GatewayModeIPv4, c.GatewayModeIPv6, c.TrustedInterfaces, c.AcceptFwMark = mode, mode, trusted, mark
					what := fmt.Sprintf("%s, internal %t, no host %t, trusted %v, mark %v", mode, c.Internal, c.NoHost, trusted, mark)
					count++
					n := l.network(fmt.Sprint("n", count), c)
					rec := l.attach(n, "c")
					b, err := l.Index.LockBridge(t.Context(), "br0", unix.LOCK_SH, state.OnlyExisting)
					l.must(err)
					want, err := fromIndex(n, b, rec.Guard)
					l.must(err)
					b.Unlock()
					want.Own = nil // that of the network itself
					check, err := l.Verifiable(t.Context(), n, rec)
					l.must(err)
					again, err := l.Hold(t.Context(), n, true)
					l.must(err)
					l.must(again.Free(false, model.BackendNFTables))
					if diff := cmp.Diff(want, check); diff != "" {
						t.Errorf("%s: CHECK (-index +alone):\n%s", what, diff)
					}
					if diff := cmp.Diff(want, again.Rules); diff != "" {
						t.Errorf("%s: another ADD (-index +alone):\n%s", what, diff)
					}
					l.detach(n, rec)
				}
			}
		}
	}
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/tunnel"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

func (w *world) EnsureTunnel(_ context.Context, t tunnel.Tunnel) (bool, error) {
	_, had := w.things["tunnel "+t.Name]
	err := w.step(func() { w.things["tunnel "+t.Name] = t.Alias })
	if err != nil && !had {
		delete(w.things, "tunnel "+t.Name) // the real one undoes what it made
	}
	return !had, err
}

func (w *world) MendTunnel(ctx context.Context, t tunnel.Tunnel) (tunnel.Mended, error) {
	created, err := w.EnsureTunnel(ctx, t)
	return tunnel.Mended{Created: created}, err
}

func (w *world) VerifyTunnel(_ context.Context, t tunnel.Tunnel) error {
	if _, ok := w.things["tunnel "+t.Name]; !ok {
		return netlink.ErrNotFound
	}
	return nil
}

func (w *world) RemoveDirect(context.Context, []netip.Prefix) error { return nil }

func (w *world) RemoveTunnel(_ context.Context, name, _ string) error {
	return w.step(func() { delete(w.things, "tunnel "+name) })
}

func (w *world) HasTunnel(name, _ string) (bool, error) {
	_, has := w.things["tunnel "+name]
	return has, nil
}

func (w *world) LeadsTo(name, _ string, _ []netip.Prefix) (int, error) {
	if _, has := w.things["tunnel "+name]; !has {
		return 0, netlink.ErrNotFound
	}
	return 7, nil
}

func (w *world) PortUser(netip.Addr, uint16) (string, error) { return "", nil }

func (w *world) CanEncrypt(string) error { return nil }

func (w *world) SecureState(string, string) (wireguard.State, error) { return wireguard.State{}, nil }

func (w *world) ChangeSecure(string, string, wireguard.Change) error { return nil }

func (w *world) PathMTU(netip.Addr, []netip.Addr, string) (int, error) { return 1500, nil }

var _ tunnels = (*world)(nil)

func someNodes() []model.Node {
	return []model.Node{
		{Address: netip.MustParseAddr("192.0.2.1"), Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/24")}},
		{Address: netip.MustParseAddr("192.0.2.2"), Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}},
	}
}

func overlayNetwork(t *testing.T, w *world) (*Network, *Sandbox) {
	t.Helper()
	return define(t, w, "overlay", model.NetworkConfig{AutoMTU: true, Tunnel: model.TunnelConfig{Nodes: someNodes(), Self: netip.MustParseAddr("192.0.2.1")}})
}

// changingTunnels always differ from what is wanted.
type changingTunnels struct{ tunnels }

func (changingTunnels) VerifyTunnel(context.Context, tunnel.Tunnel) error {
	return netlink.ErrDifferent
}

// A repeated Attach mends the tunnel, and does not make a living attachment anew for it: that would
// get another address.
func TestTunnelMakesNothingAnew(t *testing.T) {
	ctx := context.Background()
	for what, change := range map[string]func(*Network){
		"lost":     func(n *Network) { _ = n.c.tunnels.RemoveTunnel(ctx, n.Plan().TunnelName(), "") },
		"changing": func(n *Network) { n.c.tunnels = changingTunnels{n.c.tunnels} },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld()
			n, sb := overlayNetwork(t, w)
			e, err := n.Attach(ctx, sb)
			if err != nil {
				t.Fatal(err)
			}
			before, made := w.snapshot(), w.steps
			change(n)
			if err := e.Verify(ctx); !errors.Is(err, model.ErrDifferent) {
				t.Fatalf("Verify: %v, want ErrDifferent", err)
			}
			took := w.steps
			if _, err := n.Attach(ctx, sb); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, w.snapshot()); diff != "" {
				t.Errorf("after a repeated Attach (-before +after):\n%s", diff)
			}
			if took = w.steps - took; took >= made {
				t.Errorf("it took %d steps of %d: the attachment was made anew", took, made)
			}
		})
	}
}

// No tunnel is left, either.
func TestOverlayAttachFailsAtEveryStep(t *testing.T) { failAtEveryStep(t, overlayNetwork) }

// The rules of a network outlive its last endpoint while there is a tunnel, and
// go with it.
func TestTunnelIsNeverWithoutRules(t *testing.T) {
	ctx := context.Background()
	w := newWorld()
	n, sb := overlayNetwork(t, w)
	e, err := n.Attach(ctx, sb)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Remove(ctx, e.ID()); err != nil {
		t.Fatal(err)
	}
	left := strings.Join(w.snapshot(), ", ")
	if !strings.Contains(left, "tunnel vx-") || !strings.Contains(left, "guard br1") {
		t.Errorf("after the last Remove there are: %s; want the tunnel and the network's rules", left)
	}
	if err := n.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string(nil), w.snapshot()); diff != "" {
		t.Errorf("after Delete (-want +got):\n%s", diff)
	}
}

// Without SpansHosts a Controller refuses a network that spans hosts, and of one that another
// program has made it mends the rules, and leaves the tunnel as it is.
func TestWithoutSpansHosts(t *testing.T) {
	ctx := context.Background()
	w := newWorld()
	n, sb := overlayNetwork(t, w)
	if _, err := n.Attach(ctx, sb); err != nil {
		t.Fatal(err)
	}
	c := w.controller()
	c.tunnels, c.many = nil, nil
	if _, err := c.DefineNetwork("overlay", "net2"); !errors.Is(err, model.ErrUnknownDriver) {
		t.Errorf("DefineNetwork: %v, want %v", err, model.ErrUnknownDriver)
	}
	other, err := c.Network("net1")
	if err != nil {
		t.Fatal(err)
	}
	m := mender{c: c}
	for _, gone := range []bool{false, true} {
		if gone {
			delete(w.things, "tunnel "+n.Plan().TunnelName())
		}
		if err := errors.Join(m.tunnelRules(ctx, other), m.tunnel(ctx, other)); err != nil {
			t.Errorf("the tunnel is gone: %v: %v", gone, err)
		}
		if has := strings.Contains(strings.Join(w.snapshot(), " "), "tunnel vx-"); has == gone {
			t.Errorf("there is a tunnel: %v, want %v", has, !gone)
		}
	}
}

// A network found by its record is the one that was made.
func TestOverlayRecord(t *testing.T) {
	w := newWorld()
	n, sb := overlayNetwork(t, w)
	e, err := n.Attach(context.Background(), sb)
	if err != nil {
		t.Fatal(err)
	}
	n = e.n // the MTU is known
	again, err := n.c.Network("net1")
	if err != nil {
		t.Fatal(err)
	}
	again.def.Config.MTU = n.def.Config.MTU
	opts := cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
	if diff := cmp.Diff(n.Plan().Tunnel(), again.Plan().Tunnel(), opts); diff != "" || again.Driver() != "overlay" {
		t.Errorf("driver %q; (-made +found):\n%s", again.Driver(), diff)
	}
	if n.def.Config.MTU != 1450 {
		t.Errorf("MTU %d, want 1450", n.def.Config.MTU)
	}
}

func TestAssignBlocks(t *testing.T) {
	given := netip.MustParsePrefix("10.9.0.0/20")
	nodes := []model.Node{{Address: netip.MustParseAddr("192.0.2.1")}, {Address: netip.MustParseAddr("192.0.2.2"), Subnets: []netip.Prefix{given}}, {Address: netip.MustParseAddr("192.0.2.3")}}
	subnets := []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd05::/48")}
	got, err := model.AssignBlocks(nodes, subnets, model.DefaultBlockSize())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"[10.5.0.0/24 fd05::/64]", "[10.9.0.0/20]", "[10.5.2.0/24 fd05:0:0:2::/64]"}
	for i, n := range got {
		if s := fmt.Sprint(n.Subnets); s != want[i] {
			t.Errorf("node %d has %s, want %s", i, s, want[i])
		}
	}
	if nodes[0].Subnets != nil {
		t.Error("the list that was given is changed")
	}
	if _, err := model.AssignBlocks(nodes, []netip.Prefix{netip.MustParsePrefix("10.5.0.0/23")}, model.DefaultBlockSize()); err == nil {
		t.Error("two blocks do for three nodes")
	}
}

// A record has all hosts of the network, also that of a call which trusted what was noted of them
// until another one changed the record.
func TestRecordHasAllHosts(t *testing.T) {
	for _, other := range []bool{false, true} {
		w := newWorld()
		n, sb := overlayNetwork(t, w)
		if other {
			if _, err := n.Attach(t.Context(), sb); err != nil {
				t.Fatal(err)
			}
		}
		trusts := n.own()
		trusts.def.Config.Tunnel.Nodes = someNodes()[:1]
		trusts.hosts = hosts{"list", &nodefile.Seen{Fingerprint: "another"}, func() ([]model.Node, error) { return someNodes(), nil }}
		change, err := trusts.remember()
		if err == nil {
			err = trusts.saveRecord()
		}
		if err != nil || len(trusts.def.Config.Tunnel.Nodes) != 2 || other != (change == recordSame) {
			t.Errorf("record of another call %v: change %d, nodes %v: %v", other, change, trusts.def.Config.Tunnel.Nodes, err)
		}
		again, err := n.c.Network("net1")
		if err != nil || len(again.def.Config.Tunnel.Nodes) != 2 {
			t.Errorf("record of another call %v: it has nodes %v: %v", other, again.def.Config.Tunnel.Nodes, err)
		}
	}
}

// Containers without a default route get routes to the network's other hosts.
func TestAddTunnelRoutes(t *testing.T) {
	a := model.Addressing{Addresses: []model.Address{{Prefix: netip.MustParsePrefix("10.5.0.2/24"), Gateway: netip.MustParseAddr("10.5.0.1")}}}
	a.AddTunnelRoutes(model.TunnelConfig{Nodes: append(someNodes(), model.Node{Subnets: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}})})
	var got []string
	for _, r := range a.Routes {
		got = append(got, r.Dst.String()+" via "+r.Gateway.String())
	}
	if diff := cmp.Diff([]string{"10.5.1.0/24 via 10.5.0.1", "10.9.0.0/24 via 10.5.0.1"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

package engine

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// An Attach with a changed configuration that fails, at whichever step, leaves
// the network's record as it was.
func TestRefusedLeavesRecord(t *testing.T) {
	ctx := context.Background()
	failed := 0
	for step := 1; ; step++ {
		w := newWorld()
		before, sb := faultNetwork(t, w)
		if _, err := before.Attach(ctx, &Sandbox{c: before.c, id: "c0", path: sb.path}); err != nil {
			t.Fatal(err)
		}
		want := w.networks["net1"]
		n, err := before.c.DefineNetwork("bridge", "net1", WithIPAM(fakeIPAM{w: w}),
			WithConfig(model.NetworkConfig{Bridge: "br1", Gateway: true, GatewayModeIPv4: model.GatewayRouted}))
		if err != nil {
			t.Fatal(err)
		}
		w.steps, w.failAt = 0, step
		if _, err := n.Attach(ctx, sb); err == nil {
			break
		}
		failed++
		if diff := cmp.Diff(want, w.networks["net1"]); diff != "" {
			t.Errorf("step %d: the record (-before +now):\n%s", step, diff)
		}
	}
	if failed < 8 {
		t.Errorf("only %d steps failed: the test does not reach them all", failed)
	}
}

// So does one that the kernel refuses.
func TestRefusedByKernel(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	file := filepath.Join(h.dir, "state", "networks", "net1", "network.json")
	read := func() string {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	cfg := model.NetworkConfig{Bridge: "br1", Gateway: true, GatewayModeIPv4: model.GatewayNAT}
	define := func(subnet string) *Network {
		n, err := h.DefineNetwork("bridge", "net1", WithConfig(cfg), WithSubnet(netip.MustParsePrefix(subnet)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	h.attach(define("10.76.0.0/24"), "a")
	before, rules := read(), h.nft("list", "ruleset")
	br1, err := netlink.LinkByName("br1")
	must(t, err)
	must(t, netlink.AddrAdd(br1, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 78, 0, 1), Mask: net.CIDRMask(24, 32)}})) // an administrator's
	cfg.GatewayModeIPv4 = model.GatewayRouted
	if _, err := define("10.77.0.0/24").Attach(ctx, h.sandbox("b")); !errors.Is(err, link.ErrAddressConflict) {
		t.Fatalf("attach with another subnet: %v, want ErrAddressConflict", err)
	}
	if diff := cmp.Diff(before, read()); diff != "" {
		t.Errorf("record (-before +now):\n%s", diff)
	}
	if diff := cmp.Diff(rules, h.nft("list", "ruleset")); diff != "" {
		t.Errorf("rules (-before +now):\n%s", diff)
	}
}

// delBetween has a DEL come between the list of attachments and what is done
// with them.
type delBetween struct {
	endpointRecords
	del func()
}

func (d delBetween) Endpoints(network string) ([]state.Endpoint, error) {
	recs, err := d.endpointRecords.Endpoints(network)
	d.del()
	return recs, err
}

// Repair gives nothing back to what was removed since it looked, and touches
// nothing that another call owns.
func TestRepairBesideOthers(t *testing.T) {
	ctx := context.Background()
	for name, tt := range map[string]struct {
		busy bool
		want bool // the rules come back
	}{"removed": {false, false}, "owned": {true, false}, "left alone": {false, true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			n, sb := faultNetwork(t, w)
			e, err := n.Attach(ctx, sb)
			if err != nil {
				t.Fatal(err)
			}
			owner := "rules " + e.ID().String()
			if _, ok := w.things[owner]; !ok {
				t.Fatal("there are no rules: the test shows nothing")
			}
			delete(w.things, owner) // flushed
			w.busy = tt.busy
			if name == "removed" {
				other, _ := faultNetwork(t, w)
				n.c.endpoints = delBetween{w, func() {
					if err := other.Remove(ctx, e.ID()); err != nil {
						t.Error(err)
					}
				}}
				n.c.renewPorts()
			}
			if _, err := n.c.Repair(ctx); err != nil {
				t.Error(err)
			}
			if _, ok := w.things[owner]; ok != tt.want {
				t.Errorf("rules are there: %v, want %v", ok, tt.want)
			}
		})
	}
}

// lossyRules have lost all.
type lossyRules struct{ fakeRules }

func (l lossyRules) Intact(context.Context, firewall.Network) error {
	for k := range l.things {
		if len(k) > 6 && k[:6] == "rules " {
			return nil
		}
	}
	return firewall.ErrMissing
}

// Status puts back what an Attach would, and is no error if it cannot, but for
// a caller that asks for ErrLimited.
func TestStatusMends(t *testing.T) {
	ctx := context.Background()
	w := newWorld()
	n, sb := faultNetwork(t, w)
	dir := t.TempDir()
	n.c.sandboxes, n.c.rules.NFTables = state.New(dir), lossyRules{fakeRules{w}}
	e, err := n.Attach(ctx, sb)
	if err != nil {
		t.Fatal(err)
	}
	rules := "rules " + e.ID().String()
	lose := func() {
		for k := range w.things {
			if k == "bridge br1" || len(k) > 6 && k[:6] == "rules " {
				delete(w.things, k)
			}
		}
	}
	lose()
	if err := n.Status(ctx); err != nil {
		t.Errorf("status: %v", err)
	}
	for _, thing := range []string{rules, "bridge br1"} {
		if _, ok := w.things[thing]; !ok {
			t.Errorf("status did not put back %s", thing)
		}
	}
	steps := w.steps
	if err := n.Status(ctx); err != nil || w.steps != steps {
		t.Errorf("status of what is whole: %v, %d steps", err, w.steps-steps)
	}
	lose()
	w.failAt = w.steps + 1
	if err := n.Status(ctx); err != nil && !errors.Is(err, model.ErrLimited) {
		t.Errorf("status that cannot mend: %v, want ErrLimited", err)
	}
	release, ok, err := n.c.sandboxes.TryRepair()
	if err != nil || !ok {
		t.Fatal(err)
	}
	defer release()
	lose()
	if err := n.Status(ctx); err != nil {
		t.Errorf("status while another mends: %v", err)
	}
	if _, ok := w.things[rules]; ok {
		t.Error("two mend at once")
	}
}

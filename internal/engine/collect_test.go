package engine

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// ofRuntime is what a runtime with one container says of a network that it
// shares with another runtime.
func (h *realHost) ofRuntime(runtime, own string) func(life.Holder) bool {
	return func(holder life.Holder) bool {
		if holder.Runtime != "" && holder.Runtime != runtime {
			return !h.Dead(holder)
		}
		return holder.ID.ContainerID == own
	}
}

// A runtime collects with its own list while another one's ADD is under way,
// wherever that is: the ADD keeps its address.
func TestCollectSparesAddsOfAnother(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.49.0.0/24", WithMasquerade())
	_, err := n.Attach(ctx, h.sandbox("own"), WithRuntime("r2"))
	must(t, err)
	var e *Endpoint
	keep := h.ofRuntime("r2", "own")
	must(t, n.Collect(ctx, func(holder life.Holder) bool {
		if e == nil { // the holders are listed
			if e, err = n.Attach(ctx, h.sandbox("c1"), WithRuntime("r1")); err != nil {
				t.Fatal(err)
			}
		}
		return keep(holder)
	}, KeepNetwork))
	must(t, e.Verify(ctx))
}

// A lease whose record is lost is still the runtime's that its ADD was made by.
func TestLeaseNamesItsRuntime(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.49.0.0/24")
	e, err := n.Attach(ctx, h.sandbox("c1"), WithRuntime("r1"))
	must(t, err)
	must(t, errors.Join(os.RemoveAll(filepath.Join(h.dir, "state", "networks"))))
	pool := n.ipam.(*address.Pool)
	must(t, n.collectLeases(ctx, nil, h.ofRuntime("r2", "own")))
	must(t, pool.Verify(ctx, e.ID(), nil))
	must(t, n.collectLeases(ctx, nil, h.ofRuntime("r1", "own")))
	if err := pool.Verify(ctx, e.ID(), nil); !errors.Is(err, ipamstore.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

// GC removes the ports that a killed ADD left without a record.
func TestCollectOfNoPublication(t *testing.T) {
	h := newHost(t)
	p, err := h.Publisher("net1", model.PublishConfig{})
	must(t, err)
	dir := filepath.Join(h.dir, "state", "portmap", "networks", "net1")
	must(t, os.MkdirAll(filepath.Join(dir, "endpoints"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600))
	must(t, p.Collect(context.Background(), func(life.Holder) bool { return true }))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after GC: %v, want no directory", err)
	}
}

// Lease files removed by hand: their addresses are not given to others while a
// container has them, with the index at hand or without.
func TestLeaseFilesRemoved(t *testing.T) {
	for name, files := range map[string][]string{
		"one":                {"net1/10.49.0.2"},
		"two":                {"net1/10.49.0.2", "net1/10.49.0.3"},
		"one, and the index": {"net1/10.49.0.2", ".libnet/net1"},
		"all":                {"net1"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			ctx := context.Background()
			pool, err := address.NewPool(ipamstore.Config{
				Network: "net1", DataDir: h.dataDir, Strategy: ipamstore.StrategyLowest,
				Sets: []ipamstore.RangeSet{{{Subnet: netip.MustParsePrefix("10.49.0.0/24")}}},
			}, model.Addressing{})
			must(t, err)
			n, err := h.NewNetwork(ctx, "bridge", "net1", WithIPAM(pool))
			must(t, err)
			held := map[netip.Addr]string{}
			attach := func(id string) {
				t.Helper()
				e, err := n.Attach(ctx, h.sandbox(id))
				must(t, err)
				a := e.Addressing().Addresses[0].Prefix.Addr()
				if other := held[a]; other != "" {
					t.Errorf("%s got %s, which %s has", id, a, other)
				}
				held[a] = id
			}
			for _, id := range []string{"a", "b", "c"} {
				attach(id)
			}
			for _, f := range files {
				must(t, os.RemoveAll(filepath.Join(h.dataDir, f)))
			}
			attach("d")
			attach("e")
			for a, id := range held {
				must(t, pool.Verify(ctx, model.ID{Network: "net1", ContainerID: id, IfName: "eth0"}, []netip.Addr{a}))
			}
		})
	}
}

// A container whose path is of another mount namespace is not dead because that
// path leads nowhere here.
func TestDeadFromAfar(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.49.0.0/24")
	e, err := n.Attach(ctx, h.sandbox("c1"))
	must(t, err)
	rec := e.rec
	rec.Netns = "/nowhere/c1"
	for mounts, want := range map[string]bool{life.MountNS(): true, "1": false, "": false} {
		rec.MountNS = mounts
		if got := h.Dead(life.OfRecord(rec)); got != want {
			t.Errorf("in mount namespace %q: dead %t, want %t", mounts, got, want)
		}
	}
	rec.Boot, rec.MountNS = "an earlier one", "1"
	if !h.Dead(life.OfRecord(rec)) {
		t.Error("a reboot ends what any mount namespace saw")
	}
}

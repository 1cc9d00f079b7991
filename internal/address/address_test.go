package address

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

func pool(t *testing.T, dir string) *Pool {
	t.Helper()
	p, err := NewPool(ipamstore.Config{Network: "net1", DataDir: dir, Sets: []ipamstore.RangeSet{{{Subnet: netip.MustParsePrefix("10.1.0.0/24")}}}}, model.Addressing{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func apply(t *testing.T, p *Pool, container, netns string) netip.Addr {
	t.Helper()
	claim, err := NewClaim(model.ID{Network: "net1", ContainerID: container, IfName: "eth0"}, netns)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Apply(t.Context(), claim)
	if err != nil || len(got.Addresses) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	return got.Addresses[0].Prefix.Addr()
}

// A pool whose leases are lost gives no address that a living attachment has by its
// record; one of a dead attachment is free.
func TestLostLeasesComeBackFirst(t *testing.T) {
	t.Parallel()
	lntest.Isolate(t)
	ctx := context.Background()
	netns, dataDir := lntest.NewNetns(t), t.TempDir()
	first := apply(t, pool(t, dataDir), "c1", netns)
	h, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	id, err := life.NetnsIDOf(netns)
	if err != nil {
		t.Fatal(err)
	}
	dir := state.New(t.TempDir())
	save := func(container string, a netip.Addr, boot string) {
		t.Helper()
		rec := state.Endpoint{
			Network: "net1", ContainerID: container, IfName: "eth0", Phase: state.PhaseReady, Boot: boot, HostName: "veth" + container, IPAM: PoolType, DataDir: dataDir,
			Netns: netns, NetnsID: state.NetnsID(id), MountNS: life.MountNS(), Addresses: []state.Address{{Prefix: netip.PrefixFrom(a, 24)}},
		}
		if err := dir.CreateEndpoint(rec); err != nil {
			t.Fatal(err)
		}
	}
	save("c1", first, "boot1")
	save("c2", first.Next(), "an earlier boot")
	if err := os.RemoveAll(dataDir); err != nil {
		t.Fatal(err)
	}
	p := pool(t, dataDir)
	l := Lost{Network: "net1", Boot: "boot1", Records: dir, Links: h, Finder: h}
	if err := l.Keep(ctx, p, model.ID{Network: "net1", ContainerID: "c3", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(ctx, model.ID{Network: "net1", ContainerID: "c1", IfName: "eth0"}, []netip.Addr{first}); err != nil {
		t.Errorf("the lease of c1: %v", err)
	}
	if got := apply(t, p, "c3", netns); got != first.Next() {
		t.Errorf("c3 gets %s; want %s, which a dead attachment had", got, first.Next())
	}
}

// A subnet that is chosen keeps clear of the host's routes, of name servers and of the
// networks in the records; what the network's own record says comes apart.
func TestSurroundings(t *testing.T) {
	t.Parallel()
	dir := state.New(t.TempDir())
	for name, subnet := range map[string]string{"net1": "10.1.0.0/24", "net2": "10.2.0.0/24"} {
		config := `{"Pool":{"Sets":[[{"Subnet":"` + subnet + `"}]]}}`
		if err := dir.CreateNetwork(state.Network{Name: name, Config: []byte(config)}); err != nil {
			t.Fatal(err)
		}
	}
	route := netip.MustParsePrefix("192.168.0.0/16")
	s := surroundings{network: "net1", records: dir, routes: func() ([]netip.Prefix, error) { return []netip.Prefix{route}, nil }}
	all, own, err := s.inUse()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(all, route) || !slices.Contains(all, netip.MustParsePrefix("10.2.0.0/24")) || slices.Contains(all, netip.MustParsePrefix("10.1.0.0/24")) {
		t.Errorf("in use: %v", all)
	}
	if len(own) != 1 || own[0] != netip.MustParsePrefix("10.1.0.0/24") {
		t.Errorf("its own: %v", own)
	}
}

// nameservers are each a prefix of one address; words that are none are passed over.
func TestNameservers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if got, err := nameservers(file); len(got) > 0 || err != nil {
		t.Errorf("a missing file: %v, %v", got, err)
	}
	text := "# comment\nsearch example.net\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver ::ffff:192.0.2.54\nnameserver\nnameserver x\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := nameservers(file)
	want := []string{"192.0.2.53/32", "fe80::1/128", "192.0.2.54/32"}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%v, %v; want %v", got, err, want)
	}
	for i, p := range got {
		if p.String() != want[i] {
			t.Errorf("%s, want %s", p, want[i])
		}
	}
}

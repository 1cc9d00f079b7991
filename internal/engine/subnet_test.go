package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

const dockersPools = `[{"base":"172.17.0.0/16","size":16},{"base":"172.18.0.0/15","size":16},{"base":"172.20.0.0/14","size":16},
	{"base":"172.24.0.0/13","size":16},{"base":"192.168.0.0/16","size":20},{"base":"fd00:7::/48","size":64}]`

// newAutoHost is newHost with address pools of its own.
func newAutoHost(t *testing.T) *realHost {
	t.Helper()
	h := newHost(t)
	h.poolsFile = filepath.Join(h.dir, "pools")
	if err := os.WriteFile(h.poolsFile, []byte(dockersPools), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

func auto() NetworkOption  { return WithAutoSubnet(subnets.Request{}) }
func auto6() NetworkOption { return WithAutoSubnet(subnets.Request{IPv6: true}) }

// subnets returns those of the network that the host's records know.
func (h *realHost) subnets(name string) string {
	h.t.Helper()
	n, err := h.Network(name)
	if err != nil {
		h.t.Fatal(err)
	}
	var all []string
	for _, subnet := range n.Subnets() {
		all = append(all, subnet.String())
	}
	return strings.Join(all, " ")
}

// book returns what the book says.
func (h *realHost) book() string {
	h.t.Helper()
	list, err := (&subnets.Book{DataDir: h.Controller.dataDir}).List()
	if err != nil {
		h.t.Fatal(err)
	}
	var all []string
	for _, e := range list {
		all = append(all, e.Network+" "+e.Subnet.String())
	}
	return strings.Join(all, ", ")
}

func (h *realHost) auto(name string, opts ...NetworkOption) *Network {
	h.t.Helper()
	n, err := h.NewNetwork(context.Background(), "bridge", name, opts...)
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func TestThirtyOneNetworks(t *testing.T) {
	h := newAutoHost(t)
	ctx := context.Background()
	before := h.links()
	var all []*Network
	seen := map[string]bool{}
	for i := range 31 {
		n := h.auto(fmt.Sprint("net", i), auto())
		all = append(all, n)
		seen[h.subnets(n.Name())] = true
	}
	if len(seen) != 31 || !seen["172.17.0.0/16"] || !seen["172.31.0.0/16"] || !seen["192.168.240.0/20"] {
		t.Errorf("%d subnets: %v", len(seen), seen)
	}
	if _, err := h.NewNetwork(ctx, "bridge", "net31", auto()); !errors.Is(err, ipamstore.ErrExhausted) {
		t.Errorf("the 32nd: error %v, want ErrExhausted", err)
	}
	given := h.subnets("net7")
	if err := all[7].Delete(ctx); err != nil {
		t.Fatal(err)
	}
	all[7] = h.auto("net31", auto())
	if got := h.subnets("net31"); got != given {
		t.Errorf("got %s, want %s, which was given back", got, given)
	}
	for _, n := range all {
		if err := n.Delete(ctx); err != nil {
			t.Error(err)
		}
	}
	if got := h.book(); got != "" {
		t.Errorf("left in the book: %s", got)
	}
	if diff := cmp.Diff(before, h.links()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

// A chosen subnet avoids the addresses that the host uses: networks, routes, name servers.
func TestAutoSubnetAvoids(t *testing.T) {
	h := newAutoHost(t)
	ctx := context.Background()
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "other0"}}
	addr, _ := netlink.ParseAddr("172.17.0.1/16")
	_, dst, _ := net.ParseCIDR("172.18.5.0/24")
	far := &netlink.Route{Dst: dst}
	err := errors.Join(netlink.LinkAdd(link), netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
	far.LinkIndex = link.Attrs().Index
	if err := errors.Join(err, netlink.RouteAdd(far)); err != nil {
		t.Fatal(err)
	}
	resolv := filepath.Join(h.dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("# us\nnameserver 172.19.0.53\nnameserver fd00:7::53%eth0\nsearch x\nnameserver\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(resolv, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	// A network without a gateway has no route that would tell of it.
	if _, err := h.NewNetwork(ctx, "bridge", "static", WithConfig(model.NetworkConfig{}), WithSubnet(netip.MustParsePrefix("172.20.0.0/20"))); err != nil {
		t.Fatal(err)
	}
	h.auto("web", auto(), auto6())
	if got, want := h.subnets("web"), "172.21.0.0/16 fd00:7:0:1::/64"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	e, err := h.auto("db", WithSubnet(netip.MustParsePrefix("fd00:9::/64")), WithAutoSubnet(subnets.Request{Bits: 24})).CreateEndpoint(ctx, "c1")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range e.Addressing().Addresses {
		got = append(got, a.Prefix.String()+" via "+a.Gateway.String())
	}
	if diff := cmp.Diff([]string{"fd00:9::2/64 via fd00:9::1", "172.18.0.2/24 via 172.18.0.1"}, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

// A network that brings its configuration each time gets its subnet with the
// first Attach, and keeps it until it is dissolved.
func TestAutoSubnetIsLazy(t *testing.T) {
	h := newAutoHost(t)
	ctx := context.Background()
	define := func() *Network {
		t.Helper()
		n, err := h.DefineNetwork("bridge", "web", auto())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	id := model.ID{Network: "web", ContainerID: "c1", IfName: "eth0"}
	keepNone := func(life.Holder) bool { return false }
	n := define()
	if err := errors.Join(n.Status(ctx), n.Remove(ctx, id), n.Collect(ctx, keepNone, KeepNetwork)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.Controller.dataDir); !os.IsNotExist(err) {
		t.Errorf("before the first Attach there is %s", h.Controller.dataDir)
	}
	sb := h.sandbox("c1")
	e, err := n.Attach(ctx, sb)
	if err != nil {
		t.Fatal(err)
	}
	if got := h.book(); got != "web 172.17.0.0/16" {
		t.Errorf("the book says %q", got)
	}
	again, err := define().Attach(ctx, sb)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e.Interfaces(), again.Interfaces()); diff != "" {
		t.Errorf("the second Attach made something (-first +second):\n%s", diff)
	}
	if err := errors.Join(define().Status(ctx), again.Verify(ctx), define().Remove(ctx, id)); err != nil {
		t.Fatal(err)
	}
	// The book is lost; the record tells.
	if err := os.RemoveAll(filepath.Join(h.Controller.dataDir, ".libnet")); err != nil {
		t.Fatal(err)
	}
	if e, err = define().Attach(ctx, sb); err != nil || e.Addressing().Addresses[0].Prefix.Masked().String() != "172.17.0.0/16" {
		t.Fatalf("without the book: %v, %v", e, err)
	}
	if err := define().Collect(ctx, keepNone, DissolveNetwork); err != nil {
		t.Fatal(err)
	}
	if got := h.book(); got != "" {
		t.Errorf("left in the book: %s", got)
	}
	h.nothingLeft()
}

func TestAutoSubnetRefused(t *testing.T) {
	h := newAutoHost(t)
	ctx := context.Background()
	for name, opts := range map[string][]NetworkOption{
		"two of a family":            {auto(), auto()},
		"too small":                  {WithAutoSubnet(subnets.Request{Bits: 31})},
		"with one that is no subnet": {auto(), WithSubnet(netip.MustParsePrefix("10.1.0.1/24"))},
	} {
		var bad *ipamstore.ConfigError
		if _, err := h.DefineNetwork("bridge", "web", opts...); !errors.As(err, &bad) {
			t.Errorf("%s: error %v, want a ConfigError", name, err)
		}
	}
	// One that cannot be made gives its subnet back.
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "noBridge"}, PeerName: "peer"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	if _, err := h.NewNetwork(ctx, "bridge", "web", WithConfig(model.NetworkConfig{Bridge: "noBridge"}), auto()); err == nil {
		t.Error("a veth is no bridge")
	}
	if got := h.book(); got != "" {
		t.Errorf("left in the book: %s", got)
	}
	h.auto("web", auto())
	if _, err := h.NewNetwork(ctx, "bridge", "web", auto()); !errors.Is(err, model.ErrNetworkExists) {
		t.Errorf("again: error %v, want ErrNetworkExists", err)
	}
	if got := h.book(); got != "web 172.17.0.0/16" {
		t.Errorf("the book says %q", got)
	}
	// Nothing left: Status says so before a caller waits for an Attach.
	if err := os.WriteFile(h.poolsFile, []byte(`[{"base":"172.17.0.0/16","size":16}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := h.DefineNetwork("bridge", "late", auto())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Status(ctx); !errors.Is(err, ipamstore.ErrExhausted) {
		t.Errorf("status: %v, want ErrExhausted", err)
	}
}

// An AutoPool alone is what a standalone IPAM plugin uses.
func TestAutoPool(t *testing.T) {
	h := newAutoHost(t)
	ctx := context.Background()
	pool := func() *address.AutoPool {
		t.Helper()
		cfg := ipamstore.Config{Network: "web", DataDir: h.Controller.dataDir, Sets: []ipamstore.RangeSet{{{}}}}
		p, err := address.NewAutoPool(cfg, map[int]subnets.Request{0: {Bits: 24}}, model.Addressing{})
		if err != nil {
			t.Fatal(err)
		}
		return p.On(h.networks, nil, h.poolsFile)
	}
	id := model.ID{Network: "web", ContainerID: "c1", IfName: "eth0"}
	got, err := pool().Apply(ctx, address.Claim{ID: id})
	if err != nil || got.Addresses[0].Prefix.String() != "172.17.0.2/24" {
		t.Fatalf("%v, %v", got, err)
	}
	if err := errors.Join(pool().Status(ctx), pool().Verify(ctx, id, []netip.Addr{netip.MustParseAddr("172.17.0.2")}), pool().Remove(ctx, id)); err != nil {
		t.Fatal(err)
	}
	if got := h.book(); got != "web 172.17.0.0/24" {
		t.Errorf("the book says %q", got)
	}
	loose, err := address.NewPool(ipamstore.Config{Network: "web", DataDir: h.Controller.dataDir}, model.Addressing{})
	if err := errors.Join(err, loose.ReleaseSubnets(ctx), loose.ReleaseSubnets(ctx)); err != nil {
		t.Fatal(err)
	}
	if got := h.book(); got != "" {
		t.Errorf("left in the book: %s", got)
	}
}

// Many at once, each with a Controller of its own: networks of their own get
// subnets of their own, and all users of one network get the same.
func TestAutoSubnetsAtOnce(t *testing.T) {
	h := newAutoHost(t)
	ctx := context.Background()
	const many = 8
	errc := make(chan error, many)
	for i := range many {
		go func() { // not isolated: these share the test process's namespace
			c, err := New(WithStateDir(filepath.Join(h.dir, "state")), WithDataDir(h.Controller.dataDir), WithAddressPools(h.poolsFile))
			if err != nil {
				errc <- err
				return
			}
			defer c.Close()
			_, err = c.NewNetwork(ctx, "bridge", fmt.Sprint("own", i), auto())
			shared, defErr := c.DefineNetwork("bridge", "shared", auto())
			if err = errors.Join(err, defErr); err == nil {
				err = shared.chooseSubnets(ctx)
			}
			errc <- err
		}()
	}
	for range many {
		if err := <-errc; err != nil {
			t.Error(err)
		}
	}
	list, err := (&subnets.Book{DataDir: h.Controller.dataDir}).List()
	if err != nil || len(list) != many+1 {
		t.Errorf("the book says %v, %v, want %d networks", list, err, many+1)
	}
	for i := 1; i < len(list); i++ {
		if list[i-1].Subnet.Overlaps(list[i].Subnet) {
			t.Errorf("%v and %v", list[i-1], list[i])
		}
	}
	done := make(chan error)
	go func() {
		c, err := New(WithStateDir(filepath.Join(h.dir, "state")), WithDataDir(h.Controller.dataDir))
		if err == nil {
			defer c.Close()
			err = c.WalkNetworks(ctx, func(n *Network) bool { errc <- n.Delete(ctx); return true })
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for range many {
		if err := <-errc; err != nil {
			t.Error(err)
		}
	}
}

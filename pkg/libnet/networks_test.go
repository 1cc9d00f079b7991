package libnet_test

import (
	"errors"
	"fmt"
	"github.com/libnet-cni/libnet/internal/lntest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/pkg/libnet"
)

func subnet(s string) libnet.NetworkOption { return libnet.WithSubnet(netip.MustParsePrefix(s)) }

func is(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// badKey is the key of a *ConfigError, else the error itself.
func badKey(err error) string {
	var bad *libnet.ConfigError
	if errors.As(err, &bad) {
		return bad.Key
	}
	return fmt.Sprint(err)
}

func TestDriversAreListedWithTheirScope(t *testing.T) {
	w := newWorld(t)
	got := map[string]libnet.DriverInfo{}
	for _, d := range w.Drivers() {
		got[d.Name] = d
	}
	wanted := []libnet.DriverInfo{
		{Name: "bridge", Scope: libnet.ScopeLocal, BuiltIn: true}, {Name: "overlay", Scope: libnet.ScopeGlobal, BuiltIn: true},
		{Name: "host", Scope: libnet.ScopeLocal, BuiltIn: true}, {Name: "null", Scope: libnet.ScopeLocal, BuiltIn: true},
		{Name: "macvlan", Scope: libnet.ScopeLocal}, {Name: "ptp", Scope: libnet.ScopeLocal},
	}
	page, err := os.ReadFile("../../docs/library.md")
	ok(t, err)
	for name, d := range got {
		if d.BuiltIn && !slices.ContainsFunc(wanted, func(w libnet.DriverInfo) bool { return w.Name == name }) {
			t.Errorf("the driver %s is new: write it down here, with its scope", name)
		}
		if d.BuiltIn && !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/library.md does not tell of the driver %s", name)
		}
	}
	for _, want := range wanted {
		if diff := cmp.Diff(want, got[want.Name]); diff != "" {
			t.Error(diff)
		}
	}
	if _, has := got["host-local"]; has {
		t.Error("host-local is no driver of networks")
	}
	var ipams []string
	for _, d := range w.IPAMDrivers() {
		ipams = append(ipams, d.Name)
	}
	if got := strings.Join(ipams, " "); !strings.HasPrefix(got, "ipam-ln null ") || !strings.Contains(got, "host-local") || strings.Contains(got, "macvlan") {
		t.Errorf("IPAM drivers: %s", got)
	}

	_, err = w.NewNetwork(t.Context(), "calico", "net")
	is(t, err, libnet.ErrUnknownDriver)
	for _, name := range []string{"bridge", "overlay", "host", "null", "macvlan", "ptp"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not tell of %s", err, name)
		}
	}
	_, err = w.NewNetwork(t.Context(), "ptp", "net", libnet.WithIPAM("whereabouts", nil))
	is(t, err, libnet.ErrUnknownDriver)
	if !strings.Contains(err.Error(), "host-local") {
		t.Errorf("%v does not tell of host-local", err)
	}
}

// A program that is found by the name of a driver need not be a plugin.
func TestProgramThatIsNoPlugin(t *testing.T) {
	dir := t.TempDir()
	ok(t, lntest.WriteProgram(filepath.Join(dir, "wrong"), []byte("#!/bin/sh\necho hello\n")))
	w := newWorld(t, dir)
	if _, err := w.NewNetwork(t.Context(), "wrong", "net"); err == nil || !strings.Contains(err.Error(), "is no CNI plugin") {
		t.Errorf("got %v", err)
	}
	if left, err := w.Networks(t.Context()); len(left) > 0 || err != nil {
		t.Errorf("networks: %v, %v", left, err)
	}
}

// Every option that cannot be is refused by the key that is wrong, and nothing is
// made.
func TestOptionsThatCannotBe(t *testing.T) {
	w := newWorld(t)
	options := func(key string, v any) libnet.NetworkOption {
		return libnet.WithDriverOptions(map[string]any{key: v})
	}
	for _, c := range []struct {
		driver string
		opts   []libnet.NetworkOption
		key    string
	}{
		{"overlay", []libnet.NetworkOption{libnet.WithScope(libnet.ScopeLocal)}, "scope"},
		{"bridge", []libnet.NetworkOption{libnet.WithScope(libnet.ScopeGlobal)}, "scope"},
		{"host", []libnet.NetworkOption{libnet.WithScope(libnet.ScopeGlobal)}, "scope"},
		{"ptp", []libnet.NetworkOption{libnet.WithScope("swarm")}, "scope"},
		{"overlay", nil, "nodes"},
		{"bridge", []libnet.NetworkOption{libnet.WithNodes(libnet.Node{Address: netip.MustParseAddr("192.0.2.1")})}, "nodes"},
		{"bridge", []libnet.NetworkOption{options("master", "eth0")}, "master"},
		{"bridge", []libnet.NetworkOption{options("mtu", "large")}, "mtu"},
		{"bridge", []libnet.NetworkOption{options("mtu", 70000)}, "mtu"},
		{"bridge", []libnet.NetworkOption{subnet("127.0.0.0/8")}, "ipam.ranges[0][0].subnet"},
		{"bridge", []libnet.NetworkOption{libnet.WithAutoSubnet("any")}, "ipam.subnet"},
		{"bridge", []libnet.NetworkOption{libnet.WithInternal(), libnet.WithMasquerade(true)}, "internal"},
		{"bridge", []libnet.NetworkOption{subnet("10.1.0.0/24"), libnet.WithIPAM("null", nil)}, "ipam.type"},
		{"overlay", []libnet.NetworkOption{subnet("10.1.0.0/24"), libnet.WithIPAM("host-local", nil)}, "ipam.type"},
		{"host", []libnet.NetworkOption{options("mtu", 1400)}, "mtu"},
		{"null", []libnet.NetworkOption{subnet("10.1.0.0/24")}, "ipam.type"},
		{"ptp", []libnet.NetworkOption{options("type", "bridge")}, "type"},
		{"ptp", []libnet.NetworkOption{libnet.WithICC(false)}, "icc"},
		{"ptp", []libnet.NetworkOption{libnet.WithGatewayMode(libnet.GatewayNAT)}, "gatewayMode"},
		{"ptp", []libnet.NetworkOption{subnet("10.1.0.0/24"), libnet.WithIPAM("null", nil)}, "ipam.type"},
	} {
		_, err := w.NewNetwork(t.Context(), c.driver, "net", c.opts...)
		if got := badKey(err); got != c.key {
			t.Errorf("%s %s: got %v", c.driver, c.key, err)
		}
	}
	if left, err := w.Networks(t.Context()); len(left) > 0 || err != nil {
		t.Errorf("networks: %v, %v", left, err)
	}
}

func TestOrderOfOptionsDoesNotMatter(t *testing.T) {
	w := newWorld(t)
	opts := []libnet.NetworkOption{
		libnet.WithInternal(), libnet.WithICC(false), libnet.WithHairpin(false), subnet("10.50.0.0/24"),
		libnet.WithDriverOptions(map[string]any{"mtu": 1400}), libnet.WithDriverOptions(map[string]any{"bridge": "order0"}),
		libnet.WithLabels(map[string]string{"a": "1"}), libnet.WithLabels(map[string]string{"b": "2"}),
	}
	var first libnet.Config
	for i := range opts {
		turned := append(opts[i:len(opts):len(opts)], opts[:i]...)
		n, err := w.NewNetwork(t.Context(), "bridge", "net", turned...)
		ok(t, err)
		if i == 0 {
			first = n.Config()
		}
		if diff := cmp.Diff(first, n.Config()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string]string{"a": "1", "b": "2"}, n.Labels()); diff != "" {
			t.Error(diff)
		}
		ok(t, n.Delete(t.Context()))
	}
	want := libnet.Config{Bridge: "order0", MTU: 1400, Internal: true}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Error(diff)
	}
}

// The record of a network has the settings that it was made of, for every driver.
func TestNetworksAreFound(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	defer addUplink("found0")()
	labels := libnet.WithLabels(map[string]string{"team": "blue"})
	master := libnet.WithDriverOptions(map[string]any{"master": "found0"})
	mtu := libnet.WithDriverOptions(map[string]any{"mtu": float64(1400)})
	var ids []string
	for _, c := range []struct {
		driver, name, subnet string
		option               libnet.NetworkOption
	}{{"bridge", "a", "10.51.0.0/24", mtu}, {"macvlan", "b", "10.51.1.0/24", master}} {
		made, err := w.NewNetwork(ctx, c.driver, c.name, subnet(c.subnet), labels, c.option)
		ok(t, err)
		for _, driver := range []string{"bridge", "macvlan", "ptp"} {
			_, err = w.NewNetwork(ctx, driver, c.name, subnet("10.52.0.0/24"))
			is(t, err, libnet.ErrExists)
		}
		found, err := w.NetworkByID(ctx, made.ID())
		ok(t, err)
		ids = append(ids, made.ID())
		got := fmt.Sprintln(found.Name(), found.Driver(), found.Scope(), found.Labels(), found.Subnets(), found.ID() == made.ID())
		if want := fmt.Sprintln(c.name, c.driver, "local", map[string]string{"team": "blue"}, "["+c.subnet+"]", true); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if diff := cmp.Diff(made.DriverOptions(), found.DriverOptions()); diff != "" || len(found.DriverOptions()) != 1 {
			t.Errorf("driver options %v: %s", found.DriverOptions(), diff)
		}
		ok(t, found.Status(ctx))
	}
	if ids[0] == ids[1] {
		t.Error("two networks have one ID")
	}
	var walked []string
	ok(t, w.WalkNetworks(ctx, func(n *libnet.Network) bool {
		walked = append(walked, n.Name())
		return false
	}))
	if diff := cmp.Diff([]string{"a"}, walked); diff != "" {
		t.Error(diff)
	}
	_, err := w.NetworkByID(ctx, "0")
	is(t, err, libnet.ErrNotFound)
	_, err = w.Network(ctx, "c")
	is(t, err, libnet.ErrNotFound)
	for _, name := range []string{"a", "b"} {
		n, err := w.Network(ctx, name)
		ok(t, err, n.Delete(ctx))
	}
}

// An overlay network is one on every host: this host takes its block of the subnet.
func TestOverlay(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	remove := addUplink("under0")
	defer remove()
	link, err := netlink.LinkByName("under0")
	ok(t, err)
	addr, err := netlink.ParseAddr("192.0.2.2/24")
	ok(t, err, netlink.AddrAdd(link, addr))
	nodes := libnet.WithNodes(libnet.Node{Address: netip.MustParseAddr("192.0.2.1")}, libnet.Node{Address: netip.MustParseAddr("192.0.2.2")})
	n, err := w.NewNetwork(ctx, "overlay", "net", nodes, subnet("10.61.0.0/16"), libnet.WithScope(libnet.ScopeGlobal),
		libnet.WithDriverOptions(map[string]any{"vni": 61, "mtu": 1400}))
	ok(t, err)
	e, err := n.Attach(ctx, w.sandbox(t, "box"))
	ok(t, err, e.Verify(ctx), n.Status(ctx))
	found, err := w.Network(ctx, "net")
	ok(t, err)
	got := fmt.Sprintln(found.Driver(), found.Scope(), found.Subnets(), found.Config().MTU, e.Addresses()[0].Prefix)
	if want := "overlay global [10.61.1.0/24] 1400 10.61.1.2/24\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	ok(t, w.DestroySandbox(ctx, "box"), e.Delete(ctx), n.Delete(ctx))
}

// A record without labels, as an earlier release wrote it, loads.
func TestRecordOfAnEarlierRelease(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.state, "networks", "old")
	record := `{"Name":"old","Driver":"bridge","Bridge":"ln-old","Fingerprint":"1","Config":{"Bridge":"ln-old","Gateway":true,"DefaultGateway":true,"Kept":true}}`
	ok(t, os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "network.json"), []byte(record), 0o600))
	n, err := w.Network(t.Context(), "old")
	ok(t, err)
	if n.Labels() != nil || n.DriverOptions() != nil || n.Config().Bridge != "ln-old" || len(n.ID()) != 32 {
		t.Errorf("got %v %v %v %s", n.Labels(), n.DriverOptions(), n.Config(), n.ID())
	}
	ok(t, n.Delete(t.Context()))
}

package libnet_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/pkg/libnet"
)

// The driver host takes sandboxes in the host's namespace, null all others. There is
// one network of each, and it stays.
func TestHostAndNull(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for _, driver := range []string{"host", "null"} {
		n, err := w.NewNetwork(ctx, driver, driver+"1")
		ok(t, err)
		_, err = w.NewNetwork(ctx, driver, driver+"2")
		is(t, err, libnet.ErrExists)
		is(t, n.Delete(ctx), libnet.ErrForbidden)
	}
	own, err := w.NewSandbox(ctx, "own")
	ok(t, err)
	onHost, err := w.NewSandbox(ctx, "onhost", libnet.WithHostNetns())
	ok(t, err)
	alsoOnHost, err := w.NewSandbox(ctx, "alsoonhost", libnet.WithHostNetns())
	ok(t, err)
	before := hostLinks(t)
	for driver, sb := range map[string]struct{ right, wrong *libnet.Sandbox }{"host": {onHost, own}, "null": {own, onHost}} {
		n, err := w.Network(ctx, driver+"1")
		ok(t, err)
		if _, err := n.Attach(ctx, sb.wrong); badKey(err) != "sandbox" {
			t.Errorf("%s: got %v", driver, err)
		}
		if _, err := n.CreateEndpoint(ctx, "mac", libnet.WithPorts(libnet.PortMapping{HostPort: 1, ContainerPort: 1})); badKey(err) != "portMappings" {
			t.Errorf("%s: got %v", driver, err)
		}
		e, err := n.Attach(ctx, sb.right)
		ok(t, err, e.Verify(ctx))
		again, err := n.Attach(ctx, sb.right)
		ok(t, err)
		in, err := again.Sandbox(ctx)
		ok(t, err)
		if in.ContainerID() != sb.right.ContainerID() || e.IfName() != "" || e.Addresses() != nil {
			t.Errorf("%s: in %s, %q %v", driver, in.ContainerID(), e.IfName(), e.Addresses())
		}
	}
	if others, err := alsoOnHost.Endpoints(ctx); len(others) > 0 || err != nil {
		t.Errorf("endpoints of another container are in this one: %v, %v", others, err)
	}
	if got := hostLinks(t) + fmt.Sprint(linksIn(t, own.Path())); got != before+"[]" {
		t.Errorf("links: %s", got)
	}
	bridge, err := w.NewNetwork(ctx, "bridge", "net", subnet("10.53.0.0/24"))
	ok(t, err)
	if _, err := bridge.Attach(ctx, onHost); badKey(err) != "sandbox" {
		t.Errorf("a bridge on the host's namespace: got %v", err)
	}
	ok(t, bridge.Delete(ctx), onHost.Delete(ctx), alsoOnHost.Delete(ctx), own.Delete(ctx))
}

// A plugin gives what was asked, or the attachment is an error and undone.
func TestPluginEndpoints(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	defer addUplink("plug0")()
	mac, _ := net.ParseMAC("02:00:00:00:00:54")
	addr := netip.MustParseAddr("10.54.0.77")
	for _, ipam := range []string{"ipam-ln", "host-local"} {
		n, err := w.NewNetwork(ctx, "macvlan", "net", libnet.WithDriverOptions(map[string]any{"master": "plug0"}),
			subnet("10.54.0.0/24"), subnet("fd54::/64"), libnet.WithIPAM(ipam, nil))
		ok(t, err)
		sb := w.sandbox(t, "box")
		e, err := n.CreateEndpoint(ctx, "one", libnet.WithMAC(mac), libnet.WithAddresses(addr), libnet.WithIfName("lan7"))
		ok(t, err, e.Join(ctx, sb), e.Verify(ctx))
		is(t, e.Join(ctx, sb), libnet.ErrInUse)
		is(t, e.Delete(ctx), libnet.ErrInUse)
		is(t, n.Delete(ctx), libnet.ErrInUse)
		if got := fmt.Sprintln(e.IfName(), e.MAC(), e.Addresses()[0].Prefix, e.Addresses()[0].Gateway, len(e.Addresses()), len(e.Routes()), linksIn(t, sb.Path())); got != "lan7 02:00:00:00:00:54 10.54.0.77/24 10.54.0.1 2 2 [lan7]\n" {
			t.Errorf("%s: %s", ipam, got)
		}
		in, err := sb.Endpoints(ctx)
		ok(t, err)
		if len(in) != 1 || in[0].ID() != e.ID() {
			t.Errorf("%s: endpoints in the sandbox: %v", ipam, in)
		}
		ok(t, e.Leave(ctx))
		is(t, e.Leave(ctx), libnet.ErrNotJoined)
		ok(t, e.Delete(ctx), e.Delete(ctx), e.Leave(ctx), n.Delete(ctx), sb.Delete(ctx))
		if got := leases(t, w.data, "net"); len(got) > 0 {
			t.Errorf("%s: addresses are left: %q", ipam, got)
		}
	}

	ptp, err := w.NewNetwork(ctx, "ptp", "pairs", subnet("10.54.1.0/24"))
	ok(t, err)
	sb := w.sandbox(t, "box")
	before := hostLinks(t)
	if _, err := ptp.Attach(ctx, sb, libnet.WithMAC(mac)); badKey(err) != "mac" { // it takes none
		t.Errorf("got %v", err)
	}
	if left, err := ptp.Endpoints(ctx); len(left) > 0 || err != nil || hostLinks(t) != before || len(leases(t, w.data, "pairs")) > 0 {
		t.Errorf("left: %v, %v, links %s, addresses %v", left, err, hostLinks(t), leases(t, w.data, "pairs"))
	}
	ok(t, ptp.Delete(ctx), sb.Delete(ctx))
}

// Collect removes what belongs to containers that are gone, and leases without an owner.
func TestCollectByPlugin(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	n, err := w.NewNetwork(ctx, "ptp", "net", subnet("10.55.0.0/24"))
	ok(t, err)
	before := hostLinks(t)
	living, dead, listed := w.sandbox(t, "living"), w.sandbox(t, "dead"), w.sandbox(t, "listed")
	for _, sb := range []*libnet.Sandbox{living, dead, listed} {
		_, err := n.Attach(ctx, sb)
		ok(t, err)
	}
	ok(t, os.WriteFile(filepath.Join(w.data, "net", "10.55.0.99"), []byte("stray\r\neth0"), 0o644))
	ok(t, removeNetns(dead.Path()), n.Collect(ctx, nil))
	if got := names(t, n); got != "listed living" || strings.Contains(strings.Join(leases(t, w.data, "net"), " "), ".99") {
		t.Errorf("endpoints %q, addresses %q", got, leases(t, w.data, "net"))
	}
	ok(t, n.Collect(ctx, func(name, ifName string) bool { return name == "living" && ifName == "eth0" }))
	if got := names(t, n); got != "living" || len(leases(t, w.data, "net")) != 1 || len(linksIn(t, listed.Path())) != 0 || len(linksIn(t, living.Path())) != 1 {
		t.Errorf("endpoints %q, addresses %q", got, leases(t, w.data, "net"))
	}
	ok(t, n.Collect(ctx, func(string, string) bool { return false }), n.Delete(ctx))
	if got := hostLinks(t); got != before || len(leases(t, w.data, "net")) > 0 {
		t.Errorf("links %s, addresses %q", got, leases(t, w.data, "net"))
	}
}

// Of a bridge, too, Collect removes endpoints of containers that are gone and those
// that a killed Join left, and no others.
func TestCollectByBridge(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	n, err := w.NewNetwork(ctx, "bridge", "net", subnet("10.59.0.0/24"))
	ok(t, err)
	living, dead := w.sandbox(t, "living"), w.sandbox(t, "dead")
	for _, sb := range []*libnet.Sandbox{living, dead} {
		_, err := n.Attach(ctx, sb)
		ok(t, err)
	}
	for _, name := range []string{"waiting", "half"} {
		_, err := n.CreateEndpoint(ctx, name)
		ok(t, err)
	}
	// A Join that was killed had recorded where the endpoint goes.
	file := filepath.Join(w.state, "networks", "net", "endpoints", "half:eth0.json")
	record, err := os.ReadFile(file)
	ok(t, err)
	half := strings.Replace(string(record), `"Phase":"leased"`, `"Phase":"leased","Netns":"`+living.Path()+`"`, 1)
	if half == string(record) {
		t.Fatalf("no phase in %s", record)
	}
	ok(t, os.WriteFile(file, []byte(half), 0o600), removeNetns(dead.Path()), n.Collect(ctx, nil))
	if got := names(t, n); got != "living waiting" || len(leases(t, w.data, "net")) != 2 {
		t.Errorf("endpoints %q, addresses %q", got, leases(t, w.data, "net"))
	}
	ok(t, n.Collect(ctx, func(name, _ string) bool { return name == "waiting" }))
	if got := names(t, n); got != "waiting" || len(linksIn(t, living.Path())) != 0 {
		t.Errorf("endpoints %q, links %q", got, linksIn(t, living.Path()))
	}
	ok(t, n.Collect(ctx, func(string, string) bool { return false }), n.Delete(ctx))
}

func names(t *testing.T, n *libnet.Network) string {
	t.Helper()
	all, err := n.Endpoints(t.Context())
	ok(t, err)
	var s []string
	for _, e := range all {
		s = append(s, e.Name())
	}
	return strings.Join(s, " ")
}

// Handles know that their sandbox was deleted, by them or by another program.
func TestHandlesKnowThatTheirSandboxIsGone(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for driver, s := range map[string]string{"bridge": "10.56.0.0/24", "ptp": "10.56.1.0/24"} {
		n, err := w.NewNetwork(ctx, driver, "net", subnet(s))
		ok(t, err)
		sb := w.sandbox(t, "box")
		e, err := n.CreateEndpoint(ctx, "one")
		ok(t, err, e.Join(ctx, sb))
		other, err := libnet.New(w.opts...)
		ok(t, err, other.DestroySandbox(ctx, "box"), other.DestroySandbox(ctx, "box"), other.Close())
		_, inErr := e.Sandbox(ctx)
		for what, err := range map[string]error{"Leave": e.Leave(ctx), "Verify": e.Verify(ctx), "Sandbox": inErr} {
			if !errors.Is(err, libnet.ErrNotJoined) || !strings.Contains(err.Error(), `sandbox "box" was deleted`) {
				t.Errorf("%s %s: got %v", driver, what, err)
			}
		}
		for what, err := range map[string]error{"Join": e.Join(ctx, sb), "Attach": attachErr(t, n, sb)} {
			if !errors.Is(err, libnet.ErrNotFound) || !strings.Contains(err.Error(), `sandbox "box" was deleted`) {
				t.Errorf("%s %s: got %v", driver, what, err)
			}
		}
		again := w.sandbox(t, "box")
		ok(t, e.Join(ctx, again), e.Leave(ctx), e.Delete(ctx), again.Delete(ctx), sb.Delete(ctx), n.Delete(ctx))
	}
}

func attachErr(t *testing.T, n *libnet.Network, sb *libnet.Sandbox) error {
	_, err := n.Attach(t.Context(), sb)
	return err
}

func TestSandboxes(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	made := w.sandbox(t, "b")
	_, err := w.NewSandbox(ctx, "b")
	is(t, err, libnet.ErrExists)
	adopted, err := w.NewSandbox(ctx, "a", libnet.WithNetnsPath(made.Path()))
	ok(t, err)
	_, err = w.NewSandbox(ctx, "b", libnet.WithNetnsPath("/proc/self/ns/net"))
	is(t, err, libnet.ErrExists)
	_, err = w.NewSandbox(ctx, "a")
	is(t, err, libnet.ErrExists)
	var walked []string
	ok(t, w.WalkSandboxes(ctx, func(sb *libnet.Sandbox) bool {
		walked = append(walked, sb.ContainerID()+" "+filepath.Base(sb.Path()))
		return true
	}))
	if diff := cmp.Diff([]string{"a b", "b b"}, walked); diff != "" {
		t.Error(diff)
	}
	ok(t, adopted.Delete(ctx))
	if _, err := os.Stat(made.Path()); err != nil { // an adopted namespace stays
		t.Error(err)
	}
	_, err = w.Sandbox(ctx, "a")
	is(t, err, libnet.ErrNotFound)
	ok(t, removeNetns(made.Path()))
	gone, err := w.Sandbox(ctx, "b") // can still be listed and destroyed
	ok(t, err, gone.Delete(ctx), w.DestroySandbox(ctx, "b"))
	left, err := w.Sandboxes(ctx)
	if len(left) > 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Interfaces get the next name, by every driver and by many goroutines at once; those
// that are named keep their name.
func TestInterfacesAreNamedInOrder(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	sb := w.sandbox(t, "box")
	const each = 3
	var wg sync.WaitGroup
	var endpoints []*libnet.Endpoint
	var networks []*libnet.Network
	for i, driver := range []string{"bridge", "ptp", "ptp", "ptp"} {
		n, err := w.NewNetwork(ctx, driver, fmt.Sprint("net", i), subnet(fmt.Sprintf("10.57.%d.0/24", i)))
		ok(t, err)
		networks = append(networks, n)
		for j := range each {
			if j > 0 && driver == "ptp" {
				break // it takes one interface of a container
			}
			e, err := n.CreateEndpoint(ctx, fmt.Sprint("e", j))
			ok(t, err)
			endpoints = append(endpoints, e)
		}
	}
	named, err := networks[0].Attach(ctx, sb, libnet.WithIfName("eth1"))
	ok(t, err)
	for _, e := range endpoints[:each] { // at once by the bridge
		wg.Go(func() {
			if err := e.Join(ctx, sb); err != nil {
				t.Error(err)
			}
			_, _, _ = e.IfName(), e.MAC(), e.Addresses()
		})
	}
	wg.Wait()
	for _, e := range endpoints[each:] {
		ok(t, e.Join(ctx, sb))
	}
	seen := map[string]bool{named.IfName(): true}
	for _, e := range endpoints {
		ok(t, e.Verify(ctx))
		seen[e.IfName()] = true
	}
	for i := range 2*each + 1 {
		if !seen[fmt.Sprint("eth", i)] {
			t.Errorf("no eth%d: %v", i, seen)
		}
	}
	ok(t, endpoints[0].Leave(ctx))
	free := endpoints[0]
	ok(t, free.Join(ctx, sb), free.Verify(ctx), w.DestroySandbox(ctx, "box"))
	for _, n := range networks {
		all, err := n.Endpoints(ctx)
		ok(t, err)
		for _, e := range all {
			ok(t, e.Delete(ctx))
		}
		ok(t, n.Delete(ctx))
	}
}

// One handle may be used by many goroutines: of calls that exclude each other one
// succeeds, and what the handle tells is whole.
func TestOneHandleForManyGoroutines(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for driver, s := range map[string]string{"bridge": "10.58.0.0/24", "ptp": "10.58.1.0/24"} {
		n, err := w.NewNetwork(ctx, driver, "net", subnet(s))
		ok(t, err)
		sb := w.sandbox(t, "box")
		e, err := n.CreateEndpoint(ctx, "one")
		ok(t, err)
		for _, call := range []func() error{func() error { return e.Join(ctx, sb) }, func() error { return e.Leave(ctx) }} {
			var wg sync.WaitGroup
			var mu sync.Mutex
			done := 0
			for range 4 {
				wg.Go(func() {
					err := call()
					if err != nil && !errors.Is(err, libnet.ErrInUse) && !errors.Is(err, libnet.ErrNotJoined) {
						t.Error(err)
					}
					_, _, _, _ = e.IfName(), e.Addresses(), e.Ports(), e.Routes()
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						done++
					}
				})
			}
			wg.Wait()
			if done != 1 {
				t.Errorf("%s: %d calls succeeded", driver, done)
			}
		}
		ok(t, e.Delete(ctx), sb.Delete(ctx), n.Delete(ctx))
	}
}

// A CNI plugin gives the addresses of a bridge, and takes them back by a handle that
// another program found.
func TestBridgeWithAnIPAMPlugin(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	made, err := w.NewNetwork(ctx, "bridge", "net", subnet("10.63.0.0/24"), libnet.WithIPAM("host-local", nil), libnet.WithMasquerade(true))
	ok(t, err)
	first, err := made.CreateEndpoint(ctx, "first", libnet.WithAddresses(netip.MustParseAddr("10.63.0.63")))
	ok(t, err)
	sb := w.sandbox(t, "box")
	_, err = made.Attach(ctx, sb)
	ok(t, err, first.Join(ctx, sb), first.Verify(ctx))
	if diff := cmp.Diff([]string{"10.63.0.63", "10.63.0.64"}, leases(t, w.data, "net")); diff != "" {
		t.Error(diff)
	}
	other, err := libnet.New(w.opts...)
	ok(t, err)
	defer func() { _ = other.Close() }()
	n, err := other.Network(ctx, "net")
	ok(t, err)
	if got := fmt.Sprintln(n.Subnets(), names(t, n)); got != "[10.63.0.0/24] box first\n" {
		t.Errorf("got %s", got)
	}
	ok(t, n.Status(ctx), other.DestroySandbox(ctx, "box"))
	all, err := n.Endpoints(ctx)
	ok(t, err)
	for _, e := range all {
		ok(t, e.Delete(ctx))
	}
	if got := leases(t, w.data, "net"); len(got) > 0 {
		t.Errorf("addresses are left: %q", got)
	}
	ok(t, n.Delete(ctx))
}

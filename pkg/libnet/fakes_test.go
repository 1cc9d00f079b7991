package libnet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/state"
)

var errInjected = errors.New("injected failure")

// world is a host in memory: everything that a Controller composes. Its step
// number failAt fails; with after set, it does its work first, as a call whose
// answer is lost.
type world struct {
	steps, failAt int
	after         bool
	busy          bool              // another call owns every attachment
	dies          bool              // the step does not fail: the process ends there
	things        map[string]string // what exists, by kind and name
	records       map[string]state.Endpoint
	networks      map[string]state.Network
}

func newWorld() *world {
	return &world{things: map[string]string{}, records: map[string]state.Endpoint{}, networks: map[string]state.Network{}}
}

func (w *world) controller() *Controller {
	return &Controller{
		bridges: w, tunnels: w, links: fakeLinks{w}, nftables: fakeRules{w}, iptables: noRules{}, published: fakePorts{w}, networks: w, endpoints: w, nodeFiles: state.New("/nonexistent"),
		flush:     func(context.Context, conntrack.Filter) error { return w.step(func() {}) },
		sandboxes: state.New("/nonexistent"), boot: "boot1", close: func() {},
	}
}

// step counts a call and does do, unless the call is to fail.
func (w *world) step(do func()) error {
	w.steps++
	fail := w.steps == w.failAt
	if !fail || w.after {
		do()
	}
	if fail && w.dies {
		panic(errInjected)
	}
	if fail {
		return errInjected
	}
	return nil
}

// snapshot lists all there is.
func (w *world) snapshot() []string {
	all := slices.Collect(maps.Keys(w.things))
	for k := range w.records {
		all = append(all, "record "+k)
	}
	for k := range w.networks {
		all = append(all, "network "+k)
	}
	slices.Sort(all)
	return all
}

func (w *world) EnsureBridge(_ context.Context, b kernel.Bridge) (kernel.BridgeState, error) {
	_, had := w.things["bridge "+b.Name]
	err := w.step(func() { w.things["bridge "+b.Name] = b.Alias })
	if err != nil && !had {
		delete(w.things, "bridge "+b.Name) // the real one undoes what it made
	}
	return kernel.BridgeState{MTU: 1500, Created: !had}, err
}

func (w *world) VerifyBridge(_ context.Context, b kernel.Bridge) error {
	if _, ok := w.things["bridge "+b.Name]; !ok {
		return kernel.ErrNotFound
	}
	return nil
}

func (w *world) RemoveBridge(_ context.Context, name, _ string) error {
	return w.step(func() { delete(w.things, "bridge "+name) })
}

func (w *world) DropAddrs(context.Context, string, string, []netip.Prefix, []netip.Prefix) ([]netip.Prefix, error) {
	return nil, nil
}

func (w *world) Forward(context.Context, bool, bool) error { return w.step(func() {}) }

func (w *world) Forwarding() (v4, v6 bool, err error) { return true, true, nil }

func (w *world) UplinkMTU() (int, error) { return 1400, nil }

type fakeLinks struct{ *world }

func (w fakeLinks) Attach(_ context.Context, l kernel.Link) (kernel.Attached, error) {
	err := w.step(func() { w.things["link "+l.HostName] = l.Owner })
	if err != nil {
		delete(w.things, "link "+l.HostName) // all or nothing
	}
	return kernel.Attached{MAC: l.MAC, HostMAC: l.MAC, MTU: 1500}, err
}

func (w fakeLinks) Verify(_ context.Context, l kernel.Link) error {
	if _, ok := w.things["link "+l.HostName]; !ok {
		return kernel.ErrNotFound
	}
	return nil
}

func (w fakeLinks) Plug(context.Context, kernel.Link) (bool, error) { return false, nil }

func (w fakeLinks) Strays(context.Context, string) ([]kernel.Owned, error) { return nil, nil }

func (w fakeLinks) SetDown(context.Context, kernel.Ref) error { return w.step(func() {}) }

func (w fakeLinks) Detach(_ context.Context, r kernel.Ref) error {
	return w.step(func() { delete(w.things, "link "+r.HostName) })
}

func (w fakeLinks) List(context.Context, string) ([]kernel.Owned, error) {
	var all []kernel.Owned
	for k, owner := range w.things {
		if _, err := fmt.Sscanf(k, "link %s", new(string)); err == nil {
			all = append(all, kernel.Owned{Owner: owner})
		}
	}
	return all, nil
}

type fakeRules struct{ *world }

func (w fakeRules) Apply(_ context.Context, n firewall.Network, e firewall.Endpoint) (bool, error) {
	had := maps.Clone(w.things)
	err := w.step(func() { w.things["rules "+e.Owner], w.things["rules "+n.Name] = "", "" })
	if err != nil && !w.after {
		w.things = had // one transaction
	}
	return false, err
}

func (w fakeRules) ApplyNetwork(context.Context, firewall.Network) error { return w.step(func() {}) }

func (w fakeRules) Used() bool { return true }

func (w fakeRules) CheckPorts(context.Context, firewall.Endpoint) error { return nil }

func (w fakeRules) Intact(context.Context, firewall.Network) error { return nil }

func (w fakeRules) Restore(context.Context) (bool, error) { return false, nil }

func (w fakeRules) Complete(context.Context) error { return nil }

func (w fakeRules) List(context.Context) ([]string, error) { return nil, nil }

func (w fakeRules) Verify(_ context.Context, _ firewall.Network, e firewall.Endpoint) error {
	if _, ok := w.things["rules "+e.Owner]; !ok {
		return firewall.ErrMissing
	}
	return nil
}

func (w fakeRules) Remove(_ context.Context, e firewall.Endpoint) error {
	return w.step(func() { delete(w.things, "rules "+e.Owner) })
}

func (w fakeRules) RemoveNetwork(_ context.Context, n firewall.Network) error {
	return w.step(func() { delete(w.things, "rules "+n.Name) })
}

func (w fakeRules) RemoveLast(ctx context.Context, n firewall.Network, e firewall.Endpoint) error {
	return errors.Join(w.Remove(ctx, e), w.RemoveNetwork(ctx, n))
}

func (w fakeRules) Available() error { return nil }

// noRules is a backend that the kernel does not have.
type noRules struct{ rules }

func (noRules) Used() bool { return false }

func (noRules) Available() error { return firewall.ErrUnsupported }

// fakePorts has one free port.
type fakePorts struct{ *world }

func (fakePorts) EphemeralPorts() (uint16, uint16, func(uint16) bool, error) {
	return 40000, 40000, func(uint16) bool { return false }, nil
}

func (fakePorts) PortInUse(string, netip.Addr, uint16) bool { return false }

func (fakePorts) DeviceTo(netip.Addr) (string, error) { return "br1", nil }

func (w fakePorts) SetRouteLocalnet(dev string, on bool) (bool, error) {
	return true, w.step(func() {
		if delete(w.things, "route_localnet "+dev); on {
			w.things["route_localnet "+dev] = ""
		}
	})
}

func recordKey(network, id, ifName string) string { return network + "/" + id + "/" + ifName }

func (w *world) CreateEndpoint(e state.Endpoint) error {
	k := recordKey(e.Network, e.ContainerID, e.IfName)
	if _, ok := w.records[k]; ok {
		return state.ErrExists
	}
	if err := w.step(func() { w.records[k] = e }); err != nil {
		delete(w.records, k) // nothing half written
		return err
	}
	return nil
}

func (w *world) CreateShared(_ context.Context, e state.Endpoint) error { return w.CreateEndpoint(e) }

func (w *world) Own(context.Context, string, string, string, state.Creation) (func(), error) {
	return func() {}, nil
}

func (w *world) TryOwn(string, string, string) (func(), bool, error) {
	return func() {}, !w.busy, nil
}

func (w *world) Alone(_ context.Context, _ string, but state.Endpoint, fn func() error) error {
	for _, rec := range w.records {
		if rec.ContainerID != but.ContainerID {
			return nil
		}
	}
	return fn()
}

func (w *world) HasReady(string) (bool, error) { return len(w.records) > 0, nil }

func (w *world) HasEndpoint(_ string, but state.Endpoint) (bool, error) {
	has := true
	err := w.Alone(context.Background(), "", but, func() error { has = false; return nil })
	return has, err
}

func (w *world) EndpointNetworks() ([]string, error) { return []string{"net1"}, nil }

func (w *world) SaveEndpoint(e state.Endpoint) error {
	return w.step(func() { w.records[recordKey(e.Network, e.ContainerID, e.IfName)] = e })
}

func (w *world) LoadEndpoint(network, id, ifName string) (state.Endpoint, error) {
	e, ok := w.records[recordKey(network, id, ifName)]
	if !ok {
		return e, state.ErrNotFound
	}
	return e, nil
}

func (w *world) DeleteEndpoint(network, id, ifName string) error {
	return w.step(func() { delete(w.records, recordKey(network, id, ifName)) })
}

func (w *world) Endpoints(string) ([]state.Endpoint, error) {
	return slices.Collect(maps.Values(w.records)), nil
}

func (w *world) CreateNetwork(n state.Network) error {
	if _, ok := w.networks[n.Name]; ok {
		return state.ErrExists
	}
	return w.step(func() { w.networks[n.Name] = n })
}

func (w *world) SaveNetwork(n state.Network) error {
	return w.step(func() { w.networks[n.Name] = n })
}

func (w *world) LoadNetwork(name string) (state.Network, error) {
	n, ok := w.networks[name]
	if !ok {
		return n, state.ErrNotFound
	}
	return n, nil
}

func (w *world) HasNetwork(name, fingerprint string) bool {
	n, ok := w.networks[name]
	return ok && n.Fingerprint == fingerprint
}

func (w *world) DeleteNetwork(name string) error {
	return w.step(func() { delete(w.networks, name) })
}

func (w *world) Networks() ([]state.Network, error) {
	return slices.Collect(maps.Values(w.networks)), nil
}

// fakeIPAM gives one address and remembers who has it.
type fakeIPAM struct{ w *world }

func (i fakeIPAM) Type() string { return "fake" }

func (i fakeIPAM) Apply(_ context.Context, c Claim) (Addressing, error) {
	err := i.w.step(func() { i.w.things["lease "+c.ID.String()] = "10.1.0.2" })
	return Addressing{Addresses: []Address{{Prefix: netip.MustParsePrefix("10.1.0.2/24")}}}, err
}

func (i fakeIPAM) Verify(_ context.Context, id ID, _ []netip.Addr) error {
	if _, ok := i.w.things["lease "+id.String()]; !ok {
		return errors.New("no lease")
	}
	return nil
}

func (i fakeIPAM) Remove(_ context.Context, id ID) error {
	return i.w.step(func() { delete(i.w.things, "lease "+id.String()) })
}

func (i fakeIPAM) Collect(_ context.Context, keep func(Holder) bool) error {
	return i.w.step(func() {})
}

func (i fakeIPAM) Status(context.Context) error { return nil }

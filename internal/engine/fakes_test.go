package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/firewall/either"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/policy"
	"github.com/libnet-cni/libnet/internal/state"
)

var errInjected = errors.New("injected failure")

// world is a host in memory: everything that a Controller composes. Its step
// number failAt fails; with after set, it does its work first, as a call whose
// answer is lost. Its locks are those of actors, see actors_test.go.
type world struct {
	steps, failAt int
	after         bool
	busy          bool              // another call owns every attachment
	dies          bool              // the step does not fail: the process ends there
	things        map[string]string // what exists, by kind and name
	records       map[string]state.Endpoint
	networks      map[string]state.Network
	waits         map[string]state.Standby
	index         map[string]map[string]state.Guard // of bridges, by file name
	guards        map[string]firewall.Network       // what closes a bridge now
	bridgeOf      map[string]string                 // of links
	locks         locks
	stage         *stage                      // nil: one actor alone
	asked         map[string]firewall.Network // what the endpoint of a link was promised, by owner
	open          []string                    // moments in which an endpoint was less closed than promised
}

func newWorld() *world {
	return &world{
		things: map[string]string{}, records: map[string]state.Endpoint{}, networks: map[string]state.Network{}, waits: map[string]state.Standby{},
		index: map[string]map[string]state.Guard{}, guards: map[string]firewall.Network{}, bridgeOf: map[string]string{},
		locks: locks{}, asked: map[string]firewall.Network{},
	}
}

func (w *world) controller() *Controller {
	return &Controller{
		bridges: w, tunnels: w, many: manyHosts{}, basis: w, links: fakeLinks{w}, rules: either.Backends{NFTables: fakeRules{w}, IPTables: noRules{}}, published: fakePorts{w}, networks: w, endpoints: w, guards: fakeGuards{w}, nodeFiles: state.New("/run/fakes"), guests: state.New("/run/fakes"), standby: w,
		flush:     func(context.Context, conntrack.Filter) error { return w.step(func() {}) },
		sandboxes: state.New("/run/fakes"), boot: "boot1", names: fakeNames{world: w}.kernel(), close: func() {},
	}
}

// renewPorts is for a test that has put another part in place.
func (c *Controller) renewPorts() { c.makePorts = sync.Once{} }

// step counts a call and does do, unless the call is to fail.
func (w *world) step(do func()) error {
	if w.stage != nil {
		w.stage.between()
	}
	w.steps++
	defer w.watch()
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
	for bridge, g := range w.guards {
		all = append(all, "guard "+bridge+" "+policy.ID(g))
	}
	for bridge, files := range w.index {
		for file := range files {
			all = append(all, "index "+bridge+" "+file)
		}
	}
	for k := range w.waits {
		all = append(all, "standby "+k)
	}
	slices.Sort(all)
	return all
}

// watch notes a link whose bridge is less closed than its endpoint was promised.
func (w *world) watch() {
	for host, bridge := range w.bridgeOf {
		owner := w.things["link "+host]
		want, promised := w.asked[owner]
		got := policy.Join(want, w.guards[bridge])
		if promised && policy.ID(policy.Of(got)) != policy.ID(policy.Of(w.guards[bridge])) {
			w.open = append(w.open, fmt.Sprintf("%s on %s: guard %+v, promised %+v", owner, bridge, w.guards[bridge], want))
		}
	}
}

func (w *world) EnsureBridge(_ context.Context, b link.Bridge) (link.BridgeState, error) {
	_, had := w.things["bridge "+b.Name]
	err := w.step(func() { w.things["bridge "+b.Name] = b.Alias })
	if err != nil && !had {
		delete(w.things, "bridge "+b.Name) // the real one undoes what it made
	}
	return link.BridgeState{MTU: 1500, Created: !had}, err
}

func (w *world) VerifyBridge(_ context.Context, b link.Bridge) error {
	if _, ok := w.things["bridge "+b.Name]; !ok {
		return netlink.ErrNotFound
	}
	return nil
}

func (w *world) RemoveBridge(_ context.Context, name, _ string) error {
	used := false
	err := w.step(func() {
		if used = slices.Contains(slices.Collect(maps.Values(w.bridgeOf)), name); !used {
			delete(w.things, "bridge "+name)
		}
	})
	if used {
		return link.ErrInUse
	}
	return err
}

func (w *world) Bridges(context.Context, string) ([]link.Owned, error) { return nil, nil }

func (w *world) Orphans() ([]string, error) { return nil, nil }

func (w *world) Recorded(string) bool { return true }

func (w *world) ForgetNeighbours(context.Context, string) error { return w.step(func() {}) }

func (w *world) RetireGateways(context.Context, link.Bridge) error { return nil }

func (w *world) DropAddrs(context.Context, string, string, []netip.Prefix, []netip.Prefix) ([]netip.Prefix, error) {
	return nil, nil
}

func (w *world) CanSetUp(link.Bridge) error { return nil }

func (w *world) Forward(context.Context, bool, bool) error { return w.step(func() {}) }

func (w *world) Forwarding() (v4, v6 bool, err error) { return true, true, nil }

func (w *world) UplinkMTU() (int, error) { return 1400, nil }

type fakeLinks struct{ *world }

func (w fakeLinks) Attach(_ context.Context, l link.Link) (link.Attached, error) {
	bridge := true
	err := w.step(func() {
		if _, bridge = w.things["bridge "+l.Bridge]; bridge {
			w.things["link "+l.HostName], w.bridgeOf[l.HostName] = l.Owner, l.Bridge
		}
	})
	if err == nil && !bridge {
		err = netlink.ErrNotFound
	}
	if err != nil { // all or nothing
		delete(w.things, "link "+l.HostName)
		delete(w.bridgeOf, l.HostName)
	}
	return link.Attached{MAC: l.MAC, HostMAC: l.MAC, MTU: 1500}, err
}

func (w fakeLinks) Verify(_ context.Context, l link.Link) error {
	if _, ok := w.things["link "+l.HostName]; !ok {
		return netlink.ErrNotFound
	}
	return nil
}

func (w fakeLinks) Settle(context.Context, link.Link) error       { return w.step(func() {}) }
func (w fakeLinks) Plug(context.Context, link.Link) (bool, error) { return false, nil }

func (w fakeLinks) Strays(context.Context, string) ([]link.Owned, error) { return nil, nil }

func (w fakeLinks) SetDown(context.Context, link.Ref) error { return w.step(func() {}) }

func (w fakeLinks) SetGoing(context.Context, link.Ref) error { return w.step(func() {}) }

func (w fakeLinks) Detach(_ context.Context, r link.Ref) error {
	return w.step(func() {
		delete(w.things, "link "+r.HostName)
		delete(w.bridgeOf, r.HostName)
	})
}

func (w fakeLinks) DetachAll(_ context.Context, refs []link.Ref) error {
	return w.step(func() {
		for _, r := range refs {
			delete(w.things, "link "+r.HostName)
			delete(w.bridgeOf, r.HostName)
		}
	})
}

func (w fakeLinks) List(context.Context, string) ([]link.Owned, error) {
	var all []link.Owned
	for k, owner := range w.things {
		var name string
		if _, err := fmt.Sscanf(k, "link %s", &name); err == nil {
			all = append(all, link.Owned{Owner: owner, Name: name, Master: w.bridgeOf[name]})
		}
	}
	return all, nil
}

type fakeRules struct{ *world }

func (w fakeRules) Apply(_ context.Context, n firewall.Network, e firewall.Endpoint) (bool, error) {
	things, guards := maps.Clone(w.things), maps.Clone(w.guards)
	err := w.step(func() {
		if e.Owner != "" {
			w.things["rules "+e.Owner] = ""
		}
		w.guards[n.Bridge] = guardOf(n, w.guards[n.Bridge])
	})
	if err != nil && !w.after { // one transaction
		w.things, w.guards = things, guards
	}
	return false, err
}

// guardOf is what is in place for a bridge when n has been applied.
func guardOf(n, before firewall.Network) firewall.Network {
	if n.Exact == firewall.AddOnly {
		n = policy.Join(n, before)
	}
	return policy.Of(n)
}

func (w fakeRules) ApplyNetwork(_ context.Context, n firewall.Network) error {
	n.Exact = firewall.ExactNetwork
	return w.step(func() { w.guards[n.Bridge] = guardOf(n, firewall.Network{}) })
}

func (w fakeRules) Used() bool { return true }

func (w fakeRules) CheckPorts(context.Context, firewall.Endpoint) error { return nil }

func (w fakeRules) Intact(context.Context, firewall.Network) error { return nil }

func (w fakeRules) Restore(context.Context) (bool, error) { return false, nil }

func (w fakeRules) Complete(context.Context) error { return nil }

func (w fakeRules) List(context.Context) ([]string, error) { return nil, nil }

func (w fakeRules) Verify(_ context.Context, n firewall.Network, e firewall.Endpoint) error {
	if _, ok := w.things["rules "+e.Owner]; !ok {
		return fmt.Errorf("rules of %s: %w", e.Owner, firewall.ErrMissing)
	}
	if got := w.guards[n.Bridge]; policy.ID(policy.Of(n)) != policy.ID(got) {
		return fmt.Errorf("guard %+v, want %+v: %w", got, policy.Of(n), firewall.ErrConflict)
	}
	return nil
}

func (w fakeRules) Remove(_ context.Context, es ...firewall.Endpoint) error {
	return w.step(func() {
		for _, e := range es {
			delete(w.things, "rules "+e.Owner)
		}
	})
}

func (w fakeRules) RemoveNetwork(_ context.Context, n firewall.Network) error {
	return w.step(func() {
		if n.Guard != "" {
			delete(w.guards, n.Bridge)
		}
	})
}

func (w fakeRules) RemoveLast(ctx context.Context, _ firewall.Network, e firewall.Endpoint) error {
	return w.Remove(ctx, e)
}

func (w fakeRules) Available() error { return nil }

// noRules is a backend that the kernel does not have.
type noRules struct{ either.Rules }

func (noRules) Used() bool { return false }

func (noRules) Available() error { return firewall.ErrUnsupported }

// fakePorts has one free port.
type fakePorts struct{ *world }

func (fakePorts) EphemeralPorts() (uint16, uint16, func(uint16) bool, error) {
	return 40000, 40000, func(uint16) bool { return false }, nil
}

func (fakePorts) PortInUse(string, netip.Addr, uint16) bool { return false }

func (fakePorts) DeviceTo(netip.Addr) (string, error) { return "br1", nil }

func (w fakePorts) SetHairpin(string, string) error { return w.step(func() {}) }
func (w fakePorts) RouteLocalnet(dev string) (bool, error) {
	_, on := w.things["route_localnet "+dev]
	return on, nil
}

func (w fakePorts) SetRouteLocalnet(dev string, on bool) (bool, error) {
	return true, w.step(func() {
		if delete(w.things, "route_localnet "+dev); on {
			w.things["route_localnet "+dev] = ""
		}
	})
}

func (w *world) OwnPorts(context.Context, string) (func(), error) { return func() {}, nil }

func (w *world) NoteBridge(string, net.HardwareAddr) error { return nil }

func (w *world) GiveAddrs(addrs []netip.Addr, _ string, _ net.HardwareAddr) (state.Given, error) {
	return state.Given{Again: addrs}, nil
}

func (w *world) LoadStandby(id string) (state.Standby, error) {
	s := w.waits[id]
	s.ContainerID = id
	return s, nil
}

func (w *world) SaveStandby(s state.Standby) error {
	return w.step(func() {
		if delete(w.waits, s.ContainerID); len(s.Waiting) > 0 {
			w.waits[s.ContainerID] = s
		}
	})
}

func (w *world) Standbys() ([]string, error) { return slices.Collect(maps.Keys(w.waits)), nil }

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

func (w *world) Own(_ context.Context, network, id, ifName string, create state.Creation) (func(), error) {
	if _, has := w.networks[network]; !has && create == state.OnlyExisting && !w.recorded(network, func(state.Endpoint) bool { return true }) {
		return func() {}, nil
	}
	freeNetwork := w.locks.shared(w.stage, "network "+network)
	freeEndpoint := w.locks.exclusive(w.stage, "endpoint "+recordKey(network, id, ifName))
	return func() { freeEndpoint(); freeNetwork() }, nil
}

func (w *world) TryOwn(network, id, ifName string) (func(), bool, error) {
	free, ok := w.locks.tryExclusive(w.stage, "endpoint "+recordKey(network, id, ifName))
	if !ok || w.busy {
		return func() {}, false, nil
	}
	freeNetwork := w.locks.shared(w.stage, "network "+network)
	return func() { free(); freeNetwork() }, true, nil
}

func (w *world) Quiet(_ context.Context, _ string, fn func() error) error { return fn() }

func (w *world) Alone(_ context.Context, network string, fn func() error) error {
	free, ok := w.locks.tryExclusive(w.stage, "network "+network)
	if !ok || w.recorded(network, func(state.Endpoint) bool { return true }) {
		if ok {
			free()
		}
		return state.ErrInUse
	}
	defer free()
	return fn()
}

func (w *world) recorded(network string, is func(state.Endpoint) bool) bool {
	for _, rec := range w.records {
		if rec.Network == network && is(rec) {
			return true
		}
	}
	return false
}

func (w *world) HasReady(network string) (bool, error) {
	return w.recorded(network, func(e state.Endpoint) bool { return e.Phase == state.PhaseReady }), nil
}

func (w *world) HasEndpoint(network string, but state.Endpoint) (bool, error) {
	return w.recorded(network, func(e state.Endpoint) bool { return life.IDOf(e) != life.IDOf(but) }), nil
}

func (w *world) AnyEndpoint(network string, is func(state.Endpoint) bool) (bool, error) {
	return w.recorded(network, is), nil
}

func (w *world) EndpointNetworks() ([]string, error) {
	names := slices.Collect(maps.Keys(w.networks))
	for _, rec := range w.records {
		names = append(names, rec.Network)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

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

func (w *world) Endpoints(network string) ([]state.Endpoint, error) {
	var all []state.Endpoint
	for _, rec := range w.records {
		if rec.Network == network {
			all = append(all, rec)
		}
	}
	return all, nil
}

func (w *world) CreateNetwork(n state.Network) error {
	if _, ok := w.networks[n.Name]; ok {
		return state.ErrExists
	}
	return w.step(func() { w.networks[n.Name] = n })
}

func (w *world) SwapNetwork(old, n state.Network) (bool, error) {
	if !w.HasNetwork(n.Name, old.Fingerprint) {
		return false, nil
	}
	return true, w.SaveNetwork(n)
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
	return w.step(func() {
		if !w.recorded(name, func(state.Endpoint) bool { return true }) {
			delete(w.networks, name)
		}
	})
}

func (w *world) Networks() ([]state.Network, error) {
	return slices.Collect(maps.Values(w.networks)), nil
}

// fakeIPAM gives one address and remembers its holder.
type fakeIPAM struct {
	w    *world
	addr string // empty: 10.1.0.2
}

func (i fakeIPAM) Type() string { return "fake" }

func (i fakeIPAM) Apply(_ context.Context, c address.Claim) (model.Addressing, error) {
	err := i.w.step(func() { i.w.things["lease "+c.ID.String()] = "" })
	return model.Addressing{Addresses: []model.Address{{Prefix: netip.MustParsePrefix(cmp.Or(i.addr, "10.1.0.2") + "/24")}}}, err
}

func (i fakeIPAM) Verify(_ context.Context, id model.ID, _ []netip.Addr) error {
	if _, ok := i.w.things["lease "+id.String()]; !ok {
		return errors.New("no lease")
	}
	return nil
}

func (i fakeIPAM) Remove(_ context.Context, id model.ID) error {
	return i.w.step(func() { delete(i.w.things, "lease "+id.String()) })
}

func (i fakeIPAM) Collect(_ context.Context, keep func(life.Holder) bool) error {
	return i.w.step(func() {})
}

func (i fakeIPAM) Status(context.Context) error { return nil }

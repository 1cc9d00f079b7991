// Package engine is the order of the steps of ADD, CHECK, DEL, GC and STATUS, how they are
// taken back, and which attachment owns each thing made. Rooms below it give addresses,
// guard bridges, publish ports and plan; it calls them and none calls it.
//
// Nothing is cached between calls and there is no daemon: the truth is in the kernel, in
// the lease directory and in one small record per attachment. Every operation is all or
// nothing; what a killed process leaves is found by its owner's name and removed by the
// next Attach, Remove or Collect.
//
// Making networks needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN) and Linux 5.6
// or later; 5.7 to masquerade by nf_tables.
package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/fastpath"
	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/firewall/either"
	"github.com/libnet-cni/libnet/internal/firewall/iptables"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/guard"
	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/naming"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/report"
	"github.com/libnet-cni/libnet/internal/responder"
	"github.com/libnet-cni/libnet/internal/shortcut"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/tunnel"
	"github.com/libnet-cni/libnet/internal/unwind"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// home is the network namespace that a Controller works in.
type home interface {
	// Enter brings the calling goroutine's thread there, and leave back.
	Enter() (leave func() error, err error)
}

// The parts of a Controller. The real ones are kernel.Handle, nft.Firewall and state.Dir.
type (
	bridges interface {
		EnsureBridge(context.Context, link.Bridge) (link.BridgeState, error)
		VerifyBridge(context.Context, link.Bridge) error
		CanSetUp(link.Bridge) error
		RemoveBridge(ctx context.Context, name, alias string) error
		Bridges(ctx context.Context, prefix string) ([]link.Owned, error)
		RetireGateways(ctx context.Context, b link.Bridge) error
		DropAddrs(ctx context.Context, bridge, alias string, within, keep []netip.Prefix) ([]netip.Prefix, error)
		ForgetNeighbours(ctx context.Context, dev string) error
		Forward(ctx context.Context, v4, v6 bool) error
		Forwarding() (v4, v6 bool, err error)
		UplinkMTU() (int, error)
	}
	tunnels interface {
		EnsureTunnel(context.Context, tunnel.Tunnel) (created bool, err error)
		MendTunnel(context.Context, tunnel.Tunnel) (tunnel.Mended, error)
		VerifyTunnel(context.Context, tunnel.Tunnel) error
		RemoveTunnel(ctx context.Context, name, alias string) error
		LeadsTo(name, alias string, to []netip.Prefix) (index int, err error)
		RemoveDirect(ctx context.Context, nets []netip.Prefix) error
		PortUser(local netip.Addr, port uint16) (string, error)
		CanEncrypt(device string) error
		SecureState(name, socket string) (wireguard.State, error)
		ChangeSecure(name, socket string, c wireguard.Change) error
	}
	tunnelBasis interface {
		HasTunnel(name, alias string) (bool, error)
		PathMTU(local netip.Addr, peers []netip.Addr, dev string) (int, error)
	}
	links interface {
		Attach(context.Context, link.Link) (link.Attached, error)
		Verify(context.Context, link.Link) error
		Settle(context.Context, link.Link) error
		Plug(context.Context, link.Link) (plugged bool, err error)
		Strays(ctx context.Context, prefix string) ([]link.Owned, error)
		SetDown(context.Context, link.Ref) error
		SetGoing(context.Context, link.Ref) error
		Detach(context.Context, link.Ref) error
		DetachAll(context.Context, []link.Ref) error
		HostIndex(context.Context, link.Ref) (int, error)
		List(ctx context.Context, prefix string) ([]link.Owned, error)
	}
	networkRecords interface {
		CreateNetwork(state.Network) error
		SaveNetwork(state.Network) error
		SwapNetwork(old, n state.Network) (swapped bool, err error)
		LoadNetwork(name string) (state.Network, error)
		HasNetwork(name, fingerprint string) bool
		DeleteNetwork(name string) error
		Networks() ([]state.Network, error)
		Orphans() ([]string, error)
		Recorded(network string) bool
	}
	endpointRecords interface {
		CreateEndpoint(state.Endpoint) error
		Alone(ctx context.Context, network string, fn func() error) error
		Quiet(ctx context.Context, network string, fn func() error) error
		Own(ctx context.Context, network, containerID, ifName string, create state.Creation) (release func(), err error)
		TryOwn(network, containerID, ifName string) (release func(), owned bool, err error)
		SaveEndpoint(state.Endpoint) error
		LoadEndpoint(network, containerID, ifName string) (state.Endpoint, error)
		DeleteEndpoint(network, containerID, ifName string) error
		Endpoints(network string) ([]state.Endpoint, error)
		EndpointNetworks() ([]string, error)
		HasEndpoint(network string, but state.Endpoint) (bool, error)
		HasReady(network string) (bool, error)
		AnyEndpoint(network string, is func(state.Endpoint) bool) (bool, error)
	}
	guests interface {
		AddGuest(network, containerID, ifName string) error
		RemoveGuest(network, containerID, ifName string) error
		IsGuest(network, containerID, ifName string) bool
		Guests(containerID string) ([]state.Guest, error)
		HasHost(containerID string) (bool, error)
	}
	nodeFiles interface {
		SaveNodes(network string, data []byte) error
		LoadNodes(network string) ([]byte, error)
		HasNodes(network string) (bool, error)
		DeleteNodes(network string) error
		SaveSeen(network string, data []byte) error
		DeleteSeen(network string) error
		NodeFiles() ([]string, error)
	}
)

var (
	_ home            = (*kernel.Handle)(nil)
	_ bridges         = (*kernel.Handle)(nil)
	_ tunnels         = (*tunnel.Tunnels)(nil)
	_ tunnelBasis     = (*kernel.Handle)(nil)
	_ links           = (*kernel.Handle)(nil)
	_ publish.Host    = (*kernel.Handle)(nil)
	_ networkRecords  = (*state.Dir)(nil)
	_ endpointRecords = (*state.Dir)(nil)
	_ nodeFiles       = (*state.Dir)(nil)
	_ guests          = (*state.Dir)(nil)
	_ address.Finder  = (*kernel.Handle)(nil)
)

// Controller makes and finds networks on this host, in the network namespace
// of the thread that called New: whatever thread a call comes from, it works
// there. It keeps no state of its own and may be made anew for every operation.
//
// Many goroutines may use a Controller and its Networks at once. An Endpoint is
// for one goroutine at a time.
type Controller struct {
	home      home // nil: all threads are there
	bridges   bridges
	tunnels   tunnels // nil: without SpansHosts
	many      span    // of networks that span hosts; nil: without SpansHosts
	basis     tunnelBasis
	links     links
	rules     either.Backends
	published publish.Host
	finder    address.Finder
	flush     func(context.Context, conntrack.Filter) error
	networks  networkRecords
	endpoints endpointRecords
	guards    guard.Index
	nodeFiles nodeFiles
	guests    guests
	standby   publish.Standbys
	sandboxes *state.Dir
	names     *naming.Kernel
	services  *balancer.Services  // nil: none
	shortcuts *shortcut.Shortcuts // nil: none
	steps     *report.Steps       // nil: not measured

	boot      string
	stateDir  string
	dataDir   string
	netnsDir  string
	poolsFile string
	routes    func() ([]netip.Prefix, error) // of the host; nil: of the calling thread's namespace
	// occupants is as kernel.Handle has it; nil: every subnet is free.
	occupants  func(bridge, prefix string, subnet netip.Prefix) ([]host.Occupant, error)
	oneAtATime func(context.Context) (release func(), err error)
	close      func()

	makePorts sync.Once
	ports     *publish.Ports
}

// Option refines New.
type Option func(*options)

type options struct {
	stateDir, dataDir, netnsDir, poolsFile string
	one, endsSoon                          bool
	spansHosts                             func(*Controller, *kernel.Handle)
	steps                                  *report.Steps
}

// DefaultStateDir is where records are kept unless told otherwise.
const DefaultStateDir = state.DefaultPath

// RecordedLayers returns what WithLayers gave the network that is recorded in a directory, nil if
// that was nothing, and whether there is a record.
func RecordedLayers(stateDir, network string) (layers []byte, recorded bool, err error) {
	return state.New(stateDir).Layers(network)
}

// WithStateDir keeps the records in dir instead of /run/libnet. Programs that
// shall see each other's networks use the same one.
func WithStateDir(dir string) Option { return func(o *options) { o.stateDir = dir } }

// WithDataDir keeps the leases of WithSubnet networks in dir instead of
// /var/lib/cni/networks.
func WithDataDir(dir string) Option { return func(o *options) { o.dataDir = dir } }

// WithNetnsDir makes the namespaces of sandboxes in dir instead of
// DefaultNetnsDir.
func WithNetnsDir(dir string) Option { return func(o *options) { o.netnsDir = dir } }

// InOneNamespace promises that every thread of the process is in one network
// namespace as long as the Controller is used. It then does not look where it is
// called: a program that lives for one call, as a plugin, saves 0.2 ms.
func InOneNamespace() Option { return func(o *options) { o.one = true } }

// EndsSoon promises InOneNamespace, and that the process closes its streams and ends when
// its calls have returned. What the kernel takes long to finish, after all of it can be
// seen to be done, a child then waits for.
func EndsSoon() Option { return func(o *options) { o.one, o.endsSoon = true, true } }

// WithSteps has one call say when its steps begin; nil: it says nothing.
func WithSteps(steps *report.Steps) Option { return func(o *options) { o.steps = steps } }

// New returns a Controller. It opens a netlink socket and writes nothing.
func New(opts ...Option) (*Controller, error) {
	o := options{stateDir: state.DefaultPath, dataDir: address.DefaultDataDir, netnsDir: DefaultNetnsDir}
	for _, opt := range opts {
		opt(&o)
	}
	o.steps.At("open")
	boot, err := life.BootID()
	if err != nil {
		return nil, err
	}
	handle, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	dir, nft, connections := state.New(o.stateDir), nft.New(), conntrack.New(handle.Proc)
	c := &Controller{}
	services := balancer.New(dir, handle, servicePorts{c})
	*c = Controller{
		bridges: handle, basis: handle, links: handle, published: handle, finder: handle,
		flush: connections.Flush, rules: either.Backends{NFTables: nft, IPTables: iptables.New("")},
		networks: dir, endpoints: dir, guards: guard.IndexOf(dir), nodeFiles: dir, guests: dir, standby: dir, sandboxes: dir, services: services,
		steps: o.steps, boot: boot, stateDir: o.stateDir, dataDir: o.dataDir, netnsDir: o.netnsDir, poolsFile: o.poolsFile,
		shortcuts: &shortcut.Shortcuts{Path: fastpath.New(handle), Links: handle},
		names:     &naming.Kernel{Answers: responder.New(dir.Path(), handle), Records: dir, Agent: naming.AgentAnswers},
		routes:    handle.Prefixes, occupants: handle.Occupants, oneAtATime: dir.OneAtATime,
		close: func() { handle.Close(); _ = nft.Close(); _ = services.Close(); _ = connections.Close() },
	}
	if o.spansHosts != nil {
		o.spansHosts(c, handle)
	}
	if o.endsSoon {
		handle.EndsSoon()
	}
	if !o.one {
		c.home = handle
	}
	return c, nil
}

// Close closes the netlink sockets, after the last call has returned. Networks
// stay as they are.
func (c *Controller) Close() { c.close() }

// Enter brings the calling goroutine's thread into the Controller's namespace,
// and leave back. Every exported method that asks the kernel, or starts what
// does, begins with it; within each other these cost some 5 µs.
func (c *Controller) Enter() (leave func(*error), err error) {
	if c.home == nil {
		return func(*error) {}, nil
	}
	back, err := c.home.Enter()
	if err != nil {
		return nil, err
	}
	return func(err *error) {
		if failed := back(); failed != nil {
			*err = errors.Join(*err, failed)
		}
	}, nil
}

func (c *Controller) knownDriver(name string) error {
	if name == plan.DriverOverlay && c.tunnels == nil {
		return fmt.Errorf("%w %q: this program makes no networks that span hosts", model.ErrUnknownDriver, name)
	}
	if name != plan.DriverBridge && name != plan.DriverOverlay {
		return fmt.Errorf("%w %q: there are %q and %q", model.ErrUnknownDriver, name, plan.DriverBridge, plan.DriverOverlay)
	}
	return nil
}

// NewNetwork makes a network and its bridge. The errors: ErrUnknownDriver,
// ErrInvalidName, ErrNetworkExists, *ConfigError (also for a subnet that is in use
// on the host) and *ipamstore.ConfigError before anything is changed; with WithAutoSubnet ipamstore.ErrExhausted, too.
func (c *Controller) NewNetwork(ctx context.Context, driver, name string, opts ...NetworkOption) (_ *Network, err error) {
	leave, err := c.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	n, err := c.DefineNetwork(driver, name, opts...)
	if err != nil {
		return nil, err
	}
	n.kept = true
	var undo unwind.Stack
	defer undo.Rollback(&err)
	if err := n.chooseFirstSubnets(ctx, &undo); err != nil {
		return nil, err
	}
	rec, err := n.record()
	if err != nil {
		return nil, err
	}
	if err := c.networks.CreateNetwork(rec); errors.Is(err, state.ErrExists) {
		undo = nil // another process was faster: the subnets are its network's
		return nil, fmt.Errorf("%w: %q", model.ErrNetworkExists, name)
	} else if err != nil {
		return nil, err
	}
	undo.Push(func() error { return c.networks.DeleteNetwork(name) })
	release, err := n.claimSubnets(ctx, n.ownGateways())
	if err != nil {
		return nil, err
	}
	defer release()
	if _, err := n.own().ensureBridge(ctx, bridgeUse{addressing: n.ownGateways()}, &undo); err != nil {
		return nil, err
	}
	return n, nil
}

// DefineNetwork describes a network without making anything: its bridge comes
// with the first Attach. It is what a caller uses that brings its whole
// configuration each time, as CNI does. The errors are those of NewNetwork,
// but ErrNetworkExists.
func (c *Controller) DefineNetwork(driver, name string, opts ...NetworkOption) (*Network, error) {
	if err := errors.Join(c.knownDriver(driver), model.ValidateName("network name", name)); err != nil {
		return nil, err
	}
	spec := networkSpec{config: model.NetworkConfig{Gateway: true, DefaultGateway: true}}
	for _, o := range opts {
		o(&spec)
	}
	if spec.config.Bridge == "" {
		spec.config.Bridge = model.BridgeName(name)
	}
	if driver == plan.DriverOverlay {
		spec.completeTunnel(name)
	} else if spec.config.Tunnel.Used() {
		return nil, model.BadConfig("nodes", len(spec.config.Tunnel.Nodes), `needs the driver "overlay"`)
	}
	if err := spec.config.Validate(); err != nil {
		return nil, err
	}
	n := &Network{c: c, def: plan.Network{Name: name, Driver: driver, Config: spec.config}, notes: spec.notes, layers: spec.layers, hosts: spec.hosts}
	if err := n.setIPAM(spec); err != nil {
		return nil, err
	}
	if pool, ok := n.ipam.(*address.Pool); ok {
		if err := pool.Suits(n.def.Config); err != nil {
			return nil, err
		}
	}
	if n.ipam != nil && n.def.Config.InterfaceDown {
		return nil, model.BadConfig("disableContainerInterface", true, "cannot be together with ipam: an interface that is down has no addresses")
	}
	return n, nil
}

// Services are the services of this host.
func (c *Controller) Services() *balancer.Services { return c.services }

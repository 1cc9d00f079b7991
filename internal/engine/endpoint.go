package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/unwind"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// Endpoint is one attachment of a container to a network, for one goroutine at
// a time.
type Endpoint struct {
	n   *Network
	rec state.Endpoint

	// Join's findings: the ports that wait for another attachment of the container, that the
	// rules of the host were gone, and that the kernel's map of names was.
	standby   []firewall.PortMap
	restored  bool
	namesLost bool

	// auto: the network leaves it open what answers for names. Unanswered says why the kernel,
	// though there is no ln-agent, does not.
	auto       bool
	unanswered error

	slow   bool // it does not take the fast path, whatever the network says
	chosen bool // our pool has chosen the addresses just now, and the caller none of them
}

// EndpointOption refines CreateEndpoint and Attach.
type EndpointOption func(*endpointSpec)

type endpointSpec struct {
	ifName   string
	mac      net.HardwareAddr
	addrs    []netip.Addr
	workload string
	podUID   string
	runtime  string
	ports    []model.PortMapping
	priority int // of the gateway
	nextName bool
	names    *model.Names // nil: none
	slow     bool
	sandbox  *Sandbox // nil: not known yet
	guest    bool
}

func (s endpointSpec) netns() (path string, id life.NetnsID) {
	if s.sandbox == nil {
		return "", life.NetnsID{}
	}
	return s.sandbox.path, s.sandbox.netns
}

// WithIfName names the interface in the container; default "eth0".
func WithIfName(name string) EndpointOption {
	return func(s *endpointSpec) { s.ifName = name }
}

// WithMAC gives the container's interface this address; default: a random,
// locally administered one.
func WithMAC(mac net.HardwareAddr) EndpointOption {
	return func(s *endpointSpec) { s.mac = mac }
}

// WithAddresses asks for these addresses, one per range set at most.
func WithAddresses(addrs ...netip.Addr) EndpointOption {
	return func(s *endpointSpec) { s.addrs = append(s.addrs, addrs...) }
}

// WithWorkload names what the addresses may be kept for over restarts, as
// "namespace/pod"; see Claim.
func WithWorkload(name string) EndpointOption {
	return func(s *endpointSpec) { s.workload = name }
}

// WithPodUID tells a pod of Kubernetes from others of its name.
func WithPodUID(uid string) EndpointOption {
	return func(s *endpointSpec) { s.podUID = uid }
}

// WithNames has the network's other containers find it by name; nil: not.
func WithNames(names *model.Names) EndpointOption {
	return func(s *endpointSpec) { s.names = names }
}

// WithoutFastPath has the endpoint's packets take the usual way, as where another program limits
// its bandwidth on the host's end of its link.
func WithoutFastPath(slow bool) EndpointOption { return func(s *endpointSpec) { s.slow = slow } }

// WithRuntime names the program that the container belongs to, as
// "/usr/bin/containerd": of two that share a network neither shall collect what
// lives by the other.
func WithRuntime(name string) EndpointOption {
	return func(s *endpointSpec) { s.runtime = name }
}

// AsGuest has Attach make an attachment that the container's runtime does not know of: it
// goes with the last one that the runtime made, and no list of the runtime's has it
// collected before.
func AsGuest() EndpointOption { return func(s *endpointSpec) { s.guest = true } }

// WithGatewayPriority replaces NetworkConfig.GatewayPriority for one endpoint,
// for as long as the endpoint exists. Beyond 32 bits it is a *ConfigError.
func WithGatewayPriority(priority int) EndpointOption {
	return func(s *endpointSpec) { s.priority = priority }
}

func (n *Network) spec(opts []EndpointOption) endpointSpec {
	spec := endpointSpec{ifName: "eth0", priority: n.def.Config.GatewayPriority}
	for _, o := range opts {
		o(&spec)
	}
	if n.def.Config.IsInternal() {
		spec.ports = nil // as in Docker: nothing of an internal network is published
	}
	return spec
}

// CreateEndpoint reserves the endpoint's addresses; its interface comes with
// Join. The name stands for the container in leases and links, so it is unique
// in the network together with the interface name. The errors: ErrInvalidName,
// ErrEndpointExists, *ConfigError, and those of the IPAM.
func (n *Network) CreateEndpoint(ctx context.Context, name string, opts ...EndpointOption) (_ *Endpoint, err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	n = n.own()
	spec := n.spec(opts)
	if err := (model.ID{Network: n.def.Name, ContainerID: name, IfName: spec.ifName}).Validate(); err != nil {
		return nil, err
	}
	release, err := n.c.endpoints.Own(ctx, n.def.Name, name, spec.ifName, state.Create)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := n.chooseSubnets(ctx); err != nil {
		return nil, err
	}
	e, err := n.createEndpoint(ctx, name, spec)
	if err != nil {
		return nil, err
	}
	if err := e.save(); err != nil {
		return nil, errors.Join(err, n.release(context.WithoutCancel(ctx), e.rec))
	}
	return e, nil
}

// createEndpoint writes the intent and gets the addresses; the caller saves
// the rest of the record.
func (n *Network) createEndpoint(ctx context.Context, name string, spec endpointSpec) (_ *Endpoint, err error) {
	id := model.ID{Network: n.def.Name, ContainerID: name, IfName: spec.ifName}
	if err := id.Validate(); err != nil {
		return nil, err
	}
	ports, err := model.ValidatePorts(spec.ports)
	if err := errors.Join(err, n.publishable(ports), model.ValidatePriority(spec.priority)); err != nil {
		return nil, err
	}
	mac := spec.mac
	if mac == nil {
		mac = randomMAC()
	}
	names, err := n.c.names.Choose(spec.names, n.def.Config.Tunnel.Agent)
	if err != nil {
		return nil, err
	}
	path, ns := spec.netns()
	e := &Endpoint{n: n, rec: state.Endpoint{
		Network: id.Network, ContainerID: id.ContainerID, IfName: id.IfName,
		Phase: state.PhaseIntent, Boot: n.c.boot, Netns: path, NetnsID: state.NetnsID(ns), MountNS: life.MountNS(),
		Bridge: n.def.Config.Bridge, HostName: id.HostName(), MAC: mac.String(), Runtime: spec.runtime, Workload: spec.workload, PodUID: spec.podUID,
		Rules: n.def.Config.NeedsRules() || len(ports) > 0, Ports: plan.SavedPorts(ports), Guard: n.Plan().GuardID(), Tunnel: n.Plan().SecureTunnel(), Spare: n.Plan().SpareTunnel(), GatewayPriority: spec.priority,
		OwnRules: plan.OwnRules(n.def.Config), NextName: spec.nextName, Names: names,
	}}
	e.auto, e.slow = spec.names != nil && spec.names.Responder == model.RespondAuto, spec.slow
	e.rec.IPAM, e.rec.DataDir = n.LeaseDir()
	var undo unwind.Stack
	defer undo.Rollback(&err)
	if err := n.c.endpoints.CreateEndpoint(e.rec); errors.Is(err, state.ErrExists) {
		return nil, fmt.Errorf("%w: %q on network %q", model.ErrEndpointExists, name, n.def.Name)
	} else if err != nil {
		return nil, err
	}
	undo.Push(func() error { return n.c.endpoints.DeleteEndpoint(id.Network, id.ContainerID, id.IfName) })
	if n.ipam != nil {
		// Pushed first: a delegate that failed is asked to clean up, too (CNI
		// spec 1.1.0, section 4). A pool whose lock was not to be had has given
		// nothing, and would keep us waiting once more.
		undo.Push(func() error {
			if errors.Is(err, ipamstore.ErrLocked) {
				return nil
			}
			return n.ipam.Remove(context.WithoutCancel(ctx), id)
		})
		if err := e.lease(ctx, spec); err != nil {
			return nil, err
		}
	}
	e.rec.Phase = state.PhaseLeased
	return e, nil
}

// publishable refuses ports where the container gets no address: they would lead
// nowhere. The error is a *ConfigError.
func (n *Network) publishable(ports []model.PortMapping) error {
	if n.ipam != nil || len(ports) == 0 {
		return nil
	}
	return model.BadConfig("portMappings[0]", ports[0], "cannot be published, as the container gets no address without ipam: "+
		"give the network an ipam section, or publish no port (take portMappings out of capabilities)")
}

// lease gets the endpoint's addresses and completes them.
func (e *Endpoint) lease(ctx context.Context, spec endpointSpec) error {
	_, ours := e.n.ipam.(*address.Pool)
	e.chosen = ours && len(spec.addrs) == 0
	e.n.c.steps.At("lease")
	claim := address.Claim{ID: e.ID(), Addresses: spec.addrs, Workload: spec.workload, Runtime: spec.runtime}
	claim.Netns, claim.NetnsID = spec.netns()
	if err := e.n.keepLost(ctx, e.ID()); err != nil {
		return err
	}
	got, err := e.n.ipam.Apply(ctx, claim)
	if err != nil {
		return err
	}
	if len(got.Addresses) == 0 {
		return fmt.Errorf("%w: ipam %s", model.ErrNoAddresses, e.n.ipam.Type())
	}
	full, err := got.Complete(e.n.def.Config)
	if err != nil {
		return err
	}
	for _, a := range full.Addresses {
		e.rec.Addresses = append(e.rec.Addresses, state.Address(a))
	}
	for _, r := range full.Routes {
		e.rec.Routes = append(e.rec.Routes, state.Route(r))
	}
	e.rec.DNS = state.DNS(full.DNS)
	_, err = e.plan()
	return err
}

func (n *Network) LeaseDir() (kind, dir string) {
	if pool, ok := n.ipam.(*address.Pool); ok {
		return address.PoolType, pool.DataDir()
	}
	if n.ipam != nil {
		return n.ipam.Type(), ""
	}
	return "", ""
}

// own keeps all other calls from the attachment until release is called, and
// reads its record again: it may have been removed, or have joined or left,
// since the Endpoint was made. It is ErrNotFound if there is none any more.
func (e *Endpoint) own(ctx context.Context) (release func(), err error) {
	id := e.ID()
	release, err = e.n.c.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return nil, err
	}
	rec, err := e.n.c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if err != nil {
		release()
		return nil, notFound(err, "endpoint", id.ContainerID+" "+id.IfName)
	}
	e.rec = rec
	return release, nil
}

func (e *Endpoint) save() error { return e.n.c.endpoints.SaveEndpoint(e.rec) }

// ID returns the endpoint's identity.
func (e *Endpoint) ID() model.ID { return life.IDOf(e.rec) }

// Name returns the endpoint's name.
func (e *Endpoint) Name() string { return e.rec.ContainerID }

// Network returns the endpoint's network.
func (e *Endpoint) Network() *Network { return e.n }

// Unanswered says why the kernel does not answer for the endpoint's names, though it was to if
// it can; nil: it does, or was not to.
func (e *Endpoint) Unanswered() error { return e.unanswered }

// Ports returns the endpoint's published ports; one that was to be a free one
// has its number once the endpoint has joined.
func (e *Endpoint) Ports() []model.PortMapping { return plan.PortsOf(e.rec) }

// Netns returns the path of the network namespace the endpoint has joined;
// empty: none.
func (e *Endpoint) Netns() string { return e.rec.Netns }

// Interface is a link that belongs to an attachment.
type Interface struct {
	Name string
	MAC  string
	MTU  int // bytes; 0: unknown
	// Netns is the path of the link's network namespace; empty: the host's.
	Netns string
}

// Interfaces returns the links of an endpoint that has joined: the bridge, the
// host's end, the container's end, and with a VLAN gateway the VLAN interface.
func (e *Endpoint) Interfaces() []Interface {
	var all []Interface
	for _, l := range e.rec.Links {
		all = append(all, Interface(l))
	}
	return all
}

// randomMAC returns a locally administered unicast address (IEEE 802, U/L bit).
func randomMAC() net.HardwareAddr {
	mac := binary.BigEndian.AppendUint64(nil, rand.Uint64())[:6]
	mac[0] = mac[0]&^1 | 2
	return mac
}

// keepLost is for before the network's pool gives an address.
func (n *Network) keepLost(ctx context.Context, self model.ID) error {
	pool, ok := n.ipam.(*address.Pool)
	if !ok {
		return nil
	}
	l := address.Lost{Network: n.def.Name, Boot: n.c.boot, Records: n.c.endpoints, Links: n.c.links, Finder: n.c.finder}
	return l.Keep(ctx, pool, self)
}

// Addressing returns the endpoint's addresses, routes and DNS.
func (e *Endpoint) Addressing() model.Addressing { return plan.AddressingOf(e.rec) }

func (e *Endpoint) plan() (plan.Attachment, error) { return e.n.Plan().Recorded(e.rec) }

// WithPorts publishes ports of the host for the endpoint.
func WithPorts(ports ...model.PortMapping) EndpointOption {
	return func(s *endpointSpec) { s.ports = append(s.ports, ports...) }
}

// Record returns the endpoint's record.
func (e *Endpoint) Record() state.Endpoint { return e.rec }

// Holder returns what is known of the life of the endpoint's container.
func (e *Endpoint) Holder() life.Holder { return life.OfRecord(e.rec) }

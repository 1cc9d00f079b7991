package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

// Network is one network on this host. It does not change: what a call finds
// out, as an MTU or the subnets, it keeps in a copy of its own.
type Network struct {
	c    *Controller
	def  plan.Network
	ipam address.IPAM      // nil: endpoints get no addresses
	auto *address.AutoPool // whence ipam comes, if subnets are to be chosen; else nil
	// foreign is the type of the IPAM that the network was made with and that
	// cannot be called from its record; empty: none.
	foreign string
	kept    bool // NewNetwork made it: it is there until Delete, with endpoints or without
	notes   notes
	layers  json.RawMessage // what the configuration was laid upon; nil: nothing
	hosts   hosts
}

// NetworkOption refines NewNetwork and DefineNetwork. Without WithConfig a
// network has Gateway and DefaultGateway set.
type NetworkOption func(*networkSpec)

type networkSpec struct {
	config  model.NetworkConfig
	ipam    address.IPAM
	subnets []ipamstore.RangeSet
	wants   map[int]subnets.Request // of those in subnets to be chosen
	notes   notes
	layers  json.RawMessage
	hosts   hosts
}

// WithConfig replaces the whole configuration.
func WithConfig(c model.NetworkConfig) NetworkOption {
	return func(s *networkSpec) { s.config = c }
}

// WithSubnet gives each endpoint an address of this subnet; with several
// subnets, one of each. The gateway is the subnet's first address.
func WithSubnet(subnet netip.Prefix) NetworkOption {
	return func(s *networkSpec) {
		s.subnets = append(s.subnets, ipamstore.RangeSet{{Subnet: subnet}})
	}
}

// WithMasquerade sets NetworkConfig.Masquerade.
func WithMasquerade() NetworkOption {
	return func(s *networkSpec) { s.config.Masquerade = true }
}

// WithIPAM has another IPAM than the built-in pool give addresses; WithSubnet
// is then without effect. A network found again by its name has its IPAM only
// if it is a *Pool.
func WithIPAM(ipam address.IPAM) NetworkOption {
	return func(s *networkSpec) { s.ipam = ipam }
}

// SavedConfig is what a network's record keeps.
type SavedConfig struct {
	model.NetworkConfig
	Pool    *address.SavedPool `json:",omitempty"`
	Foreign string             `json:",omitempty"`
	Kept    bool               `json:",omitempty"`
	notes
}

func (n *Network) record() (state.Network, error) {
	saved := SavedConfig{NetworkConfig: n.def.Config, Foreign: n.foreign, Kept: n.kept, notes: n.notes}
	if pool, ok := n.ipam.(*address.Pool); ok {
		kept := pool.Saved()
		saved.Pool = &kept
	} else if n.ipam != nil {
		saved.Foreign = n.ipam.Type()
	}
	data, err := json.Marshal(saved)
	return state.Network{Name: n.def.Name, Driver: n.def.Driver, Bridge: n.def.Config.Bridge, Fingerprint: n.fingerprint(), Config: data, Layers: n.layers}, err
}

// Network returns the network of that name; ErrNotFound if there is none.
func (c *Controller) Network(name string) (*Network, error) {
	rec, err := c.networks.LoadNetwork(name)
	if err != nil {
		return nil, notFound(err, "network", name)
	}
	return c.networkOf(rec)
}

// Networks returns every network in the order of their names. Unreadable records are left
// out and reported in the error, beside the rest.
func (c *Controller) Networks(_ context.Context) ([]*Network, error) {
	recs, err := c.networks.Networks()
	errs := []error{err}
	var all []*Network
	for _, rec := range recs {
		n, err := c.networkOf(rec)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, n)
	}
	return all, errors.Join(errs...)
}

// WalkNetworks calls fn for each network until it says false.
func (c *Controller) WalkNetworks(ctx context.Context, fn func(*Network) bool) error {
	all, err := c.Networks(ctx)
	for _, n := range all {
		if !fn(n) {
			break
		}
	}
	return err
}

func (c *Controller) networkOf(rec state.Network) (*Network, error) {
	var saved SavedConfig
	if err := json.Unmarshal(rec.Config, &saved); err != nil {
		return nil, fmt.Errorf("record of network %q: %w", rec.Name, err)
	}
	n := &Network{c: c, def: plan.Network{Name: rec.Name, Driver: cmp.Or(rec.Driver, plan.DriverBridge), Config: saved.NetworkConfig}, foreign: saved.Foreign, kept: saved.Kept, notes: saved.notes, layers: rec.Layers}
	if saved.Pool == nil {
		return n, nil
	}
	pool, err := saved.Pool.Open(rec.Name)
	if err != nil {
		return nil, err
	}
	n.ipam = pool
	return n, nil
}

// Name returns the network's name.
func (n *Network) Name() string { return n.def.Name }

// Driver returns the name of the network's driver.
func (n *Network) Driver() string { return n.def.Driver }

// Config returns the network's configuration.
func (n *Network) Config() model.NetworkConfig { return n.def.Config }

// own returns a copy for one call, which may complete it.
func (n *Network) own() *Network {
	c := *n
	return &c
}

// recordChange is what a network's record needs.
type recordChange int

const (
	recordSame    recordChange = iota
	recordMade                 // it was missing, and has been written
	recordDiffers              // it is that of another configuration
)

// madeRecord says that a call wrote the network's record, which was missing.
type madeRecord bool

// remember writes the network's record if it is missing: a process that finds what
// the next steps make needs it. One that differs stays for now: a refused attachment
// changes nothing.
func (n *Network) remember() (recordChange, error) {
	if n.c.networks.HasNetwork(n.def.Name, n.fingerprint()) {
		return recordSame, nil
	}
	if n.hosts.seen != nil { // another call's record came since trust looked: this one needs all hosts
		if err := n.readHosts(); err != nil {
			return recordSame, err
		}
		return n.remember()
	}
	_, err := n.c.networks.LoadNetwork(n.def.Name)
	if err == nil {
		return recordDiffers, nil
	}
	if !state.Missing(err) {
		return recordSame, err
	}
	return recordMade, n.saveRecord()
}

func (n *Network) saveRecord() error {
	n.keepNotes()
	rec, err := n.record()
	if err != nil {
		return err
	}
	return n.c.networks.SaveNetwork(rec)
}

// forgetRecord removes the record that a failed call made, unless another one has
// built on it meanwhile.
func (n *Network) forgetRecord(ctx context.Context, made madeRecord) error {
	if !made {
		return nil
	}
	err := n.c.endpoints.Alone(ctx, n.def.Name, func() error { return n.c.networks.DeleteNetwork(n.def.Name) })
	if errors.Is(err, state.ErrInUse) {
		return nil
	}
	return errors.Join(err, n.c.names.Tidy(ctx))
}

// ownGateways returns the gateways that are known before any endpoint is.
func (n *Network) ownGateways() model.Addressing {
	if pool, ok := n.ipam.(*address.Pool); ok && n.def.Config.HasGateway() {
		return model.Addressing{Addresses: pool.Gateways()}
	}
	return model.Addressing{}
}

// Endpoint returns the endpoint of that name and interface name; ErrNotFound
// if there is none.
func (n *Network) Endpoint(name, ifName string) (*Endpoint, error) {
	rec, err := n.c.endpoints.LoadEndpoint(n.def.Name, name, ifName)
	if err != nil {
		return nil, notFound(err, "endpoint", name+" "+ifName)
	}
	return &Endpoint{n: n, rec: rec}, nil
}

// Endpoints returns every endpoint of the network. Unreadable records are left out and
// reported in the error, beside the rest.
func (n *Network) Endpoints(_ context.Context) ([]*Endpoint, error) {
	recs, err := n.c.endpoints.Endpoints(n.def.Name)
	var all []*Endpoint
	for _, rec := range recs {
		all = append(all, &Endpoint{n: n, rec: rec})
	}
	return all, err
}

// WalkEndpoints calls fn for each endpoint until it says false.
func (n *Network) WalkEndpoints(ctx context.Context, fn func(*Endpoint) bool) error {
	all, err := n.Endpoints(ctx)
	for _, e := range all {
		if !fn(e) {
			break
		}
	}
	return err
}

// Delete removes the network: its bridge, if libnet made it, its rules and its
// record. One that still has endpoints is ErrNetworkInUse.
func (n *Network) Delete(ctx context.Context) (err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	recs, err := n.c.endpoints.Endpoints(n.def.Name)
	if err != nil {
		return err
	}
	if len(recs) > 0 {
		return fmt.Errorf("%w: %q has %d, one is %s", model.ErrNetworkInUse, n.def.Name, len(recs), recs[0].ContainerID)
	}
	if err := n.dissolve(ctx); errors.Is(err, state.ErrInUse) {
		return fmt.Errorf("%w: %q: one is being made or removed", model.ErrNetworkInUse, n.def.Name)
	} else if err != nil {
		return err
	}
	return nil
}

// Plan returns what derives the network's parts of the kernel; not to be changed.
func (n *Network) Plan() *plan.Network { return &n.def }

// Subnets returns the subnets of the network's pool, each once, in the order of
// its range sets; none if its addresses come from elsewhere.
func (n *Network) Subnets() []netip.Prefix {
	pool, ok := n.ipam.(*address.Pool)
	if !ok {
		return nil
	}
	return pool.Subnets()
}

// IPAMType returns the type of what gives the network's addresses; empty: nothing does.
func (n *Network) IPAMType() string {
	if n.ipam == nil {
		return n.foreign
	}
	return n.ipam.Type()
}

// IPAM returns what gives the network's addresses; nil if nothing does, or what
// cannot be called from the network's record.
func (n *Network) IPAM() address.IPAM { return n.ipam }

// Left returns a network of which the kernel alone tells: it is there to be removed.
func (c *Controller) Left(name, driver, bridge string) *Network {
	return &Network{c: c, def: plan.Network{Name: name, Driver: driver, Config: model.NetworkConfig{Bridge: bridge}}}
}

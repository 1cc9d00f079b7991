package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

// Network is one network on this host. It does not change: what a call finds
// out, as an MTU or the subnets, it keeps in a copy of its own.
type Network struct {
	c      *Controller
	name   string
	driver string
	config model.NetworkConfig
	ipam   IPAM      // nil: endpoints get no addresses
	auto   *AutoPool // whence ipam comes, if subnets are to be chosen; else nil
	// foreign is the type of the IPAM that the network was made with and that
	// cannot be called from its record; empty: none.
	foreign string
	kept    bool // NewNetwork made it: it is there until Delete, with endpoints or without
	notes   notes
}

// NetworkOption refines NewNetwork and DefineNetwork. Without WithConfig a
// network has Gateway and DefaultGateway set.
type NetworkOption func(*networkSpec)

type networkSpec struct {
	config  model.NetworkConfig
	ipam    IPAM
	subnets []ipamstore.RangeSet
	wants   map[int]subnets.Request // of those in subnets to be chosen
	notes   notes
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

// WithInternal sets NetworkConfig.Internal and, as it must, clears
// DefaultGateway.
func WithInternal() NetworkOption {
	return func(s *networkSpec) { s.config.Internal, s.config.DefaultGateway = true, false }
}

// WithIPAM has another IPAM than the built-in pool give addresses; WithSubnet
// is then without effect. A network found again by its name has its IPAM only
// if it is a *Pool.
func WithIPAM(ipam IPAM) NetworkOption {
	return func(s *networkSpec) { s.ipam = ipam }
}

// savedConfig is what a network's record keeps.
type savedConfig struct {
	model.NetworkConfig
	Pool    *savedPool `json:",omitempty"`
	Foreign string     `json:",omitempty"`
	Kept    bool       `json:",omitempty"`
	notes
}

func (n *Network) record() (state.Network, error) {
	saved := savedConfig{NetworkConfig: n.config, Foreign: n.foreign, Kept: n.kept, notes: n.notes}
	if pool, ok := n.ipam.(*Pool); ok {
		saved.Pool = &pool.cfg
	} else if n.ipam != nil {
		saved.Foreign = n.ipam.Type()
	}
	data, err := json.Marshal(saved)
	return state.Network{Name: n.name, Driver: n.driver, Bridge: n.config.Bridge, Fingerprint: n.fingerprint(), Config: data}, err
}

func (c *Controller) networkOf(rec state.Network) (*Network, error) {
	var saved savedConfig
	if err := json.Unmarshal(rec.Config, &saved); err != nil {
		return nil, fmt.Errorf("record of network %q: %w", rec.Name, err)
	}
	n := &Network{c: c, name: rec.Name, driver: cmp.Or(rec.Driver, driverBridge), config: saved.NetworkConfig, foreign: saved.Foreign, kept: saved.Kept, notes: saved.notes}
	if saved.Pool == nil {
		return n, nil
	}
	pool, err := NewPool(saved.Pool.config(rec.Name), saved.Pool.Extra)
	if err != nil {
		return nil, err
	}
	n.ipam = pool
	return n, nil
}

// Name returns the network's name.
func (n *Network) Name() string { return n.name }

// Driver returns the name of the network's driver.
func (n *Network) Driver() string { return n.driver }

// Config returns the network's configuration.
func (n *Network) Config() model.NetworkConfig { return n.config }

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

// remember writes the network's record if it is missing: whoever finds what comes
// next needs it. One that differs stays for now: a refused attachment changes
// nothing.
func (n *Network) remember() (recordChange, error) {
	if n.c.networks.HasNetwork(n.name, n.fingerprint()) {
		return recordSame, nil
	}
	_, err := n.c.networks.LoadNetwork(n.name)
	if err == nil {
		return recordDiffers, nil
	}
	if !missing(err) {
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
	err := n.c.endpoints.Alone(ctx, n.name, func() error { return n.c.networks.DeleteNetwork(n.name) })
	if errors.Is(err, state.ErrInUse) {
		return nil
	}
	return err
}

// ownGateways returns the gateways that are known before any endpoint is.
func (n *Network) ownGateways() model.Addressing {
	if pool, ok := n.ipam.(*Pool); ok && n.config.HasGateway() {
		return model.Addressing{Addresses: pool.gateways()}
	}
	return model.Addressing{}
}

// Endpoint returns the endpoint of that name and interface name; ErrNotFound
// if there is none.
func (n *Network) Endpoint(name, ifName string) (*Endpoint, error) {
	rec, err := n.c.endpoints.LoadEndpoint(n.name, name, ifName)
	if err != nil {
		return nil, notFound(err, "endpoint", name+" "+ifName)
	}
	return &Endpoint{n: n, rec: rec}, nil
}

// Endpoints returns every endpoint of the network. What cannot be read is left
// out and reported in the error, beside the rest.
func (n *Network) Endpoints(_ context.Context) ([]*Endpoint, error) {
	recs, err := n.c.endpoints.Endpoints(n.name)
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
	leave, err := n.c.enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	recs, err := n.c.endpoints.Endpoints(n.name)
	if err != nil {
		return err
	}
	if len(recs) > 0 {
		return fmt.Errorf("%w: %q has %d, one is %s", model.ErrNetworkInUse, n.name, len(recs), recs[0].ContainerID)
	}
	if err := n.dissolve(ctx); errors.Is(err, state.ErrInUse) {
		return fmt.Errorf("%w: %q: one is being made or removed", model.ErrNetworkInUse, n.name)
	} else if err != nil {
		return err
	}
	return nil
}

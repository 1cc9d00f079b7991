package libnet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// Network is one network on this host.
type Network struct {
	c      *Controller
	name   string
	driver string
	config NetworkConfig
	ipam   IPAM      // nil: endpoints get no addresses
	auto   *AutoPool // whence ipam comes, if subnets are to be chosen; else nil
	// foreign is the type of the IPAM that the network was made with and that
	// cannot be called from its record; empty: none.
	foreign string
}

// NetworkOption refines NewNetwork and DefineNetwork. Without WithConfig a
// network has Gateway and DefaultGateway set.
type NetworkOption func(*networkSpec)

type networkSpec struct {
	config  NetworkConfig
	ipam    IPAM
	subnets []ipamstore.RangeSet
	wants   map[int]ipamstore.SubnetRequest // of those in subnets to be chosen
}

// WithConfig replaces the whole configuration.
func WithConfig(c NetworkConfig) NetworkOption {
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
	NetworkConfig
	Pool    *savedPool `json:",omitempty"`
	Foreign string     `json:",omitempty"`
}

func (n *Network) record() (state.Network, error) {
	saved := savedConfig{NetworkConfig: n.config, Foreign: n.foreign}
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
	n := &Network{c: c, name: rec.Name, driver: cmp.Or(rec.Driver, driverBridge), config: saved.NetworkConfig, foreign: saved.Foreign}
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
func (n *Network) Config() NetworkConfig { return n.config }

// remember writes the network's record unless it stands there already. A
// record that was not there before goes with what it was written for.
func (n *Network) remember(ctx context.Context, undo *undoStack) error {
	if n.c.networks.HasNetwork(n.name, n.fingerprint()) {
		return nil
	}
	want, err := n.record()
	if err != nil {
		return err
	}
	before, err := n.c.networks.LoadNetwork(n.name)
	switch {
	case errors.Is(err, state.ErrNotFound):
		undo.push(func() error { return n.c.networks.DeleteNetwork(n.name) })
	case err == nil:
		undo.push(func() error { return n.reinstate(context.WithoutCancel(ctx), before, want) })
		if before.Fingerprint == unknownConfig {
			break
		}
		if err := n.changeRules(ctx, before); err != nil {
			return err
		}
	}
	return n.c.networks.SaveNetwork(want)
}

// reinstate makes the network what it was by an earlier record: what has the
// present one was refused.
func (n *Network) reinstate(ctx context.Context, before, refused state.Network) error {
	old, err := n.c.networkOf(before)
	if err != nil {
		return err
	}
	if before.Fingerprint != unknownConfig {
		err = old.changeRules(ctx, refused)
	}
	return errors.Join(err, n.c.networks.SaveNetwork(before))
}

// ownGateways returns the gateways that are known before any endpoint is.
func (n *Network) ownGateways() Addressing {
	if pool, ok := n.ipam.(*Pool); ok && n.config.hasGateway() {
		return Addressing{Addresses: pool.gateways()}
	}
	return Addressing{}
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
func (n *Network) Delete(ctx context.Context) error {
	recs, err := n.c.endpoints.Endpoints(n.name)
	if err != nil {
		return err
	}
	if len(recs) > 0 {
		return fmt.Errorf("%w: %q has %d, one is %s", ErrNetworkInUse, n.name, len(recs), recs[0].ContainerID)
	}
	return n.dissolve(ctx)
}

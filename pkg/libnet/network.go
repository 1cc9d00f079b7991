package libnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
)

// Network is one network on this host. It does not change.
type Network struct {
	c      *Controller
	engine *engine.Network // nil: it is of another driver
	other  driver.Network
}

// Name returns the network's name.
func (n *Network) Name() string {
	if n.engine != nil {
		return n.engine.Name()
	}
	return n.other.Name
}

// ID returns a hash of the network's name, of 32 hexadecimal digits.
func (n *Network) ID() string { return model.Digest(model.NetworkOwner(n.Name())) }

// Driver returns the name of the network's driver.
func (n *Network) Driver() string {
	if n.engine != nil {
		return n.engine.Driver()
	}
	return n.other.Driver
}

// Scope returns how far the network reaches.
func (n *Network) Scope() Scope {
	if n.engine == nil {
		return n.other.Scope
	}
	if n.engine.Config().Tunnel.Used() {
		return ScopeGlobal
	}
	return ScopeLocal
}

// Labels returns a copy of the network's labels.
func (n *Network) Labels() map[string]string {
	if n.engine != nil {
		return n.engine.Labels()
	}
	return maps.Clone(n.other.Labels)
}

// DriverOptions returns a copy of the options that the driver was given. Of a network
// that was found again they are as JSON has them: numbers are float64.
func (n *Network) DriverOptions() map[string]any {
	if n.engine != nil {
		return n.engine.DriverOptions()
	}
	return maps.Clone(n.other.Options)
}

// Config is how a network behaves.
type Config struct {
	Bridge                           string // on this host; empty: the driver has none
	MTU                              int    // bytes; 0: the kernel's default
	GatewayModeIPv4, GatewayModeIPv6 GatewayMode
	Internal, ICC, Hairpin           bool
	MasqueradeIPv4, MasqueradeIPv6   bool
}

// Config returns the configuration of a network of the driver "bridge" or "overlay";
// of others, the zero value.
func (n *Network) Config() Config {
	if n.engine == nil {
		return Config{}
	}
	c := n.engine.Config()
	m := c.MasqueradeFamilies()
	return Config{
		Bridge: c.Bridge, MTU: c.MTU, GatewayModeIPv4: c.GatewayModeIPv4, GatewayModeIPv6: c.GatewayModeIPv6,
		Internal: c.IsInternal(), ICC: !c.ForbidsICC(), Hairpin: !c.NoHairpin, MasqueradeIPv4: m.IPv4, MasqueradeIPv6: m.IPv6,
	}
}

// Subnets returns the subnets that endpoints of this host get addresses of; none if
// another program chooses them.
func (n *Network) Subnets() []netip.Prefix {
	raw := n.other.Conf
	if n.engine != nil {
		p, ok := n.engine.IPAM().(*pluginIPAM)
		if !ok {
			return n.engine.Subnets()
		}
		raw = p.conf
	}
	var conf struct {
		IPAM struct {
			Ranges [][]struct{ Subnet netip.Prefix }
		}
	}
	if json.Unmarshal(raw, &conf) != nil {
		return nil
	}
	var all []netip.Prefix
	for _, set := range conf.IPAM.Ranges {
		for _, r := range set {
			all = append(all, r.Subnet)
		}
	}
	return all
}

// driverOf returns the driver of a network that the engine does not make.
func (n *Network) driverOf() (kind, error) { return n.c.kindOf(n.other.Driver) }

// with calls fn, in the Controller's namespace, with the driver of a network that
// the engine does not make.
func (n *Network) with(fn func(driver.Driver) error) error {
	k, err := n.driverOf()
	if err != nil {
		return fmt.Errorf("network %q: %w", n.Name(), err)
	}
	return n.c.e.Do(func() error { return fn(k.driver) })
}

// CreateEndpoint reserves an endpoint. By the drivers "bridge" and "overlay" it has
// its addresses now; by a CNI plugin it gets them with Join. The name stands for the
// container in leases. The errors: ErrInvalidName, ErrExists, ErrExhausted,
// *ConfigError.
func (n *Network) CreateEndpoint(ctx context.Context, name string, opts ...EndpointOption) (*Endpoint, error) {
	var s endpointSpec
	for _, o := range opts {
		o(&s)
	}
	if n.engine != nil {
		e, err := n.engine.CreateEndpoint(ctx, name, s.forEngine()...)
		if err != nil {
			return nil, oneConfigError(err)
		}
		return &Endpoint{n: n, engine: e}, nil
	}
	return n.createOther(ctx, name, s)
}

func (n *Network) createOther(ctx context.Context, name string, s endpointSpec) (*Endpoint, error) {
	asked, err := s.forOther(n)
	if err != nil {
		return nil, err
	}
	e, err := n.c.others.CreateEndpoint(ctx, n.other, driver.Spec{Name: name, IfName: s.ifName, Asked: asked})
	if err != nil {
		return nil, err
	}
	return &Endpoint{n: n, other: e}, nil
}

// Attach is CreateEndpoint, under the name of the sandbox's container, and Join in
// one. It may be repeated: an endpoint that is in the sandbox already is returned.
func (n *Network) Attach(ctx context.Context, sb *Sandbox, opts ...EndpointOption) (*Endpoint, error) {
	var s endpointSpec
	for _, o := range opts {
		o(&s)
	}
	if n.engine == nil {
		return n.attachOther(ctx, sb, s)
	}
	if err := sb.forEngine(); err != nil {
		return nil, err
	}
	attach := n.engine.AttachNext
	if s.ifName != "" {
		attach = n.engine.Attach
	}
	e, err := attach(ctx, sb.engine, s.forEngine()...)
	if err != nil {
		return nil, oneConfigError(err)
	}
	return &Endpoint{n: n, engine: e, joined: sb.ContainerID()}, nil
}

func (n *Network) attachOther(ctx context.Context, sb *Sandbox, s endpointSpec) (*Endpoint, error) {
	e, err := n.createOther(ctx, sb.ContainerID(), s)
	created := err == nil
	if errors.Is(err, ErrExists) {
		e, err = n.named(ctx, sb.ContainerID(), s.ifName)
	}
	if err != nil {
		return nil, err
	}
	if err := e.Join(ctx, sb); errors.Is(err, ErrInUse) && !created {
		if e.other.Netns() == sb.Path() && e.Verify(ctx) == nil {
			return e, nil
		}
		// An earlier container of the same name left it.
		if err := e.Leave(ctx); err != nil {
			return nil, err
		}
		return e, e.Join(ctx, sb)
	} else if err != nil {
		if created {
			err = errors.Join(err, e.Delete(context.WithoutCancel(ctx)))
		}
		return nil, err
	}
	return e, nil
}

// Endpoint returns the endpoint of that name, of several the one with the first
// interface name; ErrNotFound if there is none.
func (n *Network) Endpoint(ctx context.Context, name string) (*Endpoint, error) {
	return n.named(ctx, name, "")
}

func (n *Network) named(ctx context.Context, name, ifName string) (*Endpoint, error) {
	all, err := n.Endpoints(ctx)
	for _, e := range all {
		if e.Name() == name && (ifName == "" || e.id().IfName == ifName) {
			return e, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("endpoint %q on network %q: %w", name, n.Name(), ErrNotFound)
	}
	return nil, err
}

// Endpoints returns every endpoint of the network on this host. Endpoints that
// cannot be read are left out and reported in the error, beside the rest.
func (n *Network) Endpoints(ctx context.Context) ([]*Endpoint, error) {
	var all []*Endpoint
	if n.engine != nil {
		mine, err := n.engine.Endpoints(ctx)
		for _, e := range mine {
			all = append(all, &Endpoint{n: n, engine: e})
		}
		return all, err
	}
	others, err := n.c.others.Endpoints(n.other)
	for _, e := range others {
		all = append(all, &Endpoint{n: n, other: e})
	}
	return all, err
}

// Delete removes the network. One that has endpoints is ErrInUse, and the networks of
// the drivers "host" and "null", which stay, are ErrForbidden.
func (n *Network) Delete(ctx context.Context) error {
	if n.engine != nil {
		return n.engine.Delete(ctx)
	}
	for _, k := range builtIn() { // a plugin that is gone does not keep its network
		if k.name == n.other.Driver && k.capability.Single {
			return fmt.Errorf("%w: network %q of the driver %s cannot be deleted", ErrForbidden, n.Name(), k.name)
		}
	}
	return n.c.others.Delete(ctx, n.Name())
}

// Status says why an endpoint could not join now; nil if one could. It restores what
// the network lost of its bridge and rules.
func (n *Network) Status(ctx context.Context) error {
	if n.engine != nil {
		return n.engine.Status(ctx)
	}
	return n.with(func(d driver.Driver) error {
		if s, ok := d.(interface {
			Status(context.Context, driver.Network) error
		}); ok {
			return s.Status(ctx, n.other)
		}
		return nil
	})
}

// Collect removes every endpoint that keep says no to, by the name of its container
// and of its interface, whatever is left of it, and, as far as the driver can, addresses
// that belong to no endpoint. With keep nil it removes what belongs to containers that
// are provably gone, and what a killed process left half made. It goes on after errors.
func (n *Network) Collect(ctx context.Context, keep func(name, ifName string) bool) error {
	if n.engine != nil && keep == nil {
		err := n.engine.Collect(ctx, func(h life.Holder) bool { return !n.c.e.Dead(h) }, engine.KeepNetwork)
		return errors.Join(err, n.engine.CollectInterrupted(ctx))
	}
	if n.engine != nil {
		return n.engine.Collect(ctx, func(h life.Holder) bool { return keep(h.ID.ContainerID, h.ID.IfName) }, engine.KeepNetwork)
	}
	return n.with(func(d driver.Driver) error {
		return n.c.others.Collect(ctx, n.other, d, func(e *driver.Endpoint, useless bool) bool {
			if keep == nil {
				return !useless
			}
			return keep(e.ID().ContainerID, e.IfName())
		})
	})
}

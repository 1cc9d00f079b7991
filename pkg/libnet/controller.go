package libnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/driver/cniplugin"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
)

// Controller makes and finds networks and sandboxes on this host, in the network
// namespace of the thread that called New.
type Controller struct {
	e       *engine.Controller
	others  *driver.Networks // of the drivers that are not the engine's
	path    []string         // of CNI plugins
	dataDir string           // empty: the default
}

// Option refines New.
type Option func(*controllerSpec)

type controllerSpec struct {
	stateDir, dataDir string
	path              []string
	engine            []engine.Option
}

// WithStateDir keeps the records in dir instead of /run/libnet. Programs that are to
// see each other's networks use the same one.
func WithStateDir(dir string) Option {
	return func(s *controllerSpec) {
		s.stateDir, s.engine = dir, append(s.engine, engine.WithStateDir(dir))
	}
}

// WithDataDir keeps the address leases in dir instead of /var/lib/cni/networks.
func WithDataDir(dir string) Option {
	return func(s *controllerSpec) { s.dataDir, s.engine = dir, append(s.engine, engine.WithDataDir(dir)) }
}

// WithNetnsDir makes the namespaces of sandboxes in dir instead of /run/netns.
func WithNetnsDir(dir string) Option {
	return func(s *controllerSpec) { s.engine = append(s.engine, engine.WithNetnsDir(dir)) }
}

// WithPluginPath looks for CNI plugins in these directories, in their order, instead
// of /opt/cni/bin.
func WithPluginPath(dirs ...string) Option {
	return func(s *controllerSpec) { s.path = slices.Clone(dirs) }
}

// WithAddressPools has WithAutoSubnet choose out of the pools in a file instead of
// /etc/cni/ln/address-pools.json.
func WithAddressPools(file string) Option {
	return func(s *controllerSpec) { s.engine = append(s.engine, engine.WithAddressPools(file)) }
}

// New returns a Controller. It opens netlink sockets and writes nothing.
func New(opts ...Option) (*Controller, error) {
	s := controllerSpec{path: []string{cniplugin.DefaultPath}}
	for _, o := range opts {
		o(&s)
	}
	e, err := engine.New(append(s.engine, engine.SpansHosts())...)
	if err != nil {
		return nil, err
	}
	dead := func(l driver.Life) bool {
		return e.Dead(life.Holder{Boot: l.Boot, Netns: l.Netns, NetnsID: life.NetnsID(l.NetnsID), MountNS: l.MountNS})
	}
	return &Controller{e: e, others: driver.New(s.stateDir, dead), path: s.path, dataDir: s.dataDir}, nil
}

// Close closes the netlink sockets, after the last call has returned. Networks stay
// as they are.
func (c *Controller) Close() error {
	c.e.Close()
	return nil
}

// NewNetwork makes a network by a driver; see Drivers. The errors: ErrUnknownDriver,
// ErrInvalidName, ErrExists, ErrExhausted and *ConfigError before anything is
// changed, and those of the kernel or the plugin.
func (c *Controller) NewNetwork(ctx context.Context, driver, name string, opts ...NetworkOption) (*Network, error) {
	var s networkSpec
	for _, o := range opts {
		o(&s)
	}
	k, err := c.kindOf(driver)
	if err := errors.Join(err, model.ValidateName("network name", name)); err != nil {
		return nil, err
	}
	if s.scope, err = k.capability.CheckScope(driver, s.scope); err != nil {
		return nil, err
	}
	if err := c.nameFree(name); err != nil {
		return nil, err
	}
	if k.driver == nil {
		return c.newOfEngine(ctx, k, name, s)
	}
	return c.newOfOther(ctx, k, name, s)
}

// nameFree is ErrExists if a network of either kind has the name.
func (c *Controller) nameFree(name string) error {
	if _, err := c.e.Network(name); err == nil {
		return fmt.Errorf("%w: %q", model.ErrNetworkExists, name)
	}
	if _, err := c.others.Load(name); err == nil {
		return fmt.Errorf("%w: %q", model.ErrNetworkExists, name)
	}
	return nil
}

func (c *Controller) newOfEngine(ctx context.Context, k kind, name string, s networkSpec) (*Network, error) {
	var n *engine.Network
	opts, err := s.forEngine(ctx, c, k, name)
	if err == nil {
		n, err = c.e.NewNetwork(ctx, k.name, name, opts...)
	}
	if err != nil {
		return nil, oneConfigError(err)
	}
	if _, err := c.others.Load(name); err == nil { // made at the same time
		return nil, errors.Join(fmt.Errorf("%w: %q", model.ErrNetworkExists, name), n.Delete(context.WithoutCancel(ctx)))
	}
	return c.ofEngine(n), nil
}

func (c *Controller) newOfOther(ctx context.Context, k kind, name string, s networkSpec) (*Network, error) {
	n, err := s.forOther(c, k, name)
	if err != nil {
		return nil, err
	}
	err = c.e.Do(func() error {
		n, err = k.driver.Define(ctx, n)
		return err
	})
	if err == nil {
		err = c.others.Create(ctx, n, k.capability)
	}
	if err != nil {
		return nil, err
	}
	if _, err := c.e.Network(name); err == nil { // made at the same time
		return nil, errors.Join(fmt.Errorf("%w: %q", model.ErrNetworkExists, name), c.others.Delete(context.WithoutCancel(ctx), name))
	}
	return &Network{c: c, other: n}, nil
}

// Network returns the network of that name; ErrNotFound if there is none.
func (c *Controller) Network(_ context.Context, name string) (*Network, error) {
	n, err := c.e.Network(name)
	if err == nil {
		return c.ofEngine(n), nil
	}
	if !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	other, err := c.others.Load(name)
	if err != nil {
		return nil, err
	}
	return &Network{c: c, other: other}, nil
}

// NetworkByID returns the network of that ID; ErrNotFound if there is none.
func (c *Controller) NetworkByID(ctx context.Context, id string) (found *Network, err error) {
	err = c.WalkNetworks(ctx, func(n *Network) bool {
		if n.ID() == id {
			found = n
		}
		return found == nil
	})
	if found != nil {
		return found, nil
	}
	if err == nil {
		err = fmt.Errorf("network of ID %q: %w", id, ErrNotFound)
	}
	return nil, err
}

// Networks returns every network in the order of their names. Networks that cannot
// be read are left out and reported in the error, beside the rest.
func (c *Controller) Networks(ctx context.Context) ([]*Network, error) {
	mine, err := c.e.Networks(ctx)
	others, otherErr := c.others.List()
	var all []*Network
	for _, n := range mine {
		all = append(all, c.ofEngine(n))
	}
	for _, n := range others {
		all = append(all, &Network{c: c, other: n})
	}
	slices.SortFunc(all, func(a, b *Network) int { return cmp.Compare(a.Name(), b.Name()) })
	return all, errors.Join(err, otherErr)
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

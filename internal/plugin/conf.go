package plugin

import (
	"cmp"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/report"
)

// conf is what the verbs need of a configuration.
type conf struct {
	netconf.Network
	driver driver
	name   string
	ipam   address.IPAM // nil: none
	steps  *report.Steps
	one    bool   // the call is about one attachment
	layers []byte // what the configuration was laid upon; nil: nothing
	// list tells the list of nodes from others, and seen is what an earlier call noted of it; nil:
	// it is read.
	list string
	seen *nodefile.Seen
	// nodes reads it.
	nodes func() ([]model.Node, error)
	// recall, if not nil, is called with the network as recorded, if it is.
	recall func(*engine.Network)
}

// Source returns a call's configuration, to be read.
func Source(call *cni.Call) netconf.Source {
	return netconf.Source{Conf: call.Conf, Network: call.Network, Args: call.Args}
}

// Vet returns what a plugin does with keys that are misspelt: a line for the operator, or an
// error if the configuration is strict.
func Vet(p netconf.Plugin) func(*cni.Call) error {
	return func(call *cni.Call) error {
		line, err := netconf.Check(call.Conf, p)
		if line != "" {
			call.Warn(line)
		}
		return err
	}
}

// Ports are ports as the engine has them.
func Ports(asked []netconf.Port) (ports []model.PortMapping) {
	for _, p := range asked {
		ports = append(ports, model.PortMapping(p))
	}
	return ports
}

// names returns those of a container, with the one that its ID gives; nil: there are none.
func (c *conf) names(containerID string) *model.Names {
	if c.Names == nil {
		return nil
	}
	return model.NamesOf(c.Names.Own, containerID, c.Names.Domain, c.Names.Responder)
}

// parse refuses what it can before anything is changed.
func (d driver) parse(call *cni.Call) (*conf, error) {
	return d.into(call, &conf{}, Source(call))
}

// skimmed is parse for a call that can do without a list of nodes that an earlier one has seen.
func (d driver) skimmed(call *cni.Call) (*conf, error) {
	c, s := &conf{}, Source(call)
	if d.skim != nil {
		d.skim(d, c, call, &s)
	}
	return d.into(call, c, s)
}

// into is parse into c.
func (d driver) into(call *cni.Call, c *conf, s netconf.Source) (*conf, error) {
	n, err := d.read(s)
	if err != nil {
		return nil, err
	}
	c.Network, c.driver, c.name, c.one, c.layers, c.steps = *n, d, call.Network, !d.guest, call.Layers, call.Steps
	switch {
	case d.join != nil:
		err = d.join(c, call)
	case n.Pool != nil:
		c.ipam, err = NewPool(call, n.Pool)
		if pool, ok := c.ipam.(*address.Pool); ok && err == nil {
			err = n.Pool.NameError(pool.Suits(n.Config))
		}
	case n.IPAMType == "":
		err = call.AllowAddresses(0, 0)
	default:
		c.ipam = cni.NewDelegate(call, n.IPAMType)
	}
	return c, err
}

// loose reads what DEL and GC need.
func (d driver) loose(call *cni.Call) (c *conf, err error) {
	l := netconf.LooseNetwork(Source(call))
	c = &conf{driver: d, name: call.Network, one: call.Command != "GC", steps: call.Steps}
	c.StateDir, c.Config = l.StateDir, model.NetworkConfig{Bridge: cmp.Or(l.Bridge, d.bridge), Backend: l.Backend}
	switch {
	case d.join != nil || l.IPAMType == address.PoolType:
		c.ipam, err = address.NewPool(l.Pool, model.Addressing{})
	case l.IPAMType != "":
		c.ipam = cni.NewDelegate(call, l.IPAMType)
	}
	// GC takes the network away as it was made. DEL has the attachment's record,
	// and looks for the network's only where the configuration lacks something.
	if call.Command == "GC" || l.Bridge == "" || c.ipam == nil {
		c.recall = func(n *engine.Network) { c.asRecorded(call, n) }
	}
	return c, err
}

// asRecorded has the network be the one that its record tells of, as far as
// that matters to what takes it away.
func (c *conf) asRecorded(call *cni.Call, n *engine.Network) {
	c.Config.Bridge = n.Config().Bridge
	switch kind := n.IPAMType(); {
	case n.IPAM() != nil:
		c.ipam = n.IPAM()
	case kind != "" && (c.ipam == nil || c.ipam.Type() != kind):
		c.ipam = cni.NewDelegate(call, kind)
	}
}

// requested are the addresses that the runtime asks our pool for.
func (c *conf) requested() []netip.Addr {
	if c.Pool == nil {
		return nil
	}
	return c.Pool.Requested
}

// withNetwork calls fn with the network of the configuration.
func (c *conf) withNetwork(fn func(*engine.Controller, *engine.Network) error) error {
	opts := []engine.Option{engine.InOneNamespace(), engine.WithSteps(c.steps)}
	if c.driver.option != nil {
		opts = append(opts, c.driver.option())
	}
	if c.one {
		opts = append(opts, engine.EndsSoon())
	}
	if c.StateDir != "" {
		opts = append(opts, engine.WithStateDir(c.StateDir))
	}
	controller, err := engine.New(opts...)
	if err != nil {
		return err
	}
	// Not closed: the sockets go with the process, which ends now. To close them
	// before could wait for the kernel to free the rules that were deleted.
	if c.recall != nil {
		if recorded, err := controller.Network(c.name); err == nil {
			c.recall(recorded)
		}
	}
	def := []engine.NetworkOption{engine.WithConfig(c.Config)}
	if c.ipam != nil {
		def = append(def, engine.WithIPAM(c.ipam))
	}
	if c.layers != nil {
		def = append(def, engine.WithLayers(c.layers))
	}
	if c.list != "" {
		def = append(def, engine.WithSeen(c.list, c.seen, c.nodes))
	}
	n, err := controller.DefineNetwork(c.driver.name, c.name, def...)
	if err != nil {
		return err
	}
	return fn(controller, n)
}

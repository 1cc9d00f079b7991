package plugin

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/nodefile"
)

// readNodeFile takes this host's blocks out of what ln-agent wrote for the
// network. The list of the other hosts, which is long, it leaves unread: libnet
// reads it when it is needed.
func (c *conf) readNodeFile() error {
	dir := cmp.Or(c.stateDir, engine.DefaultStateDir)
	f, err := nodefile.ReadHead(dir, c.name)
	if err != nil {
		return err
	}
	if !nodefile.IsLocal(f.Self) {
		return &nodefile.NotReadyError{Network: c.name, File: nodefile.Path(dir, c.name), Why: "says that this host is " + f.Self.String() + ", which is no address of it"}
	}
	f.Device = cmp.Or(c.network.Tunnel.Device, f.Device) // each host has its own
	c.network.AutoMTU = c.network.AutoMTU && c.network.MTU != 0
	c.network = f.Apply(c.network)
	return nil
}

// AgentNetwork is a network of overlay-ln that ln-agent keeps, as a
// configuration has it.
type AgentNetwork struct {
	Name     string
	StateDir string // empty: libnet's default
	DataDir  string // of the leases; empty: libnet's default
	Subnets  []netip.Prefix
	Size     model.BlockSize
	// Config is without the hosts. A VNI or port of 0 is not given.
	Config model.NetworkConfig
}

// AgentNetworks returns the networks that a configuration, or a list of them,
// leaves to ln-agent: those of overlay-ln without nodes.
func AgentNetworks(data []byte) ([]AgentNetwork, error) {
	o, err := cni.ParseObject(data)
	if err != nil {
		return nil, err
	}
	var name string
	o.String("name", &name)
	plugins := []*cni.Object{o}
	if o.Has("plugins") {
		plugins = nil
		for _, item := range o.List("plugins") {
			plugins = append(plugins, item.Object())
		}
	}
	var all []AgentNetwork
	for _, p := range plugins {
		var kind string
		if p.String("type", &kind); kind != "overlay-ln" || p.Raw("nodes") != nil {
			continue
		}
		n, err := agentNetwork(name, p)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, o.Err()
}

func agentNetwork(name string, o *cni.Object) (AgentNetwork, error) {
	n := AgentNetwork{Name: name, Config: readNetwork(o)}
	o.String("stateDir", &n.StateDir)
	var kind string
	ipam := o.Object("ipam")
	ipam.String("type", &kind)
	ipam.String("dataDir", &n.DataDir)
	var err error
	n.Size, err = readTunnelKeys(o, &n.Config, kind)
	n.Subnets = n.Config.Tunnel.Subnets
	switch families := map[bool]bool{}; {
	case err != nil:
		return n, err
	case !model.ValidName(name):
		return n, badKey("name", fmt.Sprintf("%q", name), "want the network's name")
	case len(n.Subnets) == 0:
		return n, badKey("subnet", "missing", `want the network's as "10.5.0.0/16": ln-agent takes this host's block out of it`)
	default:
		for _, s := range n.Subnets {
			if families[s.Addr().Is6()] {
				return n, badKey("subnet", s.String(), "want one for each address family at most")
			}
			families[s.Addr().Is6()] = true
		}
	}
	return n, nil
}

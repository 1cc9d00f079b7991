package plugin

import (
	"cmp"
	"fmt"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/nodefile"
)

// joinTunnel finds the place of this host in a network that spans hosts: by the list of nodes,
// or in what ln-agent wrote.
func (c *conf) joinTunnel(call *cni.Call) (err error) {
	if c.ByAgent {
		err = c.readNodeFile()
	} else {
		err = c.findSelf()
	}
	if err != nil {
		return err
	}
	c.Pool.Config.Sets = address.BlockSets(c.Config.Tunnel.OwnSubnets())
	c.ipam, err = NewPool(call, c.Pool)
	return err
}

// skimNodes has a list of nodes that an earlier call has seen stay unread, but for this host.
func skimNodes(d driver, c *conf, call *cni.Call, s *netconf.Source) {
	s.Known = func(stateDir string, list ...[]byte) []model.Node {
		c.list = nodefile.DigestOf(list...)
		if c.seen = nodefile.ReadSeen(stateDir, call.Network, c.list); c.seen == nil {
			return nil
		}
		return []model.Node{c.seen.Node()}
	}
	c.nodes = func() ([]model.Node, error) {
		all, err := d.parse(call)
		if err != nil {
			return nil, err
		}
		return all.Config.Tunnel.Nodes, nil
	}
}

// findSelf tells which node this host is, and the blocks of all.
func (c *conf) findSelf() (err error) {
	t := &c.Config.Tunnel
	if t.Nodes, err = model.AssignBlocks(t.Nodes, t.Subnets, c.BlockSize); err != nil {
		return err
	}
	for i, n := range t.Nodes {
		if len(address.BlockSets(n.Subnets)) < len(n.Subnets) {
			return badKey(fmt.Sprintf("nodes[%d].subnet", i), fmt.Sprint(n.Subnets), "want one prefix per address family")
		}
	}
	if t.Self, err = nodefile.Own(t.Nodes); err != nil {
		return err
	}
	if len(t.OwnSubnets()) == 0 {
		return badKey("subnet", "missing", `want the network's as "10.5.0.0/16", or one with each of nodes`)
	}
	return nil
}

func badKey(key, value, want string) error {
	return &model.ConfigError{Key: key, Value: value, Want: want}
}

// readNodeFile takes this host's blocks out of what ln-agent wrote for the
// network. The list of the other hosts, which is long, it leaves unread: libnet
// reads it when it is needed.
func (c *conf) readNodeFile() error {
	dir := cmp.Or(c.StateDir, engine.DefaultStateDir)
	f, err := nodefile.ReadHead(dir, c.name)
	if err != nil {
		return err
	}
	if !nodefile.IsLocal(f.Self) {
		return &nodefile.NotReadyError{Network: c.name, File: nodefile.Path(dir, c.name), Why: "says that this host is " + f.Self.String() + ", which is no address of it"}
	}
	if f.Encryption != c.Config.Tunnel.Encryption {
		return &nodefile.NotReadyError{Network: c.name, File: nodefile.Path(dir, c.name), Why: "is of a network whose encryption is " +
			cmp.Or(string(f.Encryption), "none") + ", and the configuration's is " + cmp.Or(string(c.Config.Tunnel.Encryption), "none")}
	}
	f.Device = cmp.Or(c.Config.Tunnel.Device, f.Device) // each host has its own
	c.Config.AutoMTU = c.Config.AutoMTU && c.Config.MTU != 0
	c.Config = f.Apply(c.Config)
	return nil
}

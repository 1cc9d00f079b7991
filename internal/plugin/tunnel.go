package plugin

import (
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/nodefile"
)

// readTunnel reads the keys of a network that spans hosts. Others have another
// default then: the mode is "nat", unless the network is internal, and the MTU
// "auto".
func (c *conf) readTunnel(call *cni.Call, kind string) error {
	o, t := call.Conf, &c.network.Tunnel
	size, err := readTunnelKeys(o, &c.network, kind)
	switch {
	case err != nil:
		return err
	case len(t.Nodes) > 0:
		err = c.findSelf(size)
	case o.Raw("nodes") != nil:
		err = badKey("nodes", "[]", `want a list of the hosts' addresses as ["192.0.2.1", "192.0.2.2"], or none to have ln-agent keep it`)
	default:
		err = c.readNodeFile()
	}
	if err != nil {
		return err
	}
	c.ipam, c.requested, err = call.BlockPool(t.OwnSubnets())
	return err
}

// readTunnelKeys reads what does not depend on the host.
func readTunnelKeys(o *cni.Object, n *model.NetworkConfig, kind string) (model.BlockSize, error) {
	t, size := &n.Tunnel, model.DefaultBlockSize()
	o.Int("vni", &t.VNI)
	o.Int("port", &t.Port)
	o.String("device", &t.Device)
	o.Bool("isolated", &n.NoHost)
	t.Subnets = o.Prefixes("subnet")
	readBlockSize(o, &size)
	t.Nodes = readNodes(o)
	if err := o.Err(); err != nil {
		return size, err
	}
	if kind != "" && kind != address.PoolType {
		return size, badKey("ipam.type", fmt.Sprintf("%q", kind), "want \"ipam-ln\", or no ipam: the addresses are those of this host's block")
	}
	if o.Raw("gatewayMode") == nil && !n.Internal {
		n.GatewayModeIPv4, n.GatewayModeIPv6 = model.GatewayNAT, model.GatewayNAT
		n.DefaultGateway = n.DefaultGateway || o.Raw("isGateway") == nil && o.Raw("isDefaultGateway") == nil
	}
	n.AutoMTU = n.AutoMTU || o.Raw("mtu") == nil
	return size, nil
}

// findSelf tells which node this host is, and the blocks of all.
func (c *conf) findSelf(size model.BlockSize) (err error) {
	t := &c.network.Tunnel
	if t.Nodes, err = model.AssignBlocks(t.Nodes, t.Subnets, size); err != nil {
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

func readBlockSize(o *cni.Object, size *model.BlockSize) {
	s := o.Object("blockSize")
	s.Int("ipv4", &size.IPv4)
	s.Int("ipv6", &size.IPv6)
	if size.IPv4 < 1 || size.IPv4 > 30 {
		s.Refuse("ipv4", "the length of a prefix, 1 to 30")
	}
	if size.IPv6 < 1 || size.IPv6 > 126 {
		s.Refuse("ipv6", "the length of a prefix, 1 to 126")
	}
}

// readNodes reads addresses, and objects of an address and its blocks.
func readNodes(o *cni.Object) []model.Node {
	var all []model.Node
	for _, item := range o.List("nodes") {
		if item.IsObject() {
			n := item.Object()
			node := model.Node{Address: n.Addr("address"), Subnets: n.Prefixes("subnet")}
			if !node.Address.IsValid() {
				n.Refuse("address", `the host's address as "192.0.2.1"`)
			}
			all = append(all, node)
			continue
		}
		s, _ := item.Text()
		a, err := netip.ParseAddr(s)
		if err != nil {
			item.Refuse(`an address as "192.0.2.1", or an object as {"address": "192.0.2.1", "subnet": "10.5.1.0/24"}`)
		}
		all = append(all, model.Node{Address: a.Unmap()})
	}
	return all
}

package plugin

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/pkg/libnet"
)

// readNodeFile takes this host's blocks out of what ln-agent wrote for the
// network. The list of the other hosts, which is long, it leaves unread: libnet
// reads it when it is needed.
func (c *conf) readNodeFile() error {
	path := libnet.NodeFilePath(cmp.Or(c.stateDir, libnet.DefaultStateDir), c.name)
	not := func(why string) error { return &libnet.NotReadyError{Network: c.name, File: path, Why: why} }
	data, err := plain.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return not("is missing")
	}
	if err != nil {
		return err
	}
	f, until, err := parseNodeFile(data)
	switch {
	case err != nil:
		return fmt.Errorf("node file %s: %w", path, err)
	case len(f.Nodes) == 0:
		return not("has no block of this host's")
	case until != 0 && until <= libnet.Uptime():
		return not("is out of date: ln-agent has not reached etcd for longer than its --block-ttl, and others may have the block by now")
	}
	f.Device = cmp.Or(c.network.Tunnel.Device, f.Device) // each host has its own
	if c.network.MTU == 0 {
		c.network.MTU, c.network.AutoMTU = f.mtu, false
	}
	c.network.Tunnel = f.TunnelConfig
	return nil
}

// ownPart is what a node file says of this host.
type ownPart struct {
	libnet.TunnelConfig
	mtu int
}

func parseNodeFile(data []byte) (f ownPart, until int64, err error) {
	// The nodes come last.
	if head, _, found := bytes.Cut(data, []byte(`,"nodes":[`)); found {
		data = append(slices.Clip(head), '}')
	}
	o, err := cni.ParseObject(data)
	if err != nil {
		return f, 0, err
	}
	f.Agent, f.Self, f.Subnets = true, o.Addr("self"), o.Prefixes("subnets")
	o.Int("vni", &f.VNI)
	o.Int("port", &f.Port)
	o.Int("mtu", &f.mtu)
	o.String("device", &f.Device)
	var seconds int
	o.Int("until", &seconds)
	if blocks := o.Prefixes("blocks"); len(blocks) > 0 && f.Self.IsValid() {
		f.Nodes = []libnet.Node{{Address: f.Self, Subnets: blocks}}
	}
	return f, int64(seconds), o.Err()
}

// AgentNetwork is a network of overlay-ln that ln-agent keeps, as a
// configuration has it.
type AgentNetwork struct {
	Name     string
	StateDir string // empty: libnet's default
	DataDir  string // of the leases; empty: libnet's default
	Subnets  []netip.Prefix
	Size     libnet.BlockSize
	// Config is without the hosts. A VNI or port of 0 is not given.
	Config libnet.NetworkConfig
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
	case !libnet.ValidName(name):
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

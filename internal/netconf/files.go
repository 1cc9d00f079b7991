package netconf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plain"
)

// Configured returns the configuration of a network as the files of a directory
// have it, *.conf, *.conflist and *.json, the first by name; false if none names
// it. Of several plugins in a list the one of ours counts. A directory that is
// missing has none. A file that cannot be read is an error unless another one
// names the network.
func Configured(dir, network string) (cfg model.NetworkConfig, found bool, err error) {
	var errs []error
	for _, name := range configurations(dir) {
		data, err := plain.ReadFile(name)
		if err == nil {
			cfg, found, err = configured(data, network)
		}
		if found && err == nil {
			return cfg, true, nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return model.NetworkConfig{}, false, errors.Join(errs...)
}

func configured(data []byte, network string) (model.NetworkConfig, bool, error) {
	file, err := jsonr.Parse(data)
	if err != nil || nameOf(file) != network {
		return model.NetworkConfig{}, false, err
	}
	plugins := ofType(file, Bridge) // of overlay-ln the hosts are not in the file alone
	if len(plugins) == 0 {
		return model.NetworkConfig{}, false, file.Err()
	}
	o, _, err := complete(Bridge, plugins[0])
	if err != nil {
		return model.NetworkConfig{}, false, err
	}
	v := read(o, table[:])
	cfg := readConfig(Bridge, v)
	if cfg.VLANTrunk, err = readTrunk(v[keyVLANTrunk]); err != nil {
		return cfg, false, err
	}
	return cfg, true, errors.Join(file.Err(), o.Err())
}

// complete lays a plugin's object upon what lies below it; nil: nothing does.
func complete(p Plugin, o *jsonr.Object) (*jsonr.Object, *Completed, error) {
	if p&networks == 0 {
		return o, nil, nil
	}
	below, err := ReadBelow(LayersDir, o)
	if err != nil {
		return o, nil, ofBelow{err}
	}
	if below == nil {
		return o, nil, nil
	}
	c, err := below.Complete(p, o)
	if err != nil {
		return o, nil, ofBelow{err}
	}
	return c.Conf, c, nil
}

// ofType returns the plugins of a type that a file has: of a list of plugins, or of a file for
// one.
func ofType(file *jsonr.Object, p Plugin) (found []*jsonr.Object) {
	all := []*jsonr.Object{file}
	if list := table[keyPlugins].Name; file.Has(list) {
		all = nil
		for _, item := range file.At(list).Items() {
			all = append(all, item.Object())
		}
	}
	for _, o := range all {
		var kind string
		if o.At(table[keyType].Name).String(&kind); kind == p.String() {
			found = append(found, o)
		}
	}
	return found
}

func nameOf(file *jsonr.Object) (name string) {
	file.At(table[keyName].Name).String(&name)
	return name
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
	file, err := jsonr.Parse(data)
	if err != nil {
		return nil, err
	}
	var all []AgentNetwork
	for _, o := range ofType(file, Overlay) {
		if o, _, err = complete(Overlay, o); err != nil {
			return nil, err
		}
		v := read(o, table[:])
		if !v[keyNodes].Missing() {
			continue
		}
		n, err := agentNetwork(nameOf(file), v, o)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, file.Err()
}

func agentNetwork(name string, v values, o *jsonr.Object) (AgentNetwork, error) {
	n := AgentNetwork{Name: name, Config: readConfig(Overlay, v)}
	v[keyStateDir].String(&n.StateDir)
	var kind string
	ipam := inside(v[keyIPAM], ipamTable)
	ipam[ipamType].String(&kind)
	ipam[ipamDataDir].String(&n.DataDir)
	var err error
	n.Size, err = readTunnelKeys(v, &n.Config, kind, Source{Conf: o}, "")
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

// SecureNetwork is a network of overlay-ln that is encrypted, as a configuration has it.
type SecureNetwork struct {
	Name     string
	StateDir string // empty: libnet's default
	// ByAgent: ln-agent keeps it, and it has neither PrivateKeyFile nor Nodes.
	ByAgent        bool
	PrivateKeyFile string
	Nodes          []model.Node
}

// SecureNetworks returns the networks of a configuration, or of a list of them, that are
// encrypted.
func SecureNetworks(data []byte) ([]SecureNetwork, error) {
	file, err := jsonr.Parse(data)
	if err != nil {
		return nil, err
	}
	var all []SecureNetwork
	for _, o := range ofType(file, Overlay) {
		if o, _, err = complete(Overlay, o); err != nil {
			return nil, err
		}
		v := read(o, table[:])
		var t model.TunnelConfig
		t.Nodes = readNodes(v[keyNodes])
		readEncryption(v, &t)
		if err := o.Err(); err != nil {
			return nil, err
		}
		if !t.Encrypted() {
			continue
		}
		n := SecureNetwork{Name: nameOf(file), ByAgent: v[keyNodes].Missing(), PrivateKeyFile: t.PrivateKeyFile, Nodes: t.Nodes}
		v[keyStateDir].String(&n.StateDir)
		if !model.ValidName(n.Name) {
			return nil, badKey("name", fmt.Sprintf("%q", n.Name), "want the network's name")
		}
		all = append(all, n)
	}
	return all, file.Err()
}

package model

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/sorting"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// Node is a host of a network that spans hosts.
type Node struct {
	// Address [nodes[].address] is where the other hosts reach it.
	Address netip.Addr
	// Subnets [nodes[].subnet] are the host's blocks: its containers' addresses,
	// and its own first ones.
	Subnets []netip.Prefix
	// PublicKey [nodes[].publicKey] is the host's, with Encryption; zero: none.
	PublicKey wireguard.Key `json:",omitzero"`
	// Keys are the host's where an agent keeps the network and it is encrypted.
	Keys []EpochKey `json:"-"`
	// Epoch is that of the device by which the routes to the host lead, as of Keys.
	Epoch int `json:"-"`
	// Direct is how this host reaches it without a tunnel, where an agent keeps the network;
	// nil: only by the tunnel.
	Direct *Direct `json:"-"`
}

// Direct is how this host reaches another one of the network without a tunnel.
type Direct = overlay.Direct

// EpochKey is a host's public key of an epoch, and the UDP port of its device.
type EpochKey = overlay.EpochKey

// KeyOf returns the host's key of an epoch; zero: it has none.
func (n Node) KeyOf(epoch int) EpochKey { return overlay.HostKeys{Keys: n.Keys}.Of(epoch) }

// Encryption says how packets between the hosts of a network are encrypted.
type Encryption = overlay.Encryption

// WireGuard is the only encryption; the zero value is none.
const WireGuard Encryption = "wireguard"

// TunnelConfig says which hosts a network spans and how frames get from one to
// another. All of it but Self is the same on every host. The zero value is a
// network of one host.
type TunnelConfig struct {
	// Nodes [nodes] are the network's hosts, this one among them.
	Nodes []Node
	// Agent says that an agent keeps the tunnel, and the hosts in the node file:
	// Nodes may be this one alone then. A tunnel that is there is left to it.
	Agent bool `json:",omitempty"`
	// Self is this host's address among them; see package engine.
	Self netip.Addr
	// Subnets [subnet] are the network's, of which the hosts have blocks; nil: it
	// is just the blocks.
	Subnets []netip.Prefix
	// VNI [vni], 1 to 16777215; 0: derived from the network's name.
	VNI int
	// Port [port] is the UDP port; 0: 4789, or with Encryption derived from the network's
	// name.
	Port int
	// Device [device] of the host that frames leave by; empty: as the routes say.
	Device string
	// Encryption [encryption] of what goes from one host to another; empty: none.
	Encryption Encryption `json:",omitempty"`
	// PrivateKeyFile [privateKeyFile] is where this host's private key is, with Encryption.
	PrivateKeyFile string `json:",omitempty"`
	// Epochs are those of which this host has a device, the newest first, where an agent keeps
	// the network and it is encrypted. They change all the time: neither record nor
	// fingerprint has them.
	Epochs []int `json:"-"`
	// DirectRouting [directRouting] has packets to hosts on the same Ethernet segment go there
	// without a tunnel. An agent finds out which these are, so it is with Agent only.
	DirectRouting bool `json:",omitempty"`
}

// BlockSize is how long the prefix of a host's block is, by address family.
type BlockSize struct{ IPv4, IPv6 int }

// DefaultBlockSize has room for 253 containers on a host by IPv4.
func DefaultBlockSize() BlockSize { return BlockSize{IPv4: 24, IPv6: 64} }

// AssignBlocks gives each node that has no Subnets its block of every subnet,
// by its place in the list: the first node has the first block. It changes
// nothing in nodes. The error is a *ConfigError.
func AssignBlocks(nodes []Node, subnets []netip.Prefix, size BlockSize) ([]Node, error) {
	out := slices.Clone(nodes)
	for i := range out {
		if len(out[i].Subnets) > 0 {
			continue
		}
		out[i].Subnets = nil
		for _, s := range subnets {
			bits := size.IPv4
			if s.Addr().Is6() {
				bits = size.IPv6
			}
			b, ok := overlay.Block(s, bits, i)
			if !ok {
				return nil, BadConfig("subnet", s, fmt.Sprintf("want room for %d blocks of /%d, one for each of nodes; see blockSize", len(nodes), bits))
			}
			out[i].Subnets = append(out[i].Subnets, b)
		}
	}
	return out, nil
}

// Brief shows a list of addresses, of a long one its start.
func Brief(all []netip.Addr) string {
	const most = 5
	if len(all) > most {
		return fmt.Sprintf("%v and %d more", all[:most], len(all)-most)
	}
	return fmt.Sprint(all)
}

// OwnSubnets returns the blocks of the host Self.
func (t TunnelConfig) OwnSubnets() []netip.Prefix { return t.Blocks() }

func (t TunnelConfig) Blocks() []netip.Prefix {
	for _, n := range t.Nodes {
		if n.Address == t.Self {
			return n.Subnets
		}
	}
	return nil
}

// Reach returns all that belongs to the network: its subnets, and the blocks
// outside of them.
func (t TunnelConfig) Reach() []netip.Prefix {
	all := slices.Clone(t.Subnets)
	for _, n := range t.Nodes {
		for _, b := range n.Subnets {
			if !slices.ContainsFunc(all, func(s netip.Prefix) bool { return s.Overlaps(b) && s.Bits() <= b.Bits() }) {
				all = append(all, b)
			}
		}
	}
	return all
}

func (c NetworkConfig) validateTunnel() error {
	t := c.Tunnel
	if !t.Used() {
		if c.NoHost {
			return BadConfig("isolated", true, "needs nodes: it is about a network that spans hosts")
		}
		return nil
	}
	if err := errors.Join(t.validateEncryption(), c.validateDirect()); err != nil {
		return err
	}
	switch {
	case t.VNI < 0 || t.VNI > overlay.MaxVNI:
		return BadConfig("vni", t.VNI, fmt.Sprintf("want 1 to %d, or 0 to have it derived from the network's name", overlay.MaxVNI))
	case t.Port < 0 || t.Port > 65535:
		return BadConfig("port", t.Port, "want a UDP port from 1 to 65535")
	case t.Device != "" && !ValidIfName(t.Device):
		return BadConfig("device", fmt.Sprintf("%q", t.Device), "want an interface name of 1 to 15 bytes without '/', ':' and blanks")
	case c.VLAN != 0:
		return BadConfig("vlan", c.VLAN, "cannot be together with nodes: hosts are joined by routes, not by frames")
	case c.IsIsolated():
		return BadConfig("gatewayMode", `"isolated"`, `cannot be together with nodes, as the way to other hosts is by the bridge's address; see "internal" and "isolated"`)
	case c.Backend == BackendIPTables:
		return BadConfig("backend", `"iptables"`, `cannot be together with nodes: want "nftables" or "auto"`)
	}
	return t.validateNodes()
}

// validateDirect refuses what direct routing cannot be together with. isolated and icc: false
// keep out what comes by the tunnel, and a packet that comes directly is none.
func (c NetworkConfig) validateDirect() error {
	const key = "directRouting"
	t := c.Tunnel
	switch {
	case !t.DirectRouting:
	case !t.Agent:
		return BadConfig(key, true, "needs ln-agent, which finds the hosts of the same segment: want no nodes")
	case t.Encrypted():
		return BadConfig(key, true, "cannot be together with encryption: packets would go unencrypted")
	case c.NoHost:
		return BadConfig(key, true, "cannot be together with isolated: true; remove one of them")
	case c.ForbidsICC():
		return BadConfig(key, true, "cannot be together with icc: false, which keeps all packets from other hosts out; remove one of them")
	}
	return nil
}

// place is a block and the key it comes from.
type place struct {
	key string
	net netip.Prefix
}

// validateApart refuses blocks that overlap. Sorted, one that overlaps others
// overlaps its neighbour.
func validateApart(blocks []place) error {
	sorting.Stable(blocks, func(a, b place) int { return a.net.Compare(b.net) })
	for i := 1; i < len(blocks); i++ {
		if a, b := blocks[i-1], blocks[i]; a.net.Overlaps(b.net) {
			return BadConfig(b.key, b.net, fmt.Sprintf("overlaps %s of %s", a.net, a.key))
		}
	}
	return nil
}

func (t TunnelConfig) validateNodes() error {
	var blocks []place
	addrs := map[netip.Addr]bool{}
	for i, n := range t.Nodes {
		key := fmt.Sprintf("nodes[%d]", i)
		a := n.Address
		switch {
		case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is4In6() || a.Zone() != "":
			return BadConfig(key, a, "want a host's unicast address")
		case a.Is6() != t.Nodes[0].Address.Is6():
			return BadConfig(key, a, "want an address of the same family as the other hosts'")
		case addrs[a]:
			return BadConfig(key, a, "is there twice")
		case len(n.Subnets) == 0:
			return BadConfig(key, a, "has no subnet: give the network one, or this node")
		}
		addrs[a] = true
		for _, b := range n.Subnets {
			at := place{key + ".subnet", b}
			if b != b.Masked() || b.Addr().Is4In6() || b.Bits() > b.Addr().BitLen()-2 {
				return BadConfig(at.key, b, "want prefixes without host bits, of /30 or shorter (IPv6: /126)")
			}
			blocks = append(blocks, at)
		}
	}
	if !addrs[t.Self] {
		return BadConfig("nodes", t.Self, "this host's address is not among them")
	}
	return validateApart(blocks)
}

// Encrypted says that no packet of the network may go from one host to another as it is.
func (t TunnelConfig) Encrypted() bool { return t.Encryption != "" }

// PortOf is the UDP port, which follows from the network's name if none is given and the
// network is encrypted.
func (t TunnelConfig) PortOf(network string) int {
	switch {
	case t.Port != 0:
		return t.Port
	case t.Encrypted():
		return overlay.SecurePort(network)
	}
	return overlay.DefaultPort
}

// MTU is that of the inside over a path with an MTU, in bytes.
func (t TunnelConfig) MTU(path int) int {
	if t.Encrypted() {
		return overlay.SecureMTU(path, t.Self)
	}
	return overlay.MTU(path, t.Self)
}

// OwnKey is the public key by which the other hosts know this one; zero: none is given.
func (t TunnelConfig) OwnKey() wireguard.Key {
	for _, n := range t.Nodes {
		if n.Address == t.Self {
			return n.PublicKey
		}
	}
	return wireguard.Key{}
}

// Used says that the network spans hosts.
func (t TunnelConfig) Used() bool { return len(t.Nodes) > 0 }

func (t TunnelConfig) VNIOf(network string) int {
	if t.VNI == 0 {
		return overlay.VNI(network)
	}
	return t.VNI
}

// AddTunnelRoutes leads to the network's other hosts where no default route does.
func (a *Addressing) AddTunnelRoutes(t TunnelConfig) {
	for _, dst := range t.Reach() {
		gw := a.Gateway(dst.Addr().Is6())
		has := slices.ContainsFunc(a.Routes, func(r Route) bool { return r.Dst.Masked() == dst })
		own := slices.ContainsFunc(a.Addresses, func(addr Address) bool { return addr.Prefix.Masked() == dst })
		if gw.IsValid() && !has && !own {
			a.Routes = append(a.Routes, Route{Dst: dst, Gateway: gw})
		}
	}
}

package overlay

import (
	"hash/fnv"
	"net/netip"
	"strconv"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/tunnel"
)

// What VXLAN adds to a packet, in bytes: the outer IP header, UDP, VXLAN and
// the inner Ethernet header (RFC 7348, section 5).
const (
	overheadIPv4 = 20 + 8 + 8 + 14
	overheadIPv6 = 40 + 8 + 8 + 14
)

// DefaultPort is the UDP port of VXLAN (RFC 7348).
const DefaultPort = 4789

// VNIs that are derived lie between MinVNI and MaxVNI, as Docker's do; those
// below are for who chooses one.
const (
	MinVNI = 4096
	MaxVNI = 1<<24 - 1
)

// Node is a host of the network.
type Node struct {
	// Address of the host underneath.
	Address netip.Addr
	// Blocks are its parts of the network's subnets.
	Blocks []netip.Prefix
}

// Network is what all hosts of a network agree on, and the names on this one.
type Network struct {
	Name, Alias string // of the device
	VNI         int
	Port        uint16
	Device      string
	MTU         int // of the device, in bytes; 0: any
}

// Plan returns what the network is on the host with the address self: a device
// that holds the first address of each block of its own, and for each other
// host a route per block, of families that this one has, by its first address, the MAC behind it, and
// where frames for this MAC go. A self that is no node has no addresses.
func Plan(n Network, nodes []Node, self netip.Addr) tunnel.Tunnel {
	t := tunnel.Tunnel{
		Name: n.Name, Alias: n.Alias, VNI: n.VNI, Port: n.Port, Device: n.Device, MTU: n.MTU,
		Local: self, MAC: MAC(n.VNI, self), IPv6: host.IPv6Off,
	}
	spoken := map[bool]bool{} // families, by Is6
	for _, b := range blocksOf(nodes, self) {
		a := b.Masked().Addr()
		t.Addrs = append(t.Addrs, netip.PrefixFrom(a, a.BitLen()))
		spoken[a.Is6()] = true
	}
	if spoken[true] {
		t.IPv6 = host.IPv6On
	}
	for _, node := range nodes {
		if node.Address == self {
			continue
		}
		mac := MAC(n.VNI, node.Address)
		t.FDB = append(t.FDB, tunnel.FDBEntry{MAC: mac, Remote: node.Address})
		for _, b := range node.Blocks {
			via := b.Masked().Addr()
			if !spoken[via.Is6()] {
				continue
			}
			t.Routes = append(t.Routes, tunnel.Route{Dst: b.Masked(), Via: via})
			t.Neighbours = append(t.Neighbours, tunnel.Neighbour{Addr: via, MAC: mac})
		}
	}
	return t
}

func blocksOf(nodes []Node, host netip.Addr) []netip.Prefix {
	for _, n := range nodes {
		if n.Address == host {
			return n.Blocks
		}
	}
	return nil
}

// MAC derives the MAC of a host's end of the tunnel, locally administered, so
// that no host has to ask for it.
func MAC(vni int, host netip.Addr) tunnel.MAC {
	var room [64]byte
	h := fnv.New64a()
	_, _ = h.Write(host.AppendTo(append(strconv.AppendInt(room[:0], int64(vni), 10), ' ')))
	sum := h.Sum(room[:0])
	var m tunnel.MAC
	copy(m[:], sum)
	m[4] ^= sum[6]
	m[5] ^= sum[7]
	m[0] = m[0]&^1 | 2
	return m
}

// VNI derives the VNI of a network that has not chosen one: the FNV-1a hash of
// 32 bits of its name, folded into MinVNI to MaxVNI.
func VNI(network string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(network))
	return MinVNI + int(h.Sum32()%(MaxVNI-MinVNI+1))
}

// MTU returns the MTU inside of a tunnel over a path with an MTU.
func MTU(path int, underlay netip.Addr) int {
	if underlay.Is6() {
		return path - overheadIPv6
	}
	return path - overheadIPv4
}

// Block returns block number i of a subnet cut into blocks of a length; false
// if there is none.
func Block(subnet netip.Prefix, bits, i int) (netip.Prefix, bool) {
	cut := bits - subnet.Bits()
	if cut < 0 || bits > subnet.Addr().BitLen() || i < 0 || cut < 63 && i >= 1<<cut {
		return netip.Prefix{}, false
	}
	b := subnet.Masked().Addr().AsSlice()
	for at := bits - 1; i > 0; at-- { // bit by bit, the lowest first
		if i&1 != 0 {
			b[at/8] |= 0x80 >> (at % 8)
		}
		i >>= 1
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, bits), true
}

package overlay

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"strconv"
	"time"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/tunnel"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// The bytes that VXLAN adds to a packet: the outer IP header, UDP, VXLAN and the inner
// Ethernet header (RFC 7348, section 5).
const (
	overheadIPv4 = 20 + 8 + 8 + 14
	overheadIPv6 = 40 + 8 + 8 + 14
)

// WireGuard adds this to a packet, in bytes: the outer IP header, UDP, its own header and the
// tag behind (the whitepaper of WireGuard, section 5.4.6).
const (
	secureIPv4 = 20 + 8 + 16 + 16
	secureIPv6 = 40 + 8 + 16 + 16
)

// Ports of encrypted networks that are derived lie above those that Linux gives to clients.
const (
	minSecurePort = 61440
	securePorts   = 4096
)

// DefaultPort is the UDP port of VXLAN (RFC 7348).
const DefaultPort = 4789

// VNIs that are derived lie between MinVNI and MaxVNI, as Docker's do; those
// below are for configurations that choose one.
const (
	MinVNI = 4096
	MaxVNI = 1<<24 - 1
)

// Node is a host of the network.
type Node struct {
	// Address of the host on the underlay.
	Address netip.Addr
	// Blocks are its parts of the network's subnets.
	Blocks []netip.Prefix
	// PublicKey of the host, where the network is encrypted; zero: it has none for this
	// device, and is no peer of it.
	PublicKey wireguard.Key
	// Port at which the host's device listens, where the network is encrypted; 0: that of the
	// network.
	Port uint16
	// Elsewhere: the routes to the host's blocks lead by the network's other device.
	Elsewhere bool
	// Direct is how the host is reached without a tunnel; nil: only by it.
	Direct *Direct
}

// Network is what all hosts of a network agree on, and the names on this one.
type Network struct {
	Name, Alias string // of the device
	VNI         int
	Port        uint16
	Device      string
	MTU         int // of the device, in bytes; 0: any
	// Instead are the devices that the network may have had by another configuration.
	Instead []string
	// Nets are all that belongs to the network, where it is encrypted; nil: it is not.
	Nets []netip.Prefix
	// Past are all that belongs to the network, where blocks may be led to past the tunnel;
	// nil: they may not.
	Past []netip.Prefix
	// Loose is as of tunnel.Tunnel.
	Loose bool
	// Sister is the name of the network's other device while there are two, and Kept says
	// that an agent keeps the network, so that there may be two.
	Sister string
	Kept   bool
}

// Keepalive is after how many seconds the peers of networks that an agent keeps hear of each
// other at least, by the one that Begins. The session is then renewed every two minutes, so that one which is older
// tells of a peer that is out of reach, and the way through a NAT stays open.
const Keepalive = 25

// SessionEnds is after how long without a handshake there is no session with such a peer: one is
// renewed every two minutes while there are packets, and cannot be used any more after three.
const SessionEnds = 190 * time.Second

// Plan returns what the network is on the host with the address self: a device
// that holds the first address of each block of its own, and for each other
// host a route per block, of families that this one has, by its first address, the MAC behind it, and
// where frames for this MAC go. A self that is no node has no addresses. The routes to blocks of a
// host that is reached directly lead there past the device, which is ready to take over.
//
// Of a network that is encrypted the device is of WireGuard: each other host is a peer with
// its blocks, and the routes lead by the device alone.
func Plan(n Network, nodes []Node, self netip.Addr) tunnel.Tunnel {
	if n.Nets != nil {
		return planSecure(n, nodes, self)
	}
	t := tunnel.Tunnel{
		Name: n.Name, Alias: n.Alias, VNI: n.VNI, Port: n.Port, Device: n.Device, MTU: n.MTU,
		Local: self, MAC: MAC(n.VNI, self), IPv6: host.IPv6Off, Instead: n.Instead,
		Nets: n.Past, Loose: n.Loose,
	}
	spoken := addOwn(&t, nodes, self)
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
			if !addDirect(&t, node, b) {
				t.Routes = append(t.Routes, tunnel.Route{Dst: b.Masked(), Via: via})
			}
			t.Neighbours = append(t.Neighbours, tunnel.Neighbour{Addr: via, MAC: mac})
		}
	}
	return t
}

// addOwn gives the device the first address of each block of this host, and returns the
// families of them, by Is6.
func addOwn(t *tunnel.Tunnel, nodes []Node, self netip.Addr) (spoken map[bool]bool) {
	spoken = map[bool]bool{}
	for _, b := range blocksOf(nodes, self) {
		a := b.Masked().Addr()
		t.Addrs = append(t.Addrs, netip.PrefixFrom(a, a.BitLen()))
		spoken[a.Is6()] = true
	}
	if spoken[true] {
		t.IPv6 = host.IPv6On
	}
	return spoken
}

// Begins says which of two hosts begins the first handshake with the other. If both do at the same
// time, each forgets its own for the other's, and none is completed until five seconds later.
func Begins(self, other netip.Addr) bool { return self.Compare(other) > 0 }

// planSecure is Plan for a network that is encrypted.
func planSecure(n Network, nodes []Node, self netip.Addr) tunnel.Tunnel {
	t := tunnel.Tunnel{Name: n.Name, Alias: n.Alias, Port: n.Port, MTU: n.MTU, IPv6: host.IPv6Off, Instead: n.Instead}
	t.Secure = &tunnel.Secure{Nets: n.Nets, Sister: n.Sister, Loose: n.Kept}
	spoken := addOwn(&t, nodes, self)
	for _, node := range nodes {
		if node.Address == self {
			t.Secure.PublicKey = node.PublicKey
			continue
		}
		if node.PublicKey.IsZero() {
			continue
		}
		p := wireguard.Peer{PublicKey: node.PublicKey, Endpoint: netip.AddrPortFrom(node.Address, cmp.Or(node.Port, n.Port))}
		if n.Kept && Begins(self, node.Address) {
			p.Keepalive = Keepalive
		}
		for _, b := range node.Blocks {
			p.Allowed = append(p.Allowed, b.Masked())
			switch {
			case !spoken[b.Addr().Is6()]:
			case node.Elsewhere:
				t.Secure.Elsewhere = append(t.Secure.Elsewhere, b.Masked())
			default:
				t.Routes = append(t.Routes, tunnel.Route{Dst: b.Masked()})
			}
		}
		t.Secure.Peers = append(t.Secure.Peers, p)
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

// SecureMTU is MTU for an encrypted network.
func SecureMTU(path int, underlay netip.Addr) int {
	if underlay.Is6() {
		return path - secureIPv6
	}
	return path - secureIPv4
}

// SecurePort derives the UDP port of an encrypted network that has not chosen one: the
// FNV-1a hash of 32 bits of its name, folded into 61440 to 65535.
func SecurePort(network string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(network))
	return minSecurePort + int(h.Sum32()%securePorts)
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

package firewall

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Handover says whose published ports an Endpoint takes over in the transaction
// that puts its own in place: no connection falls in between.
type Handover struct {
	From string    // owner, in the form of Key; its rules for these ports go
	Was  []PortMap // Standby at the time of the last Apply: what was put in place for it then and is not wanted now goes
}

// Policy says which sources may open connections to the containers of a network from
// other interfaces than the network's bridge, for one address family. The host
// itself always may.
type Policy uint8

// The policies, as Docker's gateway modes have them.
const (
	// Open lets in all packets: no rules. Ports are published by DNAT.
	Open Policy = iota
	// Published lets in only what comes by a published port of the host, by
	// DNAT; and from Network.Trusted interfaces what goes to the container's
	// address and a published container port.
	Published
	// Unprotected is Open under the name that Docker has for it (nat-unprotected).
	Unprotected
	// Routed publishes no port of the host: what goes to the container's own
	// address comes in if it is for a published container port, or ICMP.
	Routed
)

// Mark is a value of the packet mark under a mask.
type Mark struct{ Value, Mask uint32 }

// Network says which rules hold for a whole network. The zero value has none.
type Network struct {
	// Name is the comment of the elements of Tunnel, in the form of Key.
	Name string
	// Guard is the comment of the elements that concern Bridge alone, in the
	// form of Key: all networks on one bridge share them, so they belong to the
	// bridge. Empty: Name.
	Guard string
	// Bridge is the host's bridge. Elements are keyed by it.
	Bridge string
	// Exact says what of the elements that Apply finds in place, and does not ask
	// for, is removed.
	Exact Exactness
	// Internal drops what is forwarded between Bridge and any other interface, both ways.
	Internal bool
	// NoICC drops what is forwarded in and out by Bridge. Frames that are
	// bridged, not routed, are out of its reach: see isolated bridge ports.
	NoICC bool
	// Apart drops what is forwarded between Bridge and the bridge of another
	// network that is Apart, DNAT or not, as the ingressPolicy "same-bridge" of
	// the reference firewall plugin.
	Apart bool
	// IPv4 and IPv6 are the policies by family.
	IPv4, IPv6 Policy
	// Own are the policies of the endpoint's own network, where IPv4 and IPv6 are
	// the strictest of several on Bridge: they say how its Ports are published. Nil:
	// the same.
	Own *Policies
	// Trusted are interfaces from which published container ports can be
	// reached by the container's address under Published.
	Trusted []string
	// Tunnel is the interface by which Bridge reaches the network's other hosts;
	// empty: none. Nothing is forwarded in and out by it but from and to Bridge.
	Tunnel string
	// Spare is another such interface; empty: none.
	Spare string `json:",omitempty"`
	// VTEPs are the only source addresses of what comes in by Tunnel.
	VTEPs []net.HardwareAddr
	// Underlay describes the packets that carry frames for Tunnel, and their senders.
	Underlay Underlay
	// Sealed are prefixes: what Bridge sends there leaves by Bridge and Tunnel only, and
	// what comes from there to Bridge comes in by these only. They do not overlap. Nil:
	// nothing is sealed.
	Sealed []netip.Prefix `json:",omitempty"`
	// Direct are the network's other hosts that Bridge may reach without Tunnel.
	Direct []Near `json:",omitempty"`
	// NoHost keeps the host from opening connections by Bridge and Tunnel, and takes
	// no IPv4 packet from there that has no source, as of a DHCP client.
	NoHost bool
	// AcceptMark lets in packets whose mark, masked, is this, whatever the
	// policy says; nil: none.
	AcceptMark *Mark
}

// Exactness says which elements of networks Apply removes.
type Exactness uint8

// The elements that Apply removes.
const (
	AddOnly      Exactness = iota // nothing
	AdoptBridge                   // what concerns Bridge alone and has another owner than Guard, as releases before v0.2 wrote it
	ExactBridge                   // what concerns Bridge alone
	ExactNetwork                  // that, and what concerns Tunnel
)

// policy returns the policy for the family of a.
func (n Network) policy(a netip.Addr) Policy {
	if a.Is4() {
		return n.IPv4
	}
	return n.IPv6
}

// Policies are one for each family.
type Policies struct{ IPv4, IPv6 Policy }

// PublishesBy returns the policy by which ports of the endpoint at a are published.
func (n Network) PublishesBy(a netip.Addr) Policy {
	if n.Own != nil {
		n.IPv4, n.IPv6 = n.Own.IPv4, n.Own.IPv6
	}
	return n.policy(a)
}

// Families is a choice of address families.
type Families struct{ IPv4, IPv6 bool }

// Has says that the family of a is chosen.
func (f Families) Has(a netip.Addr) bool { return a.Is4() && f.IPv4 || a.Is6() && f.IPv6 }

// Endpoint says which rules hold for one attachment. An Endpoint with neither
// Masquerade nor MAC nor Ports has no rules.
type Endpoint struct {
	// Owner is the comment of the endpoint's elements, in the form of Key.
	Owner string
	// Bridge is the host's interface by which Addrs are reached: the bridge, or
	// what another plugin made in its place. Port is the host's end of the veth.
	Bridge, Port string
	// Tunnel is an interface by which Masquerade leaves packets alone as by
	// Bridge; empty: none. Spare is another one.
	Tunnel, Spare string
	// Addrs are the container's addresses, of both families.
	Addrs []netip.Addr
	// Masquerade gives packets from Addrs of these families that leave by
	// another interface than Bridge the address of that interface, or Source,
	// unless they go to a multicast address.
	Masquerade Families
	// Source are addresses of the host to take for Masquerade in place of the
	// outgoing interface's, one per family at most; a family without one takes
	// the interface's.
	Source []netip.Addr
	// MAC, if not nil, drops frames entering by Port with another source address.
	MAC net.HardwareAddr
	// Ports are published; see Port for the first address of each family.
	Ports []PortMap
	// Standby are parts of Ports that another attachment of the same container has
	// published: they are left out. Only protocol, address and ports of the host
	// count. See Handover.
	Standby []PortMap
	// Handover, if not nil, has Apply take over ports that another owner has.
	Handover *Handover
	// Hairpin lets the container itself, its neighbours on Bridge, and the host
	// by 127.0.0.0/8 reach Ports: these connections get the host's address as
	// their source, all others keep theirs. For 127.0.0.0/8 the interface Bridge
	// needs its sysctl route_localnet.
	Hairpin bool
	// MasqueradeAll gives every connection by Ports the host's address as its source.
	MasqueradeAll bool
	// Beside says that another Endpoint may publish other Ports for the same
	// Addrs, one that is not Beside. The elements of Hairpin and MasqueradeAll are kept by
	// address: of two that are both Beside, or both not, the last one has it.
	Beside bool
	// ConditionsIPv4 and ConditionsIPv6 are matches that a connection to Ports,
	// of that family, must meet, too: in the words of nft(8), which is started to
	// read them, or for package iptables in its words. Not where the policy is
	// Routed, or an interface Trusted.
	ConditionsIPv4, ConditionsIPv6 []string
	// IPTables is what only the iptables backend can do; nil: nothing.
	IPTables *IPTablesOptions
	// First, if not nil, is asked when a table of ours is missing, whether no other
	// owner can have had elements in it: then what Apply writes is all of it, it is
	// complete, and Apply does not return restored for it. Rules that others add
	// between the answer and the transaction make Apply begin anew. Package iptables
	// does not ask.
	First func() bool
}

// IPTablesOptions are keys of the reference portmap plugin that are words of iptables.
type IPTablesOptions struct {
	// MarkBit is the bit of the packet mark, 0 to 31, that says to masquerade.
	MarkBit int
	// SetMarkChain is another program's chain that marks what is to be masqueraded,
	// as KUBE-MARK-MASQ; empty: a chain of ours, with MarkBit.
	SetMarkChain string
}

// Protocol is a transport protocol by its IP number.
type Protocol uint8

// The protocols that ports can be published of.
const (
	TCP  Protocol = unix.IPPROTO_TCP
	UDP  Protocol = unix.IPPROTO_UDP
	SCTP Protocol = unix.IPPROTO_SCTP
)

// String is the protocol's name as in /etc/protocols.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// PortMap publishes ports of the host: what is sent to them goes to the
// container's first address of the same family.
type PortMap struct {
	Protocol Protocol
	// HostIP is the address of the host; the zero Addr, 0.0.0.0 and :: are any:
	// the zero Addr of both families, the others of their own. An address
	// of a family that the container has none of is passed over.
	HostIP netip.Addr
	// HostPort and HostPortEnd are the ends of the range, both included, from 1;
	// HostPortEnd 0 is HostPort.
	HostPort, HostPortEnd uint16
	// ContainerPort is the port that HostPort goes to; the ports after HostPort
	// go to those after it.
	ContainerPort uint16
	// Sources are the clients that may use it from outside; nil: all. The
	// host itself is asked, too, by the address it calls from.
	Sources []netip.Prefix
	// Except are addresses of the host that a mapping of any address is not for,
	// as another one has the port there. Only Resolve sets it.
	Except []netip.Addr
}

// Last is the last port of the range.
func (p PortMap) Last() uint16 { return max(p.HostPort, p.HostPortEnd) }

// String is "tcp 0.0.0.0:8000-8009".
func (p PortMap) String() string {
	host := "*"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	s := fmt.Sprintf("%s %s", p.Protocol, net.JoinHostPort(host, fmt.Sprint(p.HostPort)))
	if p.Last() > p.HostPort {
		s += fmt.Sprintf("-%d", p.Last())
	}
	return s
}

// Underlay is what a tunnel looks like on the underlay. The zero value has no
// rules.
type Underlay struct {
	VNI  int
	Port uint16 // UDP
	// Hosts are the addresses of the network's other hosts: the only ones that
	// packets of the tunnel come from.
	Hosts []netip.Addr
}

// Near is another host of a network, on a segment of this one. What Bridge sends to its Blocks
// by Device is not masqueraded; nothing else is forwarded there, but what was translated. What
// comes from it by Device, from one of MACs and with a source in Blocks or Hosts, gets to Bridge
// as what comes by the tunnel.
type Near struct {
	Device string
	MACs   []net.HardwareAddr
	Blocks []netip.Prefix
	// Hosts are addresses of the host itself.
	Hosts []netip.Addr
	// Ends are addresses of this host, to which nothing else gets by Device than what
	// comes from such hosts.
	Ends []netip.Addr
}

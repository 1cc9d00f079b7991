package admit

import (
	"encoding/binary"
	"math"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
)

// TableName is the name of both tables.
const TableName = "libnet-policy"

// Elem is an element of a set.
type Elem = ruleset.Elem

// Side is one end of connections: that which is asked, or that which begins them.
type Side int

// The sides of an isolated pod.
const (
	In Side = iota
	Out
	sides
)

// family has the sets of one address family.
type family struct {
	number       uint8 // NFPROTO_*
	ether        uint16
	icmp         byte
	suffix       string
	saddr, daddr ruleset.Field
	sides        [sides]side
	// judged are the pods that are isolated on a side.
	judged ruleset.Set
	// peers and blocks give classes of the other ends of connections: of pods, and of other addresses.
	peers, blocks ruleset.Set
	// pods are the addresses of all pods, where some pod may something with any of them.
	pods ruleset.Set
	// self has each isolated pod's address twice: no policy keeps a pod from itself.
	self ruleset.Set
	// home are the addresses that pods of this host get, and local those of pods that are open: to
	// the rest of home nothing is led, nor waits for the pod that gets the address next.
	home, local ruleset.Set
	// lift has the MAC address of the bridge by the address of a pod behind it.
	lift ruleset.Set
}

// side has what concerns pods that are isolated on one side, by their addresses: the profiles of
// ports that every peer may use, every pod, and a class of peers. The first has all of these pods.
type side struct {
	isolated, pod, class ruleset.Set
}

func (s *side) sets() []*ruleset.Set { return []*ruleset.Set{&s.isolated, &s.pod, &s.class} }

// AnyPod is a peer that is no class: every pod.
const AnyPod = math.MaxUint32

// Profiles that are no ports one by one: nothing, and every protocol.
const (
	NoPorts  = 0
	AllPorts = 1
)

// Sets are the sets of the tables. Each call of NewSets makes sets of its own; elements of one
// belong to that one.
type Sets struct {
	v4, v6 *family
	// ports and spans are the ports of profiles: one by one, and from one to another.
	ports, spans ruleset.Set
	// open are the ports of bridges behind which a pod is known.
	open ruleset.Set
}

// ofClass is a bit that the numbers of classes have in the kernel, and those of profiles do not: the
// priority of a packet that a pod allows no profile to still has its class, which is none then.
const ofClass = 1 << 31

func class(peer uint32) []byte { return ruleset.Host32(peer | ofClass) }

// number is that of a class or of a profile, which a rule has in the priority of the packet: see
// rules.go.
var number = ruleset.Field{Datatype: 23, Size: 4} // TYPE_CLASSID of nft's datatype.h

// NewSets returns the sets.
func NewSets() *Sets {
	key := ruleset.Tuple{number, ruleset.L4Proto, ruleset.DPort}
	return &Sets{
		ports: ruleset.Set{Family: unix.NFPROTO_INET, Name: "ports", Key: key},
		spans: ruleset.Set{Family: unix.NFPROTO_INET, Name: "spans", Key: key, Interval: true},
		v4:    familyOf(unix.NFPROTO_IPV4, ruleset.SAddr4, ruleset.DAddr4),
		v6:    familyOf(unix.NFPROTO_IPV6, ruleset.SAddr6, ruleset.DAddr6),
		open:  ruleset.Set{Family: unix.NFPROTO_BRIDGE, Name: "open", Key: ruleset.Tuple{ruleset.IIFName}},
	}
}

func familyOf(nfproto uint8, saddr, daddr ruleset.Field) *family {
	f := &family{number: nfproto, ether: unix.ETH_P_IP, icmp: unix.IPPROTO_ICMP, suffix: "4", saddr: saddr, daddr: daddr}
	if nfproto == unix.NFPROTO_IPV6 {
		f.suffix, f.ether, f.icmp = "6", unix.ETH_P_IPV6, unix.IPPROTO_ICMPV6
	}
	set := func(name string, key ...ruleset.Field) ruleset.Set {
		return ruleset.Set{Family: unix.NFPROTO_INET, Name: name + f.suffix, Key: key}
	}
	for i, name := range []string{"in", "out"} {
		s := &f.sides[i]
		s.isolated, s.pod, s.class = set(name, saddr), set(name+"pod", saddr), set(name+"class", saddr, number)
		s.isolated.Data, s.pod.Data, s.class.Data = ruleset.Tuple{number}, ruleset.Tuple{number}, ruleset.Tuple{number}
	}
	f.judged, f.peers = set("judged", saddr), set("peers", saddr)
	f.blocks = set("blocks", ruleset.NFProto, saddr) // of one field it would not be found in constant time
	f.pods, f.self = set("pods", saddr), set("self", saddr, daddr)
	f.home, f.local, f.lift = set("home", ruleset.NFProto, daddr), set("local", daddr), set("lift", daddr)
	f.home.Interval = true
	f.peers.Data, f.blocks.Data, f.lift.Data = ruleset.Tuple{number}, ruleset.Tuple{number}, ruleset.Tuple{ruleset.EtherAddr}
	f.blocks.Interval, f.lift.Family = true, unix.NFPROTO_BRIDGE
	return f
}

func (s *Sets) families() []*family { return []*family{s.v4, s.v6} }

func (s *Sets) of(a netip.Addr) *family {
	if a.Is4() {
		return s.v4
	}
	return s.v6
}

// Judge has packets of a pod be judged: without it Isolate does nothing.
func (s *Sets) Judge(a netip.Addr) Elem {
	set := &s.of(a).judged
	return Elem{Set: set, Key: set.Key.Of(a.AsSlice())}
}

// Isolate isolates a pod on one side, where every address may use a profile of ports, or NoPorts.
func (s *Sets) Isolate(a netip.Addr, on Side, profile uint32) Elem {
	set := &s.of(a).sides[on].isolated
	return Elem{Set: set, Key: set.Key.Of(a.AsSlice()), Data: ruleset.Host32(profile)}
}

// Self lets a pod reach itself.
func (s *Sets) Self(a netip.Addr) Elem {
	set := &s.of(a).self
	return Elem{Set: set, Key: set.Key.Of(a.AsSlice(), a.AsSlice())}
}

// Peer is the class of a pod as the other end of a connection.
func (s *Sets) Peer(a netip.Addr, peer uint32) Elem {
	set := &s.of(a).peers
	return Elem{Set: set, Key: set.Key.Of(a.AsSlice()), Data: class(peer)}
}

// Block is the class of addresses from one to another.
func (s *Sets) Block(from, to netip.Addr, peer uint32) Elem {
	f := s.of(from)
	family := []byte{f.number}
	return Elem{Set: &f.blocks, Key: f.blocks.Key.Of(family, from.AsSlice()), End: f.blocks.Key.Of(family, to.AsSlice()), Data: class(peer)}
}

// Pod makes an address one of those that AnyPod stands for.
func (s *Sets) Pod(a netip.Addr) Elem {
	set := &s.of(a).pods
	return Elem{Set: set, Key: set.Key.Of(a.AsSlice())}
}

// Allow lets an isolated pod have a profile of ports with a class of peers, or with AnyPod.
func (s *Sets) Allow(a netip.Addr, on Side, peer, profile uint32) Elem {
	side := &s.of(a).sides[on]
	if peer == AnyPod {
		return Elem{Set: &side.pod, Key: side.pod.Key.Of(a.AsSlice()), Data: ruleset.Host32(profile)}
	}
	return Elem{Set: &side.class, Key: side.class.Key.Of(a.AsSlice(), class(peer)), Data: ruleset.Host32(profile)}
}

// Ports has ports of a protocol be in a profile, from one to another.
func (s *Sets) Ports(profile uint32, p firewall.Protocol, from, to uint16) Elem {
	key := func(port uint16) []byte {
		return s.ports.Key.Of(ruleset.Host32(profile), []byte{byte(p)}, binary.BigEndian.AppendUint16(nil, port))
	}
	if from == to {
		return Elem{Set: &s.ports, Key: key(from)}
	}
	return Elem{Set: &s.spans, Key: key(from), End: key(to)}
}

// Home has a prefix be of addresses that pods of this host get.
func (s *Sets) Home(p netip.Prefix) Elem {
	f, last := s.of(p.Addr()), p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 1 << (7 - i%8)
	}
	return Elem{Set: &f.home, Key: f.home.Key.Of([]byte{f.number}, p.Masked().Addr().AsSlice()), End: f.home.Key.Of([]byte{f.number}, last)}
}

// Local opens an address of a pod of this host.
func (s *Sets) Local(a netip.Addr) Elem {
	set := &s.of(a).local
	return Elem{Set: set, Key: set.Key.Of(a.AsSlice())}
}

// Open opens the port of a bridge.
func (s *Sets) Open(port string) Elem {
	return Elem{Set: &s.open, Key: s.open.Key.Of([]byte(port))}
}

// Lift has frames to a pod's address pass by the host, whose bridge has this MAC address.
func (s *Sets) Lift(a netip.Addr, bridge net.HardwareAddr) Elem {
	set := &s.of(a).lift
	return Elem{Set: set, Key: set.Key.Of(a.AsSlice()), Data: bridge}
}

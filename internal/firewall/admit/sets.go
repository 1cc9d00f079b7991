package admit

import (
	"encoding/binary"
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
	// peers and blocks give classes of the other ends of connections: of pods, and of other addresses.
	peers, blocks ruleset.Set
	// self has each isolated pod's address twice: no policy keeps a pod from itself.
	self ruleset.Set
	// lift has the MAC address of the bridge by the address of a pod behind it.
	lift ruleset.Set
}

// side has what concerns pods that are isolated on one side, by their addresses.
type side struct {
	isolated ruleset.Set
	// What a class of peers may: all, some ports, ranges of ports.
	all, ports, spans ruleset.Set
	// The same for every peer.
	anyAll, anyPorts, anySpans ruleset.Set
}

func (s *side) sets() []*ruleset.Set {
	return []*ruleset.Set{&s.isolated, &s.all, &s.ports, &s.spans, &s.anyAll, &s.anyPorts, &s.anySpans}
}

// Sets are the sets of the tables. Each call of NewSets makes sets of its own; elements of one
// belong to that one.
type Sets struct {
	v4, v6 *family
	// open are the ports of bridges behind which a pod is known.
	open ruleset.Set
}

// class is the number of a class, which a rule has in the priority of the packet: see rules.go.
var class = ruleset.Field{Datatype: 23, Size: 4} // TYPE_CLASSID of nft's datatype.h

// NewSets returns the sets.
func NewSets() *Sets {
	return &Sets{
		v4:   familyOf(unix.NFPROTO_IPV4, ruleset.SAddr4, ruleset.DAddr4),
		v6:   familyOf(unix.NFPROTO_IPV6, ruleset.SAddr6, ruleset.DAddr6),
		open: ruleset.Set{Family: unix.NFPROTO_BRIDGE, Name: "open", Key: ruleset.Tuple{ruleset.IIFName}},
	}
}

func familyOf(number uint8, saddr, daddr ruleset.Field) *family {
	f := &family{number: number, ether: unix.ETH_P_IP, icmp: unix.IPPROTO_ICMP, suffix: "4", saddr: saddr, daddr: daddr}
	if number == unix.NFPROTO_IPV6 {
		f.suffix, f.ether, f.icmp = "6", unix.ETH_P_IPV6, unix.IPPROTO_ICMPV6
	}
	set := func(name string, key ...ruleset.Field) ruleset.Set {
		return ruleset.Set{Family: unix.NFPROTO_INET, Name: name + f.suffix, Key: key}
	}
	for i, name := range []string{"in", "out"} {
		s := &f.sides[i]
		s.isolated = set(name, saddr)
		s.all, s.ports = set(name+"all", saddr, class), set(name+"ports", saddr, class, ruleset.L4Proto, ruleset.DPort)
		s.spans = set(name+"spans", saddr, class, ruleset.L4Proto, ruleset.DPort)
		s.anyAll, s.anyPorts = set(name+"anyall", saddr), set(name+"anyports", saddr, ruleset.L4Proto, ruleset.DPort)
		s.anySpans = set(name+"anyspans", saddr, ruleset.L4Proto, ruleset.DPort)
		s.spans.Interval, s.anySpans.Interval = true, true
	}
	f.peers = set("peers", saddr)
	f.blocks = set("blocks", ruleset.NFProto, saddr) // of one field it would not be found in constant time
	f.self = set("self", saddr, daddr)
	f.lift = set("lift", daddr)
	f.peers.Data, f.blocks.Data, f.lift.Data = ruleset.Tuple{class}, ruleset.Tuple{class}, ruleset.Tuple{ruleset.EtherAddr}
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

// Isolate isolates a pod on one side, and lets it reach itself.
func (s *Sets) Isolate(a netip.Addr, on Side) []Elem {
	f := s.of(a)
	return []Elem{
		{Set: &f.sides[on].isolated, Key: f.sides[on].isolated.Key.Of(a.AsSlice())},
		{Set: &f.self, Key: f.self.Key.Of(a.AsSlice(), a.AsSlice())},
	}
}

// Peer is the class of a pod as the other end of a connection.
func (s *Sets) Peer(a netip.Addr, peer uint32) Elem {
	set := &s.of(a).peers
	return Elem{Set: set, Key: set.Key.Of(a.AsSlice()), Data: host32(peer)}
}

// Block is the class of addresses from one to another.
func (s *Sets) Block(from, to netip.Addr, peer uint32) Elem {
	f := s.of(from)
	number := []byte{f.number}
	return Elem{Set: &f.blocks, Key: f.blocks.Key.Of(number, from.AsSlice()), End: f.blocks.Key.Of(number, to.AsSlice()), Data: host32(peer)}
}

// All lets an isolated pod have every protocol with a class of peers; with 0: with every address.
func (s *Sets) All(a netip.Addr, on Side, peer uint32) Elem {
	side := &s.of(a).sides[on]
	if peer == 0 {
		return Elem{Set: &side.anyAll, Key: side.anyAll.Key.Of(a.AsSlice())}
	}
	return Elem{Set: &side.all, Key: side.all.Key.Of(a.AsSlice(), host32(peer))}
}

// Ports is All of ports of one protocol, from one to another.
func (s *Sets) Ports(a netip.Addr, on Side, peer uint32, p firewall.Protocol, from, to uint16) Elem {
	side := &s.of(a).sides[on]
	one, several := &side.ports, &side.spans
	if peer == 0 {
		one, several = &side.anyPorts, &side.anySpans
	}
	key := func(port uint16) []byte {
		values := [][]byte{a.AsSlice(), host32(peer), {byte(p)}, binary.BigEndian.AppendUint16(nil, port)}
		if peer == 0 {
			values = append(values[:1], values[2:]...)
		}
		return one.Key.Of(values...)
	}
	if from == to {
		return Elem{Set: one, Key: key(from)}
	}
	return Elem{Set: several, Key: key(from), End: key(to)}
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

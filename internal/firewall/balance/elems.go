package balance

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
)

// Elem is an element of a set.
type Elem = ruleset.Elem

// Port is a port of a service, of a backend, or of the host; with the unspecified address it is
// one of every address of the host in that family.
type Port struct {
	Addr     netip.Addr
	Protocol firewall.Protocol
	Port     uint16
}

func (f Families) of(a netip.Addr) *Family {
	if a.Is4() {
		return f.V4
	}
	return f.V6
}

func port16(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

// Address has packets for a service looked up that come from containers of its network, by
// device, or from the host.
func (f Families) Address(vip netip.Addr, device string) []Elem {
	s := f.of(vip)
	return []Elem{
		{Set: &s.Inside, Key: s.Inside.Key.Of([]byte(device), vip.AsSlice())},
		{Set: &s.Host, Key: s.Host.Key.Of(vip.AsSlice())},
	}
}

// Count counts the connections to a port.
func (f Families) Count(p Port) Elem {
	s := &f.of(p.Addr).Ports
	return Elem{Set: s, Key: s.Key.Of(p.Addr.AsSlice(), []byte{byte(p.Protocol)}, port16(p.Port))}
}

// Lead counts the connections to a port that are led to a backend.
func (f Families) Lead(p Port, backend netip.Addr) Elem {
	s := &f.of(p.Addr).Led
	return Elem{Set: s, Key: s.Key.Of(p.Addr.AsSlice(), []byte{byte(p.Protocol)}, port16(p.Port), backend.AsSlice())}
}

// Take has a port of the host be refused while it leads nowhere.
func (f Families) Take(p Port) Elem {
	s := &f.of(p.Addr).Taken
	return Elem{Set: s, Key: s.Key.Of(p.Addr.AsSlice(), []byte{byte(p.Protocol)}, port16(p.Port))}
}

// Kind is by which number a connection finds its backend.
type Kind int

// Kinds of buckets.
const (
	Spread Kind = iota // drawn for each connection
	Rest               // drawn again where Spread has none
	Sticky             // computed from the client's address
)

// Bucket leads part of the connections of a port to a backend; the zero target is for an
// element that is only looked for.
func (f Families) Bucket(kind Kind, of Port, number int, target netip.AddrPort) Elem {
	family := f.of(of.Addr)
	s := []*ruleset.Set{&family.Spread, &family.Rest, &family.Sticky}[kind]
	e := Elem{Set: s, Key: s.Key.Of(of.Addr.AsSlice(), []byte{byte(of.Protocol)}, port16(of.Port), ruleset.Host32(uint32(number)))}
	if target.IsValid() {
		e.Data = s.Data.Of(target.Addr().AsSlice(), port16(target.Port()))
	}
	return e
}

// Self has a backend reach itself by a service.
func (f Families) Self(backend netip.Addr) Elem {
	s := &f.of(backend).Self
	return Elem{Set: s, Key: s.Key.Of(backend.AsSlice(), backend.AsSlice())}
}

// Home has a backend see the host that was asked, where its own host is the client: an answer to an
// address of its own it would take for itself.
func (f Families) Home(host, backend netip.Addr) Elem {
	s := &f.of(backend).Self
	return Elem{Set: s, Key: s.Key.Of(host.AsSlice(), backend.AsSlice())}
}

// Far has the host masquerade what it leads from a published port to a backend on another host.
func (f Families) Far(backend Port) Elem {
	s := &f.of(backend.Addr).Far
	return Elem{Set: s, Key: s.Key.Of(backend.Addr.AsSlice(), []byte{byte(backend.Protocol)}, port16(backend.Port))}
}

// Bridged has the host see the frames of a backend's port. The MAC address is that of the
// bridge, nil for an element that is only looked for.
func (f Families) Bridged(backend Port, bridge net.HardwareAddr) Elem {
	s := &f.of(backend.Addr).Bridged
	return Elem{Set: s, Key: s.Key.Of(backend.Addr.AsSlice(), []byte{byte(backend.Protocol)}, port16(backend.Port)), Data: bridge}
}

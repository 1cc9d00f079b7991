package firewall

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/sorting"
)

// PortSpan is a part of the host's ports: those from Lo to Hi of one protocol, at the
// addresses from First to Last of one family, all ends included.
type PortSpan struct {
	Protocol    Protocol
	First, Last netip.Addr
	Lo, Hi      uint16
}

// Spans returns the ports of the host that p takes: a span per family that it is for.
func (p PortMap) Spans() []PortSpan {
	var all []PortSpan
	for _, is4 := range []bool{true, false} {
		if m, ok := p.ForFamily(is4); ok {
			s := PortSpan{p.Protocol, m.HostIP, m.HostIP, p.HostPort, p.Last()}
			if !m.HostIP.IsValid() {
				s.First, s.Last = everyAddress(is4)
			}
			all = append(all, s)
		}
	}
	return all
}

// everyAddress returns the first and the last address of a family.
func everyAddress(is4 bool) (first, last netip.Addr) {
	if is4 {
		return netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	all := [16]byte{}
	for i := range all {
		all[i] = 255
	}
	return netip.IPv6Unspecified(), netip.AddrFrom16(all)
}

// Common returns the part that is in both; false if none is.
func (s PortSpan) Common(o PortSpan) (PortSpan, bool) {
	both := PortSpan{s.Protocol, s.First, s.Last, max(s.Lo, o.Lo), min(s.Hi, o.Hi)}
	if o.First.Compare(both.First) > 0 {
		both.First = o.First
	}
	if o.Last.Compare(both.Last) < 0 {
		both.Last = o.Last
	}
	sameKind := s.Protocol == o.Protocol && s.First.BitLen() == o.First.BitLen()
	return both, sameKind && both.Lo <= both.Hi && both.First.Compare(both.Last) <= 0
}

// Host is the address of a span of one address; else the zero Addr.
func (s PortSpan) Host() netip.Addr {
	if s.First != s.Last {
		return netip.Addr{}
	}
	return s.First
}

// PortMap returns the ports of the host, with the family's word for more than one address.
func (s PortSpan) PortMap() PortMap {
	m := PortMap{Protocol: s.Protocol, HostIP: s.Host(), HostPort: s.Lo}
	if s.Hi > s.Lo {
		m.HostPortEnd = s.Hi
	}
	return m.InFamily(s.First.Is4())
}

// String is as PortMap's.
func (s PortSpan) String() string { return s.PortMap().String() }

// Meets says that both are for the same port of the same address of the host.
func (p PortMap) Meets(o PortMap) bool {
	for _, a := range p.Spans() {
		for _, b := range o.Spans() {
			if _, ok := a.Common(b); ok {
				return true
			}
		}
	}
	return false
}

// PortIndex finds out of many holders of ports those that stand in the way.
type PortIndex[T any] struct {
	all    []T // in the order of their ports
	span   func(T) PortSpan
	widest int // ports of a span, at most
}

// IndexPorts returns an index of all; span tells the ports that one of them has.
func IndexPorts[T any](all []T, span func(T) PortSpan) PortIndex[T] {
	x := PortIndex[T]{all: slices.Clone(all), span: span}
	sorting.Stable(x.all, func(a, b T) int { return cmp.Compare(span(a).Lo, span(b).Lo) })
	for _, h := range all {
		s := span(h)
		x.widest = max(x.widest, int(s.Hi-s.Lo)+1)
	}
	return x
}

// Meeting calls fn with each holder that has a part of s, in the order of ports.
func (x PortIndex[T]) Meeting(s PortSpan, fn func(holder T, part PortSpan)) {
	at, _ := slices.BinarySearchFunc(x.all, int(s.Lo)-x.widest+1, func(h T, lo int) int { return cmp.Compare(int(x.span(h).Lo), lo) })
	for _, h := range x.all[at:] {
		of := x.span(h)
		if of.Lo > s.Hi {
			break
		}
		if part, ok := of.Common(s); ok {
			fn(h, part)
		}
	}
}

package firewall

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/sorting"
)

// Resolve returns what ports publish for one address family when no port is in
// two of them. Of two mappings of one port that mean the same one is dropped; the
// clients of two that differ in their clients alone are put together; otherwise
// the more specific one has the port: an address of the host comes before any,
// then a single port before a range. Two that are equally specific are an
// *OverlapError. Ports in standby are left out: see Endpoint.Standby. The result has no
// 0.0.0.0 and ::, and the more specific mapping comes first where two are of one port
// (with Except). Its cost is that of sorting.
func Resolve(ports, standby []PortMap, is4 bool) ([]PortMap, error) {
	r := resolver{is4: is4}
	for i, m := range ports {
		if m, ok := m.ForFamily(is4); ok {
			r.spans = append(r.spans, span{PortMap: m, at: i})
		}
	}
	return r.resolve(standby)
}

// Direct returns to which ports of the container one family's ports lead, each with
// the clients that may use it.
func Direct(ports []PortMap, is4 bool) ([]PortMap, error) {
	r := resolver{is4: is4, together: true}
	for i, m := range ports {
		if _, ok := m.ForFamily(is4); !ok {
			continue
		}
		to := PortMap{Protocol: m.Protocol, HostPort: m.ContainerPort, ContainerPort: m.ContainerPort, Sources: m.Sources}
		if n := m.Last() - m.HostPort; n > 0 {
			to.HostPortEnd = m.ContainerPort + n
		}
		r.spans = append(r.spans, span{PortMap: to, at: i})
	}
	return r.resolve(nil)
}

func (r *resolver) resolve(standby []PortMap) ([]PortMap, error) {
	if len(standby) == 0 && r.plain() {
		out := make([]PortMap, len(r.spans))
		for i, s := range r.spans {
			out[i] = s.PortMap
		}
		return out, nil
	}
	if err := r.group(); err != nil {
		return nil, err
	}
	r.preferHosts()
	for _, m := range JoinPorts(standby) {
		if m, ok := m.ForFamily(r.is4); ok {
			r.leaveOut(m)
		}
	}
	return r.result(), nil
}

// ForFamily returns the mapping as one family has it: of any address of the family, or
// of one. It returns false if it is of the other family.
func (p PortMap) ForFamily(is4 bool) (PortMap, bool) {
	p.HostIP = p.HostIP.Unmap()
	if p.HostIP.IsValid() && p.HostIP.Is4() != is4 {
		return p, false
	}
	if p.HostIP.IsUnspecified() {
		p.HostIP = netip.Addr{}
	}
	if p.HostPortEnd == p.HostPort {
		p.HostPortEnd = 0
	}
	return p, true
}

// span is a mapping on its way through a resolver.
type span struct {
	PortMap
	at    int
	holes []hole
}

// hole is a part of a span that something else has: at one address of the host,
// or, with the zero Addr, at all that the span is for.
type hole struct {
	host   netip.Addr
	lo, hi uint16
}

func (s span) single() bool { return s.Last() == s.HostPort }

func (s span) delta() int { return int(s.ContainerPort) - int(s.HostPort) }

// means says that a port of both leads to the same, for the same clients.
func (s span) means(o span) bool { return s.delta() == o.delta() && s.clients() == o.clients() }

// clients is the same for the same Sources, in whatever order; "" is all clients.
func (s span) clients() string {
	if s.Sources == nil {
		return ""
	}
	all := []string{"only"}
	for _, p := range s.Sources {
		all = append(all, p.Masked().String())
	}
	sorting.Ordered(all)
	return strings.Join(slices.Compact(all), " ")
}

// spanGroup are spans of one protocol and one address of the host, or any.
type spanGroup struct {
	protocol Protocol
	host     netip.Addr
	spans    []span // in the order of their ports, none overlaps another
}

type resolver struct {
	is4 bool
	// together has a port be for the clients of all mappings that it is in.
	together bool
	spans    []span
	groups   []spanGroup
}

// plain says that no number of a port is in two mappings.
func (r *resolver) plain() bool {
	order := slices.Clone(r.spans)
	sorting.Stable(order, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.HostPort, b.HostPort))
	})
	var before *span
	for i := range order {
		s := &order[i]
		if before != nil && before.Protocol == s.Protocol && s.HostPort <= before.Last() {
			return false
		}
		before = s
	}
	return true
}

// group puts spans of one protocol and address together, any address last.
func (r *resolver) group() error {
	sorting.Stable(r.spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), compareHosts(a.HostIP, b.HostIP))
	})
	for len(r.spans) > 0 {
		first := r.spans[0]
		n := slices.IndexFunc(r.spans, func(s span) bool { return s.Protocol != first.Protocol || s.HostIP != first.HostIP })
		if n < 0 {
			n = len(r.spans)
		}
		spans, err := r.settle(r.spans[:n])
		if err != nil {
			return err
		}
		r.groups = append(r.groups, spanGroup{first.Protocol, first.HostIP, spans})
		r.spans = r.spans[n:]
	}
	return nil
}

// compareHosts has any address last.
func compareHosts(a, b netip.Addr) int {
	if a.IsValid() != b.IsValid() {
		return b.Compare(a)
	}
	return a.Compare(b)
}

// part returns the ports of s from lo to hi.
func (s span) part(lo, hi uint16) span {
	s.ContainerPort = uint16(int(lo) + s.delta())
	s.HostPort, s.HostPortEnd = lo, hi
	if lo == hi {
		s.HostPortEnd = 0
	}
	return s
}

// InFamily is the mapping of one family with the family's word for any address.
func (p PortMap) InFamily(is4 bool) PortMap {
	switch {
	case p.HostIP.IsValid():
	case is4:
		p.HostIP = netip.IPv4Unspecified()
	default:
		p.HostIP = netip.IPv6Unspecified()
	}
	return p
}

// preferHosts has a port of any address give way at an address that has it too.
func (r *resolver) preferHosts() {
	for a := range r.groups {
		wide := &r.groups[a]
		if wide.host.IsValid() {
			continue
		}
		for g := range r.groups {
			narrow := &r.groups[g]
			if narrow.protocol != wide.protocol || !narrow.host.IsValid() {
				continue
			}
			for i := range narrow.spans {
				s := &narrow.spans[i]
				for _, w := range wide.meeting(s.HostPort, s.Last()) {
					at := hole{lo: max(s.HostPort, w.HostPort), hi: min(s.Last(), w.Last())}
					if s.means(*w) {
						s.holes = append(s.holes, at)
						continue
					}
					at.host = narrow.host
					w.holes = append(w.holes, at)
				}
			}
		}
	}
}

// meeting returns the spans with a port from lo to hi.
func (g *spanGroup) meeting(lo, hi uint16) []*span {
	i, _ := slices.BinarySearchFunc(g.spans, lo, func(s span, lo uint16) int { return cmp.Compare(s.Last(), lo) })
	var all []*span
	for ; i < len(g.spans) && g.spans[i].HostPort <= hi; i++ {
		all = append(all, &g.spans[i])
	}
	return all
}

// leaveOut has no mapping serve what m is for.
func (r *resolver) leaveOut(m PortMap) {
	for i := range r.groups {
		g := &r.groups[i]
		if g.protocol != m.Protocol || g.host.IsValid() && m.HostIP.IsValid() && g.host != m.HostIP {
			continue
		}
		for _, s := range g.meeting(m.HostPort, m.Last()) {
			at := hole{lo: max(m.HostPort, s.HostPort), hi: min(m.Last(), s.Last())}
			if !g.host.IsValid() {
				at.host = m.HostIP
			}
			s.holes = append(s.holes, at)
		}
	}
}

func (r *resolver) result() []PortMap {
	var out []PortMap
	for _, g := range r.groups {
		for _, s := range g.spans {
			out = append(out, s.withoutHoles()...)
		}
	}
	return out
}

// withoutHoles returns the parts of s that are left.
func (s span) withoutHoles() []PortMap {
	if len(s.holes) == 0 {
		return []PortMap{s.PortMap}
	}
	edges := []int{int(s.HostPort), int(s.Last()) + 1}
	for _, h := range s.holes {
		edges = append(edges, int(h.lo), int(h.hi)+1)
	}
	sorting.Ordered(edges)
	edges = slices.Compact(edges)
	var out []PortMap
	for i := range len(edges) - 1 {
		m, whole := s.part(uint16(edges[i]), uint16(edges[i+1]-1)).PortMap, true
		for _, h := range s.holes {
			if h.lo > m.HostPort || h.hi < m.HostPort {
				continue
			}
			whole = whole && h.host.IsValid()
			m.Except = append(m.Except, h.host)
		}
		if whole {
			sorting.Stable(m.Except, netip.Addr.Compare)
			m.Except = slices.Compact(m.Except)
			out = append(out, m)
		}
	}
	return out
}

// JoinPorts makes one of ports of one address that follow each other, or
// overlap. Only what of the host they take counts.
func JoinPorts(ports []PortMap) []PortMap {
	all := slices.Clone(ports)
	sorting.Stable(all, func(a, b PortMap) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), a.HostIP.Compare(b.HostIP), cmp.Compare(a.HostPort, b.HostPort))
	})
	var out []PortMap
	for _, m := range all {
		n := len(out) - 1
		if n < 0 || out[n].Protocol != m.Protocol || out[n].HostIP != m.HostIP || int(m.HostPort) > int(out[n].Last())+1 {
			out = append(out, PortMap{Protocol: m.Protocol, HostIP: m.HostIP, HostPort: m.HostPort, HostPortEnd: m.HostPortEnd})
		} else if m.Last() > out[n].Last() {
			out[n].HostPortEnd = m.Last()
		}
	}
	return out
}

package firewall

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// claim is a range of ports of the host that belongs to one owner.
type claim struct {
	sets     *familySets
	protocol Protocol
	host     netip.Addr // the zero Addr: any
	lo, hi   uint16
	owner    string
}

// meets says that both claim the same port of the same address.
func (c claim) meets(o claim) bool {
	return c.sets == o.sets && c.protocol == o.protocol && c.lo <= o.hi && o.lo <= c.hi &&
		(!c.host.IsValid() || !o.host.IsValid() || c.host == o.host)
}

// String is as PortMap's.
func (c claim) String() string {
	p := PortMap{Protocol: c.protocol, HostIP: c.host, HostPort: c.lo, HostPortEnd: c.hi}
	if !c.host.IsValid() {
		p.HostIP = netip.IPv4Unspecified()
		if c.sets == ipv6() {
			p.HostIP = netip.IPv6Unspecified()
		}
	}
	return p.String()
}

// planPorts publishes Ports as n's policy for the family has it.
func (e Endpoint) planPorts(n Network) (planned, error) {
	if len(e.Ports) == 0 {
		return planned{}, nil
	}
	addrs, err := e.addrs()
	if err != nil {
		return planned{}, err
	}
	var all planned
	for _, f := range bothFamilies() {
		i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return setsFor(a) == f })
		if i < 0 {
			continue
		}
		g := gate{f, Key(e.Owner), e.conditions(f)}
		p := publication{sets: f, target: addrs[i], localhost: e.Hairpin || e.MasqueradeAll, owner: g.owner, gated: len(g.words) > 0}
		if err := CheckConditions(g.words); err != nil {
			return planned{}, g.wrap(err)
		}
		for _, m := range e.Ports {
			if err := p.add(m, n); err != nil {
				return planned{}, err
			}
		}
		if err := refuseTwice(p.claims); err != nil {
			return planned{}, err
		}
		if len(p.claims) > 0 {
			if err := p.translated(e); err != nil {
				return planned{}, err
			}
			if p.gated {
				all.gates = append(all.gates, g)
			}
		}
		all.elems, all.claims = append(all.elems, p.elems...), append(all.claims, p.claims...)
	}
	return all, nil
}

// refuseTwice is ErrInvalid if two claims meet. There may be thousands.
func refuseTwice(claims []claim) error {
	order := slices.Clone(claims)
	slices.SortFunc(order, func(a, b claim) int { return int(a.lo) - int(b.lo) })
	for i, c := range order {
		for _, o := range order[i+1:] {
			if o.lo > c.hi {
				break
			}
			if c.meets(o) {
				return fmt.Errorf("port %s is published twice: %w", o, ErrInvalid)
			}
		}
	}
	return nil
}

// publication gathers the elements of one family.
type publication struct {
	sets      *familySets
	target    netip.Addr
	localhost bool // 127.0.0.0/8 is among any address
	gated     bool // there are conditions
	owner     string
	elems     []elem
	claims    []claim
}

func (p *publication) put(s *set, key, end, data []byte) {
	p.elems = append(p.elems, elem{set: s, key: key, end: end, data: data, owner: p.owner})
}

// translated says which connections get another source.
func (p *publication) translated(e Endpoint) error {
	ip := p.target.AsSlice()
	dev, err := ifname(e.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %w", err)
	}
	which := 0
	if e.Beside {
		which = 1
	}
	if s := &p.sets.hairpin[which]; e.Hairpin {
		p.put(s, s.key.of(ip, dev), nil, nil)
	}
	if s := &p.sets.masqAll[which]; e.MasqueradeAll {
		p.put(s, s.key.of(ip, dev), nil, nil)
	}
	return nil
}

func (p *publication) add(m PortMap, n Network) error {
	host := m.HostIP.Unmap()
	if host.IsValid() && host.Is4() != p.target.Is4() {
		return nil
	}
	if host.IsUnspecified() {
		host = netip.Addr{}
	}
	if err := m.check(); err != nil {
		return err
	}
	routed := n.PublishesBy(p.target) == Routed
	if open := routed || len(n.Trusted) > 0; open && p.gated {
		return fmt.Errorf("port %s with conditions, on the container's address: %w", m, ErrInvalid)
	} else if open {
		p.open(m)
	}
	if routed {
		return nil
	}
	c := claim{p.sets, m.Protocol, host, m.HostPort, m.last(), p.owner}
	p.claims = append(p.claims, c)
	p.publish(m, host)
	return nil
}

func (m PortMap) check() error {
	if m.Protocol != TCP && m.Protocol != UDP && m.Protocol != SCTP {
		return fmt.Errorf("port %s: %w", m, ErrInvalid)
	}
	n := m.last() - m.HostPort
	if m.HostPort == 0 || m.ContainerPort == 0 || m.HostPortEnd != 0 && m.HostPortEnd < m.HostPort || int(m.ContainerPort)+int(n) > 65535 {
		return fmt.Errorf("port %s to %d: %w", m, m.ContainerPort, ErrInvalid)
	}
	return nil
}

// open lets what goes to the container's own address through.
func (p *publication) open(m PortMap) {
	direct := PortMap{Protocol: m.Protocol, HostPort: m.ContainerPort, HostPortEnd: m.ContainerPort + m.last() - m.HostPort, Sources: m.Sources}
	var add publication
	add.sets, add.target, add.owner = p.sets, p.target, p.owner
	if m.Sources == nil && m.last() == m.HostPort {
		add.put(&p.sets.open, p.sets.open.key.of(p.target.AsSlice(), []byte{byte(m.Protocol)}, port(m.ContainerPort)), nil, nil)
	} else {
		add.restricted(&p.sets.openSpan, direct, single(p.target), nil)
	}
	for _, e := range add.elems {
		if !containsKey(p.elems, e) {
			p.elems = append(p.elems, e)
		}
	}
}

// publish translates ports of the host. A range that keeps its numbers is one
// element; nf_tables cannot add, so another is one for each port.
func (p *publication) publish(m PortMap, host netip.Addr) {
	to := []addrRange{p.every()}
	switch {
	case host.IsValid():
		to = single(host)
	case !p.localhost && p.target.Is4():
		to = notLocalhost4
	}
	from, span := &p.sets.from, &p.sets.span
	proto := []byte{byte(m.Protocol)}
	if p.gated {
		from, span = &p.sets.gatedFrom, &p.sets.gatedSpan
		for _, at := range to {
			key := p.sets.gate.key
			p.put(&p.sets.gate, key.of(at.first, proto, port(m.HostPort)), key.of(at.last, proto, port(m.last())), []byte(chainOf(p.owner)))
		}
	}
	if m.last() > m.HostPort && m.HostPort == m.ContainerPort {
		p.restricted(span, m, to, p.target.AsSlice())
		return
	}
	for i := range int(m.last()-m.HostPort) + 1 {
		hostPort := m.HostPort + uint16(i)
		data := p.sets.port.data.of(p.target.AsSlice(), port(m.ContainerPort+uint16(i)))
		switch {
		case m.Sources != nil || len(to) > 1 || p.gated:
			one := m
			one.HostPort, one.HostPortEnd = hostPort, 0
			p.restricted(from, one, to, data)
		case host.IsValid():
			p.put(&p.sets.port, p.sets.port.key.of(host.AsSlice(), proto, port(hostPort)), nil, data)
		default:
			p.put(&p.sets.anyPort, p.sets.anyPort.key.of(proto, port(hostPort)), nil, data)
		}
	}
}

// addrRange is a range of addresses, both ends included.
type addrRange struct{ first, last []byte }

func single(a netip.Addr) []addrRange { return []addrRange{{a.AsSlice(), a.AsSlice()}} }

func rangeOf(p netip.Prefix) addrRange { return addrRange{p.Addr().AsSlice(), lastAddr(p)} }

// every is all addresses of the family.
func (p *publication) every() addrRange { return rangeOf(netip.PrefixFrom(p.target, 0).Masked()) }

// notLocalhost4 is every address but 127.0.0.0/8.
var notLocalhost4 = []addrRange{{[]byte{0, 0, 0, 0}, []byte{126, 255, 255, 255}}, {[]byte{128, 0, 0, 0}, []byte{255, 255, 255, 255}}}

// restricted adds an element for each source and destination to a set of intervals.
func (p *publication) restricted(s *set, m PortMap, to []addrRange, data []byte) {
	sources := []addrRange{p.every()}
	if m.Sources != nil {
		sources = nil
		for _, prefix := range disjoint(m.Sources, p.target.Is4()) {
			sources = append(sources, rangeOf(prefix))
		}
	}
	proto := []byte{byte(m.Protocol)}
	for _, from := range sources {
		for _, at := range to {
			p.put(s, s.key.of(from.first, at.first, proto, port(m.HostPort)), s.key.of(from.last, at.last, proto, port(m.last())), data)
		}
	}
}

// disjoint returns the prefixes of one family, without those inside others.
func disjoint(all []netip.Prefix, is4 bool) []netip.Prefix {
	var sorted, out []netip.Prefix
	for _, p := range all {
		if p.Addr().Is4() == is4 {
			sorted = append(sorted, p.Masked())
		}
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
	for _, p := range sorted { // one that holds others comes right before them
		if len(out) == 0 || !out[len(out)-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// lastAddr returns the last address of a prefix.
func lastAddr(p netip.Prefix) []byte {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return b
}

func port(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

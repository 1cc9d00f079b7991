package ruleset

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// PlanPorts publishes Ports as n's policy for the family has it.
func PlanPorts(n firewall.Network, e firewall.Endpoint) (Planned, error) {
	if len(e.Ports) == 0 {
		return Planned{}, nil
	}
	addrs, err := uniqueAddrs(e)
	if err != nil {
		return Planned{}, err
	}
	for _, m := range e.Ports {
		if err := checkPort(m); err != nil {
			return Planned{}, err
		}
	}
	var all Planned
	for _, f := range BothFamilies() {
		i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return setsFor(a) == f })
		if i < 0 {
			continue
		}
		g := Gate{f, firewall.Key(e.Owner), conditionsOf(e, f)}
		p := publication{sets: f, target: addrs[i], localhost: e.Hairpin || e.MasqueradeAll, owner: g.Owner, gated: len(g.Words) > 0}
		if err := firewall.CheckConditions(g.Words); err != nil {
			return Planned{}, g.Wrap(err)
		}
		if err := p.plan(e, n); err != nil {
			return Planned{}, err
		}
		if p.gated && len(p.claims) > 0 {
			all.Gates = append(all.Gates, g)
		}
		all.Elems, all.Claims = append(all.Elems, p.elems...), append(all.Claims, p.claims...)
	}
	return all, nil
}

// plan gathers the elements of e for p's family.
func (p *publication) plan(e firewall.Endpoint, n firewall.Network) error {
	is4 := p.target.Is4()
	if n.PublishesBy(p.target) == firewall.Routed { // ports of the host mean nothing
		return p.open(e.Ports)
	}
	ports, err := firewall.Resolve(e.Ports, nil, is4)
	if err != nil {
		return err
	}
	if len(n.Trusted) > 0 {
		if err := p.open(ports); err != nil {
			return err
		}
	}
	if len(e.Standby) > 0 {
		if ports, err = firewall.Resolve(e.Ports, e.Standby, is4); err != nil {
			return err
		}
	}
	for _, m := range ports {
		for _, at := range p.hosts(m) {
			p.claims = append(p.claims, Claim{p.sets, at.ports(m.Protocol, m.HostPort, m.Last()), p.owner})
		}
		p.publish(m)
	}
	if len(p.claims) == 0 {
		return nil
	}
	return p.translated(e)
}

// publication gathers the elements of one family.
type publication struct {
	sets      *FamilySets
	target    netip.Addr
	localhost bool // 127.0.0.0/8 is among any address
	gated     bool // there are conditions
	owner     string
	elems     []Elem
	claims    []Claim
}

func (p *publication) put(s *Set, key, end, data []byte) {
	p.elems = append(p.elems, Elem{Set: s, Key: key, End: end, Data: data, Owner: p.owner})
}

// translated says which connections get another source.
func (p *publication) translated(e firewall.Endpoint) error {
	ip := p.target.AsSlice()
	dev, err := ifname(e.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %w", err)
	}
	which := 0
	if e.Beside {
		which = 1
	}
	if s := &p.sets.Hairpin[which]; e.Hairpin {
		p.put(s, s.Key.Of(ip, dev), nil, nil)
	}
	if s := &p.sets.MasqAll[which]; e.MasqueradeAll {
		p.put(s, s.Key.Of(ip, dev), nil, nil)
	}
	return nil
}

func checkPort(m firewall.PortMap) error {
	if m.Protocol != firewall.TCP && m.Protocol != firewall.UDP && m.Protocol != firewall.SCTP {
		return fmt.Errorf("port %s: %w", m, firewall.ErrInvalid)
	}
	n := m.Last() - m.HostPort
	if m.HostPort == 0 || m.ContainerPort == 0 || m.HostPortEnd != 0 && m.HostPortEnd < m.HostPort || int(m.ContainerPort)+int(n) > 65535 {
		return fmt.Errorf("port %s to %d: %w", m, m.ContainerPort, firewall.ErrInvalid)
	}
	return nil
}

// open lets what goes to the container's own address through.
func (p *publication) open(ports []firewall.PortMap) error {
	all, err := firewall.Direct(ports, p.target.Is4())
	if p.gated && len(all) > 0 {
		return fmt.Errorf("port %s with conditions, on the container's address: %w", all[0], firewall.ErrInvalid)
	}
	for _, m := range all {
		p.openPort(m)
	}
	return err
}

func (p *publication) openPort(m firewall.PortMap) {
	if m.Sources == nil && m.Last() == m.HostPort {
		p.put(&p.sets.Open, p.sets.Open.Key.Of(p.target.AsSlice(), []byte{byte(m.Protocol)}, port(m.HostPort)), nil, nil)
		return
	}
	p.restricted(&p.sets.OpenSpan, m, single(p.target), nil)
}

// publish translates ports of the host. A range that keeps its numbers is one
// element; nf_tables cannot add, so another is one for each port.
func (p *publication) publish(m firewall.PortMap) {
	to := p.hosts(m)
	if !m.HostIP.IsValid() && !p.localhost && p.target.Is4() {
		to = withoutLocalhost4(to)
	}
	from, span := &p.sets.From, &p.sets.Span
	proto := []byte{byte(m.Protocol)}
	if p.gated {
		from, span = &p.sets.GatedFrom, &p.sets.GatedSpan
		for _, at := range to {
			key := p.sets.Gate.Key
			p.put(&p.sets.Gate, key.Of(at.first, proto, port(m.HostPort)), key.Of(at.last, proto, port(m.Last())), []byte(GateChain(p.owner)))
		}
	}
	if m.Last() > m.HostPort && m.HostPort == m.ContainerPort {
		p.restricted(span, m, to, p.target.AsSlice())
		return
	}
	for i := range int(m.Last()-m.HostPort) + 1 {
		hostPort := m.HostPort + uint16(i)
		data := p.sets.Port.Data.Of(p.target.AsSlice(), port(m.ContainerPort+uint16(i)))
		switch {
		case m.Sources != nil || len(to) != 1 || p.gated:
			one := m
			one.HostPort, one.HostPortEnd = hostPort, 0
			p.restricted(from, one, to, data)
		case m.HostIP.IsValid():
			p.put(&p.sets.Port, p.sets.Port.Key.Of(m.HostIP.AsSlice(), proto, port(hostPort)), nil, data)
		default:
			p.put(&p.sets.AnyPort, p.sets.AnyPort.Key.Of(proto, port(hostPort)), nil, data)
		}
	}
}

// hosts are the addresses of the host that m is for.
func (p *publication) hosts(m firewall.PortMap) []addrRange {
	if m.HostIP.IsValid() {
		return single(m.HostIP)
	}
	all := []addrRange{p.every()}
	for _, a := range m.Except {
		all = without(all, addrRange{a.AsSlice(), a.AsSlice()})
	}
	return all
}

// addrRange is a range of addresses, both ends included.
type addrRange struct{ first, last []byte }

func single(a netip.Addr) []addrRange { return []addrRange{{a.AsSlice(), a.AsSlice()}} }

func rangeOf(p netip.Prefix) addrRange { return addrRange{p.Addr().AsSlice(), lastAddr(p)} }

// every is all addresses of the family.
func (p *publication) every() addrRange { return rangeOf(netip.PrefixFrom(p.target, 0).Masked()) }

// notLocalhost4 is every address but 127.0.0.0/8.
var notLocalhost4 = []addrRange{{[]byte{0, 0, 0, 0}, []byte{126, 255, 255, 255}}, {[]byte{128, 0, 0, 0}, []byte{255, 255, 255, 255}}}

func withoutLocalhost4(all []addrRange) []addrRange {
	return without(all, addrRange{[]byte{127, 0, 0, 0}, []byte{127, 255, 255, 255}})
}

// without returns what is left of ranges.
func without(all []addrRange, but addrRange) []addrRange {
	var out []addrRange
	for _, r := range all {
		if bytes.Compare(but.last, r.first) < 0 || bytes.Compare(r.last, but.first) < 0 {
			out = append(out, r)
			continue
		}
		if bytes.Compare(r.first, but.first) < 0 {
			out = append(out, addrRange{r.first, next(but.first, netip.Addr.Prev)})
		}
		if bytes.Compare(but.last, r.last) < 0 {
			out = append(out, addrRange{next(but.last, netip.Addr.Next), r.last})
		}
	}
	return out
}

func next(ip []byte, step func(netip.Addr) netip.Addr) []byte {
	a, _ := netip.AddrFromSlice(ip)
	return step(a).AsSlice()
}

// restricted adds an element for each source and destination to a set of intervals.
func (p *publication) restricted(s *Set, m firewall.PortMap, to []addrRange, data []byte) {
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
			p.put(s, s.Key.Of(from.first, at.first, proto, port(m.HostPort)), s.Key.Of(from.last, at.last, proto, port(m.Last())), data)
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
	sorting.Stable(sorted, func(a, b netip.Prefix) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
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

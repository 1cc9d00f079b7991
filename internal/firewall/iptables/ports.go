package iptables

import (
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// defaultMarkBit is the one that the reference portmap plugin takes.
const defaultMarkBit = 13

// endpointPlan gathers the rules of one endpoint for one family.
type endpointPlan struct {
	f     family
	e     firewall.Endpoint
	owner string
	to    netip.Addr // where ports go
	rules []rule
}

func (p *endpointPlan) add(table, chain, match, target string) {
	p.rules = append(p.rules, newRule(table, chain, match, p.owner, target))
}

// endpointRules has the rules of e on n.
func endpointRules(f family, n firewall.Network, e firewall.Endpoint) []rule {
	p := &endpointPlan{f: f, e: e, owner: firewall.Key(e.Owner)}
	if f.masquerade(e) {
		p.masquerade()
	}
	first := slices.IndexFunc(e.Addrs, f.has)
	if first < 0 {
		return p.rules
	}
	p.to = e.Addrs[first]
	ports, _ := firewall.Resolve(e.Ports, nil, f == ipv4) // check has refused what has none
	policy := n.PublishesBy(p.to)
	if n.Bridge != "" && (policy == firewall.Published || policy == firewall.Routed) {
		p.open(ports)
	}
	if len(e.Standby) > 0 {
		ports, _ = firewall.Resolve(e.Ports, e.Standby, f == ipv4)
	}
	if policy != firewall.Routed && len(ports) > 0 {
		p.publish(ports)
	}
	return p.rules
}

func (p *endpointPlan) masquerade() {
	target := "MASQUERADE"
	if i := slices.IndexFunc(p.e.Source, p.f.has); i >= 0 {
		target = "SNAT --to-source " + p.e.Source[i].String()
	}
	for _, a := range p.e.Addrs {
		if p.f.has(a) {
			p.add("nat", chainSNAT, fmt.Sprintf("-s %s ! -d %s ! -o %s", host(a), p.f.multicast(), p.e.Bridge), target)
		}
	}
}

// open lets in what is for the container's address and published ports.
func (p *endpointPlan) open(ports []firewall.PortMap) {
	for _, m := range ports {
		end := m.ContainerPort + last(m) - m.HostPort
		for _, source := range p.sources(m) {
			p.add("filter", chainPorts, fmt.Sprintf("%s -d %s %s", source, host(p.to), dport(m.Protocol, m.ContainerPort, end)), "ACCEPT")
		}
	}
}

// publish puts a rule per port and source in place, and before it one that
// marks what needs the host's address as its source.
func (p *endpointPlan) publish(ports []firewall.PortMap) {
	chain := chainDNAT
	if conditions := p.f.conditions(p.e); len(conditions) > 0 {
		// A chain of its own: the words may be the very ones that our rules
		// have, and iptables takes each but once.
		chain = endpointChain(p.owner)
		r := newRule("nat", chainDNAT, "", p.owner, chain)
		r.args = slices.Concat(conditions, r.args)
		p.rules = append(p.rules, r)
	}
	before := len(p.rules)
	for _, m := range ports {
		// Another mapping, or another attachment, has the port at these addresses.
		for _, host := range m.Except {
			p.add("nat", chain, fmt.Sprintf("-d %s/%d %s", host, host.BitLen(), dport(m.Protocol, m.HostPort, last(m))), "RETURN")
		}
		for _, source := range p.sources(m) {
			p.redirect(chain, m, source)
		}
	}
	if len(p.rules) > before {
		p.hairpin()
	}
}

func (p *endpointPlan) redirect(chain string, m firewall.PortMap, source string) {
	from := fmt.Sprintf("%s %s", source, p.hostAddr(m))
	port := dport(m.Protocol, m.HostPort, last(m))
	switch {
	case p.e.MasqueradeAll:
		p.add("nat", chain, from+" "+port, p.setMark())
	case p.e.Hairpin:
		p.add("nat", chain, fmt.Sprintf("%s -i %s %s", from, p.e.Bridge, port), p.setMark())
	}
	p.add("nat", chain, from+" "+port, "DNAT --to-destination "+p.destination(m))
}

// hostAddr matches the address that m is published on. Without Hairpin what is
// sent to 127.0.0.0/8 could not leave the host: it stays with the host's own.
func (p *endpointPlan) hostAddr(m firewall.PortMap) string {
	switch {
	case m.HostIP.IsValid():
		return "-d " + host(m.HostIP)
	case p.f == ipv4 && !p.e.Hairpin && !p.e.MasqueradeAll:
		return "! -d 127.0.0.0/8"
	}
	return ""
}

func (p *endpointPlan) setMark() string {
	if o := p.e.IPTables; o != nil && o.SetMarkChain != "" {
		return o.SetMarkChain
	}
	return fmt.Sprintf("MARK --set-xmark 0x%x/0x%[1]x", p.mark())
}

func (p *endpointPlan) mark() uint32 {
	if p.e.IPTables == nil {
		return 1 << defaultMarkBit
	}
	return 1 << p.e.IPTables.MarkBit
}

// hairpin gives marked connections, and those by 127.0.0.0/8, the host's
// address. The mark alone would not do: it may mean something to others.
func (p *endpointPlan) hairpin() {
	own := p.e.IPTables == nil || p.e.IPTables.SetMarkChain == ""
	if own && (p.e.Hairpin || p.e.MasqueradeAll) {
		p.add("nat", chainSNAT, fmt.Sprintf("-d %s -m mark --mark 0x%x/0x%[2]x -m conntrack --ctstate DNAT", host(p.to), p.mark()), "MASQUERADE")
	}
	if p.e.Hairpin && p.f == ipv4 {
		p.add("nat", chainSNAT, fmt.Sprintf("-s 127.0.0.0/8 -d %s -m conntrack --ctstate DNAT", host(p.to)), "MASQUERADE")
	}
}

// sources are the matches for the clients that m admits.
func (p *endpointPlan) sources(m firewall.PortMap) []string {
	if m.Sources == nil {
		return []string{""}
	}
	var all []string
	for _, s := range m.Sources {
		switch {
		case !p.f.has(s.Addr()):
		case s.Bits() == 0:
			return []string{""}
		default:
			all = append(all, "-s "+s.Masked().String())
		}
	}
	return all
}

// destination keeps a port's distance from the first of its range.
func (p *endpointPlan) destination(m firewall.PortMap) string {
	first, n := m.ContainerPort, last(m)-m.HostPort
	switch {
	case n == 0:
		return netip.AddrPortFrom(p.to, first).String()
	case first == m.HostPort:
		return p.to.String()
	}
	return net.JoinHostPort(p.to.String(), fmt.Sprintf("%d-%d/%d", first, first+n, m.HostPort))
}

func dport(proto firewall.Protocol, first, last uint16) string {
	s := fmt.Sprintf("-p %s -m %[1]s --dport %d", proto, first)
	if last > first {
		s += fmt.Sprintf(":%d", last)
	}
	return s
}

func last(m firewall.PortMap) uint16 { return max(m.HostPort, m.HostPortEnd) }

// endpointChain is short enough for iptables, whose names end at 28 bytes.
func endpointChain(owner string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(owner))
	return fmt.Sprintf("%s%016x", prefixEndpoint, h.Sum64())
}

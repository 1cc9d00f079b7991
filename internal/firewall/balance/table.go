package balance

import (
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
)

// TableName is the name of both tables.
const TableName = "libnet-services"

// Family has the sets of one address family.
type Family struct {
	family       uint8
	saddr, daddr ruleset.Field
	// Inside are the addresses of services by the interface of their network's
	// containers, and Host the same for programs of the host.
	Inside, Host ruleset.Set
	// Ports counts the connections of each port of a service.
	Ports ruleset.Set
	// Led counts the connections of each port that were led to each backend.
	Led ruleset.Set
	// Spread and Rest lead to the backends of connections, Sticky to those of clients,
	// by a number that is drawn, or computed from the client's address.
	Spread, Rest, Sticky ruleset.Set
	// Taken are the ports of the host that services have.
	Taken ruleset.Set
	// Self has each backend's address twice: it may be led to itself; and with that of its host.
	Self ruleset.Set
	// Far are the ports of backends on other hosts that a published port of this one leads to.
	Far ruleset.Set
	// Bridged are the ports of backends whose frames the host has to see, and the MAC
	// address by which it does.
	Bridged ruleset.Set
}

// Numbers that are drawn; those of package service.
const (
	spreadBuckets = 64
	clientBuckets = 256
	clientSeed    = 0x6c6e // any, but always the same: a client keeps its backend over restarts
)

func familyOf(family uint8, suffix string, saddr, daddr ruleset.Field) *Family {
	set := func(name string, key, data ruleset.Tuple) ruleset.Set {
		return ruleset.Set{Family: unix.NFPROTO_INET, Name: name + suffix, Key: key, Data: data}
	}
	port := ruleset.Tuple{daddr, ruleset.L4Proto, ruleset.DPort}
	bucket := ruleset.Tuple{daddr, ruleset.L4Proto, ruleset.DPort, ruleset.Bucket}
	target := ruleset.Tuple{daddr, ruleset.DPort}
	f := &Family{
		family: family, saddr: saddr, daddr: daddr,
		Inside: set("inside", ruleset.Tuple{ruleset.IIFName, daddr}, nil), Host: set("host", ruleset.Tuple{daddr}, nil),
		Ports: set("ports", port, nil), Led: set("led", ruleset.Tuple{daddr, ruleset.L4Proto, ruleset.DPort, daddr}, nil), Spread: set("spread", bucket, target), Rest: set("rest", bucket, target), Sticky: set("sticky", bucket, target),
		Taken: set("taken", port, nil), Self: set("self", ruleset.Tuple{saddr, daddr}, nil), Far: set("far", port, nil), Bridged: set("bridged", port, ruleset.Tuple{ruleset.EtherAddr}),
	}
	f.Bridged.Family = unix.NFPROTO_BRIDGE
	return f
}

// Families are the sets of IPv4 and those of IPv6. Each call of NewFamilies has sets of its
// own; elements of one belong to that one.
type Families struct{ V4, V6 *Family }

// NewFamilies returns the sets of both families.
func NewFamilies() Families {
	return Families{
		V4: familyOf(unix.NFPROTO_IPV4, "4", ruleset.SAddr4, ruleset.DAddr4),
		V6: familyOf(unix.NFPROTO_IPV6, "6", ruleset.SAddr6, ruleset.DAddr6),
	}
}

func (f Families) both() []*Family { return []*Family{f.V4, f.V6} }

func (f *Family) inet() []*ruleset.Set {
	return []*ruleset.Set{&f.Inside, &f.Host, &f.Ports, &f.Led, &f.Spread, &f.Rest, &f.Sticky, &f.Taken, &f.Self, &f.Far}
}

// Chains of the tables that are not those of a hook.
const (
	servicesChain  = "services"
	publishedChain = "published"
	refusedChain   = "refused"
)

// Priorities. Ours come behind dstnat (-100), where kube-proxy has its Services, and before
// the ports of containers (-95): the host has the address of a service, and of a port that a
// service has the port sets know only that it is taken. In postrouting the first
// that translates has the last word, and a service asks for less than any other. The bridge's
// is before dstnat (-300), with the guards of source addresses behind it.
const (
	priService     = -96
	priPostrouting = 99
	priInput       = -2
	priBridge      = -301
)

// inetTable translates connections.
func (f Families) inetTable() ruleset.Table {
	t := ruleset.Table{Family: unix.NFPROTO_INET}
	services := ruleset.Chain{Name: servicesChain, Jumps: 5}
	published := ruleset.Chain{Name: publishedChain, Jumps: 2, Rules: f.publishedRules()}
	refused := ruleset.Chain{Name: refusedChain, Jumps: 1}
	prerouting := ruleset.Chain{Name: "prerouting", Kind: "nat", Hook: unix.NF_INET_PRE_ROUTING, Priority: priService}
	output := ruleset.Chain{Name: "output", Kind: "nat", Hook: unix.NF_INET_LOCAL_OUT, Priority: priService}
	postrouting := ruleset.Chain{Name: "postrouting", Kind: "nat", Hook: unix.NF_INET_POST_ROUTING, Priority: priPostrouting}
	input := ruleset.Chain{Name: "input", Kind: "filter", Hook: unix.NF_INET_LOCAL_IN, Priority: priInput}
	for _, s := range f.both() {
		t.Sets = append(t.Sets, s.inet()...)
		// iifname . ip daddr @inside4 jump services
		prerouting.Rules = append(prerouting.Rules, ruleset.Rule{Why: "from containers to a service of their network",
			Does: ruleset.Rules(ruleset.IsFamily(s.family), in(&s.Inside), ruleset.Jump(servicesChain))})
		// ip daddr @host4 jump services
		output.Rules = append(output.Rules, ruleset.Rule{Why: "from programs of the host to a service",
			Does: ruleset.Rules(ruleset.IsFamily(s.family), in(&s.Host), ruleset.Jump(servicesChain))})
		services.Rules = append(services.Rules, s.serviceRules()...)
		postrouting.Rules = append(postrouting.Rules, s.sourceRules()...)
		refused.Rules = append(refused.Rules, s.refusedRules()...)
		// ip daddr @host4 meta l4proto tcp ct direction original reject with tcp reset
		input.Rules = append(input.Rules, []ruleset.Rule{
			{Why: "nothing behind the service: refused", Does: ruleset.Rules(ruleset.IsFamily(s.family), in(&s.Host), ruleset.IsProtocol(unix.IPPROTO_TCP), isOriginal, rejectReset)},
			{Why: "nothing behind the service: unreachable", Does: ruleset.Rules(ruleset.IsFamily(s.family), in(&s.Host), isNot(ping(s.family)), isOriginal, rejectPort)},
		}...)
	}
	// Never without "fib daddr type local": what is only forwarded belongs to others.
	toPublished := ruleset.Rule{Why: "what is for this host may be for a port of a service", // fib daddr type local jump published
		Does: ruleset.Rules(ruleset.IsLocal, ruleset.Jump(publishedChain))}
	prerouting.Rules, output.Rules = append(prerouting.Rules, toPublished), append(output.Rules, toPublished)
	// ct state new jump refused
	input.Rules = append(input.Rules, ruleset.Rule{Why: "the rest is led, or none of ours", Does: ruleset.Rules(isNew, ruleset.Jump(refusedChain))})
	t.Chains = []ruleset.Chain{services, published, refused, f.V4.counted(), f.V6.counted(), prerouting, output, postrouting, input}
	return t
}

func (f *Family) countedChain() string {
	if f.family == unix.NFPROTO_IPV6 {
		return "counted6"
	}
	return "counted4"
}

// counted is the chain that counts connections by the backend. nft knows the port that was asked
// only behind a match of the protocol.
func (f *Family) counted() ruleset.Chain {
	c := ruleset.Chain{Name: f.countedChain(), Jumps: 1}
	for _, p := range []firewall.Protocol{firewall.TCP, firewall.UDP, firewall.SCTP} {
		c.Rules = append(c.Rules,
			// meta l4proto tcp ct original ip daddr . meta l4proto . ct original proto-dst . ip daddr @led4
			ruleset.Rule{Why: "of this address", Does: ruleset.Rules(ruleset.IsFamily(f.family), ruleset.IsProtocol(byte(p)), f.ledFrom(false))},
			// meta l4proto tcp ct original ip daddr & 0.0.0.0 . meta l4proto . ct original proto-dst . ip daddr @led4
			ruleset.Rule{Why: "of any address of the host", Does: ruleset.Rules(ruleset.IsFamily(f.family), ruleset.IsProtocol(byte(p)), f.ledFrom(true))})
	}
	return c
}

// sourceRules say which connections to a backend get another source.
func (f *Family) sourceRules() []ruleset.Rule {
	all := []ruleset.Rule{
		// ct status dnat jump counted4
		{Why: "counted, by the backend", Does: ruleset.Rules(ruleset.IsFamily(f.family), isTranslated, ruleset.Jump(f.countedChain()))},
		// ct status dnat ip saddr . ip daddr @self4 masquerade
		{Why: "a backend that is led to itself answers by the host", Does: ruleset.Rules(ruleset.IsFamily(f.family), isTranslated, in(&f.Self), masquerade)},
		// ct status dnat ip saddr @host4 masquerade
		{Why: "a program of the host has one of its own addresses", Does: ruleset.Rules(ruleset.IsFamily(f.family), isTranslated, in(&f.Host, f.saddr), masquerade)},
	}
	// ip daddr . meta l4proto . th dport @far4 ct status dnat ct original ip daddr != @host4 masquerade
	all = append(all, ruleset.Rule{Why: "a backend on another host answers by the host whose port was asked",
		Does: ruleset.Rules(ruleset.IsFamily(f.family), isTranslated, in(&f.Far), f.notToService, masquerade)})
	if f.family == unix.NFPROTO_IPV4 {
		all = append(all, ruleset.Rule{Why: "localhost", // ct status dnat ip saddr 127.0.0.0/8 ip daddr . ip daddr @self4 masquerade
			Does: ruleset.Rules(ruleset.IsFamily(f.family), isTranslated, ruleset.SourceLocalhost4, in(&f.Self, f.daddr, f.daddr), masquerade)})
	}
	return all
}

// publishedRules look up ports of the host. They stand among those of services, with the host's
// address, or with the unspecified one for every address of the host. What is for a service, and
// led nowhere, is translated to itself: then no rule behind ours leads it elsewhere, and it is
// refused by the address and port that were asked for.
func (f Families) publishedRules() []ruleset.Rule {
	all := ruleset.NeverPublished()
	for _, s := range f.both() { // ip daddr @host4 dnat ip to ip daddr
		all = append(all, ruleset.Rule{Why: "the address of a service is none of the host's", Does: ruleset.Rules(ruleset.IsFamily(s.family), in(&s.Host), s.stay)})
	}
	all = append(all, ruleset.Rule{Why: "of this address of the host", Does: ruleset.Jump(servicesChain)})
	for _, s := range f.both() { // dnat ip to ip daddr & 0.0.0.0 . meta l4proto . th dport . numgen random mod 64 map @spread4 …
		all = append(all, s.leads(s.toAnyPort)...)
		for _, to := range s.both() { // ip daddr . meta l4proto . th dport @taken4 dnat ip to ip daddr
			all = append(all, ruleset.Rule{Why: "nothing behind the service", Does: ruleset.Rules(ruleset.IsFamily(s.family), to(&s.Taken, nil), s.stay)})
		}
	}
	return all
}

// refusedRules refuse what came to a published port, and stayed there.
func (f *Family) refusedRules() (all []ruleset.Rule) {
	for _, to := range f.both() { // ip daddr . meta l4proto . th dport @taken4 meta l4proto tcp reject with tcp reset
		all = append(all,
			ruleset.Rule{Why: "nothing behind the service: refused", Does: ruleset.Rules(ruleset.IsFamily(f.family), ruleset.IsProtocol(unix.IPPROTO_TCP), to(&f.Taken, nil), rejectReset)},
			ruleset.Rule{Why: "nothing behind the service: unreachable", Does: ruleset.Rules(ruleset.IsFamily(f.family), to(&f.Taken, nil), rejectPort)})
	}
	return all
}

// finder looks a port, and a number unless it is nil, up in a set.
type finder func(s *ruleset.Set, number func(reg uint32) []ruleset.Expr) ruleset.Part

// both look for a port of one address of the host, and of any.
func (f *Family) both() []finder { return []finder{f.toPort, f.toAnyPort} }

// serviceRules lead a connection to a backend.
func (f *Family) serviceRules() []ruleset.Rule { return f.leads(f.toPort) }

// leads are the rules that look up which backend a connection is led to, by to.
func (f *Family) leads(to finder) []ruleset.Rule {
	lead := func(s *ruleset.Set, number func(reg uint32) []ruleset.Expr, why string) ruleset.Rule {
		return ruleset.Rule{Why: why, Does: ruleset.Rules(ruleset.IsFamily(f.family), to(s, number), translate(f.family, s))}
	}
	return []ruleset.Rule{
		// ip daddr . meta l4proto . th dport @ports4
		{Why: "counted", Does: ruleset.Rules(ruleset.IsFamily(f.family), to(&f.Ports, nil))},
		// dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 64 map @spread4
		lead(&f.Spread, random(spreadBuckets), "by chance"),
		lead(&f.Rest, random(spreadBuckets), "by chance, of the parts that belong to no backend as a whole"),
		// dnat ip to ip daddr . meta l4proto . th dport . jhash ip saddr mod 256 seed 0x6c6e map @sticky4
		lead(&f.Sticky, hashed(f.saddr, clientBuckets), "by the client's address"),
	}
}

func ping(family uint8) byte {
	if family == unix.NFPROTO_IPV6 {
		return unix.IPPROTO_ICMPV6
	}
	return unix.IPPROTO_ICMP
}

// bridgeTable has the frames of backends pass by the host that would go from port to
// port: an answer to a neighbour has to be translated back. Frames to the backend take the
// same way, so that conntrack sees both directions of every connection or none.
func (f Families) bridgeTable() ruleset.Table {
	t := ruleset.Table{Family: unix.NFPROTO_BRIDGE}
	prerouting := ruleset.Chain{Name: "prerouting", Kind: "filter", Hook: 0, Priority: priBridge}
	for _, s := range f.both() {
		t.Sets = append(t.Sets, &s.Bridged)
		toHost := func(why string, fields ...ruleset.Field) ruleset.Rule {
			return ruleset.Rule{Why: why, Does: ruleset.Rules(isEther(s.family), ruleset.ToNeighbour, in(&s.Bridged, fields...), ruleset.Just(ruleset.SetEtherDestination(ruleset.RegData)), ruleset.ToHost)}
		}
		prerouting.Rules = append(prerouting.Rules,
			// meta pkttype other ether daddr set ip saddr . meta l4proto . th sport map @bridged4 meta pkttype set host
			toHost("from the port of a backend", s.saddr, ruleset.L4Proto, ruleset.SPort),
			toHost("to the port of a backend", s.daddr, ruleset.L4Proto, ruleset.DPort))
	}
	t.Chains = []ruleset.Chain{prerouting}
	return t
}

func (f Families) tables() []ruleset.Table {
	return []ruleset.Table{f.inetTable(), f.bridgeTable()}
}

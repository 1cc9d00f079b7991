// Package ruleset says what our nftables tables are: their sets, chains and rules, which
// never change, and the elements by which networks and endpoints stand in them. It is
// pure: it plans, reads and compares. Package nft brings it into the kernel.
package ruleset

import (
	"slices"

	"golang.org/x/sys/unix"
)

// InetTable holds what concerns packets.
func InetTable() Table {
	t := Table{Family: unix.NFPROTO_INET, Sets: append(slices.Clone(NetworkSets), &Strict, &Owners)}
	for _, f := range BothFamilies() {
		plain, ports := f.all()
		t.Sets = append(append(t.Sets, plain...), ports...)
	}
	t.Chains = []Chain{
		{Name: "direct", Jumps: 2, Rules: directRules()},
		{Name: MarksChain, Jumps: 1},
		{Name: "closed", Jumps: 1, Rules: closedRules()},
		{Name: "publish", Jumps: 2, Rules: publishRules()},
		{Name: underlayChain, Jumps: 1, Rules: underlayRules()},
		{Name: translatedChain, Jumps: 4, Rules: translatedRules()},
		{"raw", "filter", unix.NF_INET_PRE_ROUTING, priRaw, 0, []Rule{
			{"published on localhost is for this host alone", // ip daddr 127.0.0.0/8 iifname != "lo" drop
				Rules(isIPv4, destLocalhost4, notLo, Drop)},
			{"nothing out of a tunnel but of the network's hosts", // meta iifkind "vxlan" iifname @tunnels iifname . ether saddr != @vteps drop
				Rules(IsVXLAN, In(&Tunnels), IsEthernet, NotIn(&VTEPs), Drop)},
			toUnderlay(),
		}},
		{"prerouting", "nat", unix.NF_INET_PRE_ROUTING, priDestNAT + 5, 0, []Rule{toPorts("publish")}},
		{"output", "nat", unix.NF_INET_LOCAL_OUT, priDestNAT + 5, 0, []Rule{toPorts("publish")}},
		{"input", "filter", unix.NF_INET_LOCAL_IN, priFilter - 1, 0, []Rule{
			// rp_filter lets what has no source through. Not in raw, where br_netfilter
			// shows what only passes the bridge.
			{"nothing without a source into the host", // ip saddr 0.0.0.0/8 iifname @nohost drop
				Rules(isIPv4, sourceNone4, In(&NoHost, IIFName), Drop)},
			// Answers of these addresses tell an agent that its packets are let in here.
			{"to this host's end of a tunnel, past it, only from the network's hosts, ipv4", // iifname . ip daddr . iifname @beyond4 iifname . ether saddr . ip saddr . iifname != @senders4 drop
				Rules(isIPv4, In(&Beyond4, IIFName, DAddr4, IIFName), IsEthernet, notSentBy(&Senders4, SAddr4), Drop)},
			{"to this host's end of a tunnel, past it, only from the network's hosts, ipv6", // iifname . ip6 daddr . iifname @beyond6 iifname . ether saddr . ip6 saddr . iifname != @senders6 drop
				Rules(isIPv6, In(&Beyond6, IIFName, DAddr6, IIFName), IsEthernet, notSentBy(&Senders6, SAddr6), Drop)},
		}},
		{"forward", "filter", unix.NF_INET_FORWARD, priFilter - 1, 0, forwardRules()},
		{"postrouting", "nat", unix.NF_INET_POST_ROUTING, priSourceNAT, 0, postroutingRules()},
	}
	return t
}

// MarksChain holds a rule for each network with AcceptMark.
const MarksChain = "marks"

// toPorts leads to where a port is looked up. Never without "fib daddr type
// local": what is only forwarded belongs to others (CVE-2025-67499).
func toPorts(chain string) Rule {
	return Rule{"what is for this host may be for a published port", // fib daddr type local jump publish
		Rules(IsLocal, Jump(chain))}
}

// neverPublished are rules that return from what a family publishes to no source.
func neverPublished(f *FamilySets) []Rule {
	if f.Family == unix.NFPROTO_IPV4 {
		return nil
	}
	return []Rule{
		{"no link-local clients", // ip6 saddr fe80::/10 return
			Rules(isIPv6, sourceLinkLocal6, Return)},
		{"no published ports on ::1, which cannot leave the host", // ip6 daddr ::1 return
			Rules(isIPv6, destLocalhost6, Return)},
	}
}

// NeverPublished are rules that return from a chain where ports of the host are looked up.
func NeverPublished() []Rule { return neverPublished(IPv6()) }

// publishRules look a port up.
func publishRules() []Rule {
	all := NeverPublished()
	for _, f := range BothFamilies() {
		lead := func(s *Set) Rule { // dnat ip to ip daddr . meta l4proto . th dport map @port4
			return Rule{s.Name, Rules(IsFamily(f.Family), In(s), translate(unix.NFT_NAT_DNAT, s))}
		}
		all = append(append(append(all, lead(&f.Port), lead(&f.AnyPort)), fromRules(&f.From, IsFamily(f.Family))...), lead(&f.Span))
	}
	return all
}

// fromRules look a port up in a map of ranges that gives one, too: nft reads that only behind a
// match of the protocol.
func fromRules(s *Set, matches ...Part) (all []Rule) {
	for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
		// meta l4proto tcp dnat ip to ip saddr . ip daddr . meta l4proto . th dport map @from4
		all = append(all, Rule{s.Name, Rules(append(slices.Clone(matches), IsProtocol(p), In(s), translate(unix.NFT_NAT_DNAT, s))...)})
	}
	return all
}

// masqMark is the bit of the packet mark by which forward tells postrouting,
// where the kernel does not know the incoming interface, to masquerade. It is
// the one that the reference portmap plugin uses for the same.
const masqMark = 1 << 13

func forwardRules() []Rule {
	all := []Rule{{"connections that have come through once", // ct status confirmed meta nfproto != @strict accept
		Rules(ctHas(unix.NFT_CT_STATUS, ctConfirmed), NotIn(&Strict), Accept)}}
	for _, f := range BothFamilies() { // ct state new ct status dnat ip daddr . iifname @hairpin4 meta mark set mark | 0x2000
		for i := range f.Hairpin {
			all = append(all, Rule{"back to where it came from: " + f.Hairpin[i].Name, Rules(ctHas(unix.NFT_CT_STATE, ctNew),
				published(f, &f.Hairpin[i], f.DAddr, IIFName), addMark)})
		}
	}
	all = append(all, []Rule{
		{"no traffic between containers", // iifname . oifname @noicc drop
			Rules(In(&NoICC), Drop)},
		{"between containers of a network", // iifname . oifname @inside accept
			Rules(In(&Inside), Accept)},
		{"to containers of a network on hosts of the same segment, ipv4", // iifname . ip daddr . oifname @beyond4 accept
			Rules(isIPv4, In(&Beyond4), Accept)},
		{"to containers of a network on hosts of the same segment, ipv6", // iifname . ip6 daddr . oifname @beyond6 accept
			Rules(isIPv6, In(&Beyond6), Accept)},
		{"from such hosts, ipv4", // iifname . ether saddr . ip saddr . oifname @senders4 accept
			Rules(IsEthernet, isIPv4, In(&Senders4), Accept)},
		{"from such hosts, ipv6", // iifname . ether saddr . ip6 saddr . oifname @senders6 accept
			Rules(IsEthernet, isIPv6, In(&Senders6), Accept)},
		// Packets of an encrypted network to itself that did not get in by the rule before.
		{"nothing out of an encrypted network past its tunnel, ipv4", // iifname . ip daddr @sealed4 drop
			Rules(isIPv4, In(&Sealed4), Drop)},
		{"nothing out of an encrypted network past its tunnel, ipv6", // iifname . ip6 daddr @sealed6 drop
			Rules(isIPv6, In(&Sealed6), Drop)},
		{"nothing into an encrypted network past its tunnel, ipv4", // oifname . ip saddr @sealed4 drop
			Rules(isIPv4, In(&Sealed4, OIFName, SAddr4), Drop)},
		{"nothing into an encrypted network past its tunnel, ipv6", // oifname . ip6 saddr @sealed6 drop
			Rules(isIPv6, In(&Sealed6, OIFName, SAddr6), Drop)},
		{"nothing out of an internal network", // iifname @internal drop
			Rules(In(&Internal), Drop)},
		{"nothing into an internal network", // oifname @internal drop
			Rules(In(&Internal, OIFName), Drop)},
	}...)
	return append(append(all, tunnelRules()...), []Rule{
		{"networks apart from each other", // iifname @apart oifname @apart drop
			Rules(In(&Apart), In(&Apart, OIFName), Drop)},
		{"into closed networks", // meta nfproto . oifname @closed jump closed
			Rules(In(&Closed), Jump("closed"))},
	}...)
}

// closedRules are for what is forwarded into a network under Published or Routed.
func closedRules() []Rule {
	return []Rule{
		{"answers", // ct state established,related accept
			Rules(ctHas(unix.NFT_CT_STATE, ctEstablished|ctRelated), Accept)},
		{"published ports", // ct status dnat accept
			Rules(ctHas(unix.NFT_CT_STATUS, ctDNAT), Accept)},
		{"routed networks answer pings, ipv4", // meta nfproto . oifname @routed meta l4proto icmp accept
			Rules(In(&Routed), IsProtocol(unix.IPPROTO_ICMP), Accept)},
		{"routed networks answer pings, ipv6", // meta nfproto . oifname @routed meta l4proto ipv6-icmp accept
			Rules(In(&Routed), IsProtocol(unix.IPPROTO_ICMPV6), Accept)},
		{"published ports of routed networks", // meta nfproto . oifname @routed jump direct
			Rules(In(&Routed), Jump("direct"))},
		{"published ports, from trusted interfaces", // iifname . oifname @trusted jump direct
			Rules(In(&Trusted), Jump("direct"))},
		{"marked packets", Rules(Jump(MarksChain))},
		{"all else", Rules(Drop)},
	}
}

func directRules() []Rule {
	var all []Rule
	for _, f := range BothFamilies() {
		for _, s := range []*Set{&f.Open, &f.OpenSpan} { // ip daddr . meta l4proto . th dport @open4 accept
			all = append(all, Rule{s.Name, Rules(IsFamily(f.Family), In(s), Accept)})
		}
	}
	return all
}

func postroutingRules() []Rule {
	// A nat chain sees the first packet of each connection only, and none of
	// neighbour discovery.
	all := []Rule{
		{"no connections from the host", // oifname @nohost fib saddr type local drop
			Rules(In(&NoHost), fromLocal, Drop)},
		{"no connections from the host, by an address that is anycast, too", // oifname @nohost fib saddr type anycast drop
			Rules(In(&NoHost), fromAnycast, Drop)},
	}
	for _, f := range BothFamilies() {
		version := "ipv4"
		if f.Family == unix.NFPROTO_IPV6 {
			version = "ipv6"
		}
		leaves := Rules(IsFamily(f.Family), In(&f.Masq), NotIn(&f.Home), NotIn(beyond(f)), notMulticast(f))
		all = append(all,
			Rule{"fixed source of what leaves the bridge, " + version, // … snat ip to ip saddr map @snat4
				Rules(leaves, In(&f.Source), translate(unix.NFT_NAT_SNAT, &f.Source))},
			Rule{"masquerade what leaves the bridge, " + version, // ip saddr @masquerade4 ip saddr . oifname != @home4 ip daddr != 224.0.0.0/4 masquerade
				Rules(leaves, masquerade)})
		for i := range f.MasqAll { // ct status dnat ip daddr @masqueradeall4 masquerade
			all = append(all, Rule{"masquerade all published connections: " + f.MasqAll[i].Name, Rules(published(f, &f.MasqAll[i]), masquerade)})
		}
	}
	for i := range IPv4().Hairpin { // ct status dnat ip daddr . oifname @hairpin4 ip saddr 127.0.0.0/8 masquerade
		all = append(all, Rule{"masquerade localhost: " + IPv4().Hairpin[i].Name,
			Rules(published(IPv4(), &IPv4().Hairpin[i]), SourceLocalhost4, masquerade)})
	}
	return append(all, Rule{"masquerade what goes back to where it came from", // ct status dnat meta mark & 0x2000 != 0 masquerade
		Rules(ctHas(unix.NFT_CT_STATUS, ctDNAT), hasMark, masquerade)})
}

func published(f *FamilySets, s *Set, fields ...Field) Part {
	return Rules(IsFamily(f.Family), ctHas(unix.NFT_CT_STATUS, ctDNAT), In(s, fields...))
}

// MetChain looks up the ports of owners whose conditions are met. It is gone to
// by a rule for each of them.
const MetChain = "met"

// ConditionTable holds the ports of endpoints with conditions for one family,
// so that their words mean what they mean in a table of that family. It exists
// only while there are some.
func ConditionTable(f *FamilySets) Table {
	// dnat to ip saddr . ip daddr . meta l4proto . th dport map @span
	span := Rule{f.GatedSpan.Name, Rules(In(&f.GatedSpan), translate(unix.NFT_NAT_DNAT, &f.GatedSpan))}
	return Table{f.Family, f.Gates(), []Chain{
		{Name: MetChain, Rules: append(fromRules(&f.GatedFrom), span)},
		{Name: "conditions", Jumps: 2, Rules: append(neverPublished(f), // ip daddr . meta l4proto . th dport vmap @gate
			Rule{"to the conditions of whose port it is", In(&f.Gate)})},
		{"prerouting", "nat", unix.NF_INET_PRE_ROUTING, priDestNAT + 5, 0, []Rule{toPorts("conditions")}},
		{"output", "nat", unix.NF_INET_LOCAL_OUT, priDestNAT + 5, 0, []Rule{toPorts("conditions")}},
	}}
}

// TableFamilies are the families in which we may have a table.
var TableFamilies = [...]uint8{unix.NFPROTO_INET, unix.NFPROTO_BRIDGE, unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}

// TableOf returns our table of a family.
func TableOf(family uint8) Table {
	switch family {
	case unix.NFPROTO_BRIDGE:
		return BridgeTable()
	case unix.NFPROTO_IPV4:
		return ConditionTable(IPv4())
	case unix.NFPROTO_IPV6:
		return ConditionTable(IPv6())
	}
	return InetTable()
}

// BridgeTable holds what concerns frames. It exists only once an endpoint has a MAC.
func BridgeTable() Table {
	return Table{unix.NFPROTO_BRIDGE, []*Set{&Guarded, &MACs}, []Chain{
		{"prerouting", "filter", nfBridgePreRouting, priBridgeDestNAT, 0, []Rule{
			{"no other source MAC than the container's", // iifname @guarded iifname . ether saddr != @macs drop
				Rules(In(&Guarded), NotIn(&MACs), Drop)},
		}},
	}}
}

// Rare says that a table comes and goes while the others stay: that it is not
// there does not mean that another program has flushed it.
func (t Table) Rare() bool { return t.Family == unix.NFPROTO_IPV4 || t.Family == unix.NFPROTO_IPV6 }

// Outline is TableOf of which sets and rules are there by their number alone. Each ADD asks whether
// a table stands: all its rules, made to be counted, are 5 % of an ADD's instructions.
func Outline(family uint8) Table {
	switch family {
	case unix.NFPROTO_INET:
		return Table{family, blankSets[:49], []Chain{
			{Name: "direct", Jumps: 2, Rules: blankRules[:4]},
			{Name: MarksChain, Jumps: 1},
			{Name: "closed", Jumps: 1, Rules: blankRules[:8]},
			{Name: "publish", Jumps: 2, Rules: blankRules[:14]},
			{Name: underlayChain, Jumps: 1, Rules: blankRules[:3]},
			{Name: translatedChain, Jumps: 4, Rules: blankRules[:2]},
			{"raw", "filter", unix.NF_INET_PRE_ROUTING, priRaw, 0, blankRules[:3]},
			{"prerouting", "nat", unix.NF_INET_PRE_ROUTING, priDestNAT + 5, 0, blankRules[:1]},
			{"output", "nat", unix.NF_INET_LOCAL_OUT, priDestNAT + 5, 0, blankRules[:1]},
			{"input", "filter", unix.NF_INET_LOCAL_IN, priFilter - 1, 0, blankRules[:3]},
			{"forward", "filter", unix.NF_INET_FORWARD, priFilter - 1, 0, blankRules[:23]},
			{"postrouting", "nat", unix.NF_INET_POST_ROUTING, priSourceNAT, 0, blankRules[:13]},
		}}
	case unix.NFPROTO_BRIDGE:
		return Table{family, blankSets[:2], []Chain{{"prerouting", "filter", nfBridgePreRouting, priBridgeDestNAT, 0, blankRules[:1]}}}
	}
	return TableOf(family)
}

// Places to be counted.
var (
	blankSets  [64]*Set
	blankRules [64]Rule
)

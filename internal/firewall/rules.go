package firewall

import (
	"slices"

	"golang.org/x/sys/unix"
)

// inetTable holds what concerns packets.
func inetTable() table {
	t := table{family: unix.NFPROTO_INET, sets: append(slices.Clone(networkSets), &strict, &owners)}
	for _, f := range bothFamilies() {
		plain, ports := f.all()
		t.sets = append(append(t.sets, plain...), ports...)
	}
	t.chains = []chain{
		{name: "direct", jumps: 2, rules: directRules()},
		{name: marksChain, jumps: 1},
		{name: "closed", jumps: 1, rules: closedRules()},
		{name: "publish", jumps: 2, rules: publishRules()},
		{name: underlayChain, jumps: 1, rules: underlayRules()},
		{name: translatedChain, jumps: 2, rules: translatedRules()},
		{"raw", "filter", unix.NF_INET_PRE_ROUTING, priRaw, 0, []rule{
			{"published on localhost is for this host alone", // ip daddr 127.0.0.0/8 iifname != "lo" drop
				rules(isIPv4, destLocalhost4, notLo, drop)},
			{"nothing out of a tunnel but of the network's hosts", // meta iifkind "vxlan" iifname @tunnels iifname . ether saddr != @vteps drop
				rules(isVXLAN, in(&tunnels), notIn(&vteps), drop)},
			toUnderlay(),
		}},
		{"prerouting", "nat", unix.NF_INET_PRE_ROUTING, priDestNAT + 5, 0, []rule{toPorts("publish")}},
		{"output", "nat", unix.NF_INET_LOCAL_OUT, priDestNAT + 5, 0, []rule{toPorts("publish")}},
		{"input", "filter", unix.NF_INET_LOCAL_IN, priFilter - 1, 0, []rule{
			// rp_filter lets what has no source through. Not in raw, where br_netfilter
			// shows what only passes the bridge.
			{"nothing without a source into the host", // ip saddr 0.0.0.0/8 iifname @nohost drop
				rules(isIPv4, sourceNone4, in(&noHost, iifname), drop)},
		}},
		{"forward", "filter", unix.NF_INET_FORWARD, priFilter - 1, 0, forwardRules()},
		{"postrouting", "nat", unix.NF_INET_POST_ROUTING, priSourceNAT, 0, postroutingRules()},
	}
	return t
}

// marksChain holds a rule for each network with AcceptMark.
const marksChain = "marks"

// toPorts leads to where a port is looked up. Never without "fib daddr type
// local": what is only forwarded belongs to others (CVE-2025-67499).
func toPorts(chain string) rule {
	return rule{"what is for this host may be for a published port", // fib daddr type local jump publish
		rules(isLocal, jump(chain))}
}

// neverPublished are rules that return from what a family publishes to no source.
func neverPublished(f *familySets) []rule {
	if f.family == unix.NFPROTO_IPV4 {
		return nil
	}
	return []rule{
		{"no link-local clients", // ip6 saddr fe80::/10 return
			rules(isIPv6, sourceLinkLocal6, ret)},
		{"no published ports on ::1, which cannot leave the host", // ip6 daddr ::1 return
			rules(isIPv6, destLocalhost6, ret)},
	}
}

// publishRules look a port up.
func publishRules() []rule {
	all := neverPublished(ipv6())
	for _, f := range bothFamilies() {
		for _, s := range []*set{&f.port, &f.anyPort, &f.from, &f.span} {
			// dnat ip to ip daddr . meta l4proto . th dport map @port4
			all = append(all, rule{s.name, rules(isFamily(f.family), in(s), translate(unix.NFT_NAT_DNAT, s))})
		}
	}
	return all
}

// masqMark is the bit of the packet mark by which forward tells postrouting,
// where the kernel does not know the incoming interface, to masquerade. It is
// the one that the reference portmap plugin uses for the same.
const masqMark = 1 << 13

func forwardRules() []rule {
	all := []rule{{"connections that have come through once", // ct status confirmed meta nfproto != @strict accept
		rules(ctHas(unix.NFT_CT_STATUS, ctConfirmed), notIn(&strict), accept)}}
	for _, f := range bothFamilies() { // ct state new ct status dnat ip daddr . iifname @hairpin4 meta mark set mark | 0x2000
		for i := range f.hairpin {
			all = append(all, rule{"back to where it came from: " + f.hairpin[i].name, rules(ctHas(unix.NFT_CT_STATE, ctNew),
				published(f, &f.hairpin[i], f.daddr, iifname), addMark)})
		}
	}
	all = append(all, []rule{
		{"no traffic between containers", // iifname . oifname @noicc drop
			rules(in(&noicc), drop)},
		{"between containers of a network", // iifname . oifname @inside accept
			rules(in(&inside), accept)},
		{"nothing out of an internal network", // iifname @internal drop
			rules(in(&internal), drop)},
		{"nothing into an internal network", // oifname @internal drop
			rules(in(&internal, oifname), drop)},
	}...)
	return append(append(all, tunnelRules()...), []rule{
		{"networks apart from each other", // iifname @apart oifname @apart drop
			rules(in(&apart), in(&apart, oifname), drop)},
		{"into closed networks", // meta nfproto . oifname @closed jump closed
			rules(in(&closed), jump("closed"))},
	}...)
}

// closedRules are for what is forwarded into a network under Published or Routed.
func closedRules() []rule {
	return []rule{
		{"answers", // ct state established,related accept
			rules(ctHas(unix.NFT_CT_STATE, ctEstablished|ctRelated), accept)},
		{"published ports", // ct status dnat accept
			rules(ctHas(unix.NFT_CT_STATUS, ctDNAT), accept)},
		{"routed networks answer pings, ipv4", // meta nfproto . oifname @routed meta l4proto icmp accept
			rules(in(&routed), isProtocol(unix.IPPROTO_ICMP), accept)},
		{"routed networks answer pings, ipv6", // meta nfproto . oifname @routed meta l4proto ipv6-icmp accept
			rules(in(&routed), isProtocol(unix.IPPROTO_ICMPV6), accept)},
		{"published ports of routed networks", // meta nfproto . oifname @routed jump direct
			rules(in(&routed), jump("direct"))},
		{"published ports, from trusted interfaces", // iifname . oifname @trusted jump direct
			rules(in(&trusted), jump("direct"))},
		{"marked packets", rules(jump(marksChain))},
		{"all else", rules(drop)},
	}
}

func directRules() []rule {
	var all []rule
	for _, f := range bothFamilies() {
		for _, s := range []*set{&f.open, &f.openSpan} { // ip daddr . meta l4proto . th dport @open4 accept
			all = append(all, rule{s.name, rules(isFamily(f.family), in(s), accept)})
		}
	}
	return all
}

func postroutingRules() []rule {
	// A nat chain sees the first packet of each connection only, and none of
	// neighbour discovery.
	all := []rule{
		{"no connections from the host", // oifname @nohost fib saddr type local drop
			rules(in(&noHost), fromLocal, drop)},
		{"no connections from the host, by an address that is anycast, too", // oifname @nohost fib saddr type anycast drop
			rules(in(&noHost), fromAnycast, drop)},
	}
	for _, f := range bothFamilies() {
		version := "ipv4"
		if f.family == unix.NFPROTO_IPV6 {
			version = "ipv6"
		}
		leaves := rules(isFamily(f.family), in(&f.masq), notIn(&f.home), notMulticast(f))
		all = append(all,
			rule{"fixed source of what leaves the bridge, " + version, // … snat ip to ip saddr map @snat4
				rules(leaves, in(&f.source), translate(unix.NFT_NAT_SNAT, &f.source))},
			rule{"masquerade what leaves the bridge, " + version, // ip saddr @masquerade4 ip saddr . oifname != @home4 ip daddr != 224.0.0.0/4 masquerade
				rules(leaves, masquerade)})
		for i := range f.masqAll { // ct status dnat ip daddr @masqueradeall4 masquerade
			all = append(all, rule{"masquerade all published connections: " + f.masqAll[i].name, rules(published(f, &f.masqAll[i]), masquerade)})
		}
	}
	for i := range ipv4().hairpin { // ct status dnat ip daddr . oifname @hairpin4 ip saddr 127.0.0.0/8 masquerade
		all = append(all, rule{"masquerade localhost: " + ipv4().hairpin[i].name,
			rules(published(ipv4(), &ipv4().hairpin[i]), sourceLocalhost4, masquerade)})
	}
	return append(all, rule{"masquerade what goes back to where it came from", // ct status dnat meta mark & 0x2000 != 0 masquerade
		rules(ctHas(unix.NFT_CT_STATUS, ctDNAT), hasMark, masquerade)})
}

func published(f *familySets, s *set, fields ...field) part {
	return rules(isFamily(f.family), ctHas(unix.NFT_CT_STATUS, ctDNAT), in(s, fields...))
}

// metChain looks up the ports of owners whose conditions are met. It is gone to
// by a rule for each of them.
const metChain = "met"

// conditionTable holds the ports of endpoints with conditions for one family,
// so that their words mean what they mean in a table of that family. It exists
// only while there are some.
func conditionTable(f *familySets) table {
	lookup := func(s *set) rule { // dnat to ip saddr . ip daddr . meta l4proto . th dport map @from
		return rule{s.name, rules(in(s), translate(unix.NFT_NAT_DNAT, s))}
	}
	return table{f.family, f.gates(), []chain{
		{name: metChain, rules: []rule{lookup(&f.gatedFrom), lookup(&f.gatedSpan)}},
		{name: "conditions", jumps: 2, rules: append(neverPublished(f), // ip daddr . meta l4proto . th dport vmap @gate
			rule{"to the conditions of whose port it is", in(&f.gate)})},
		{"prerouting", "nat", unix.NF_INET_PRE_ROUTING, priDestNAT + 5, 0, []rule{toPorts("conditions")}},
		{"output", "nat", unix.NF_INET_LOCAL_OUT, priDestNAT + 5, 0, []rule{toPorts("conditions")}},
	}}
}

// tableFamilies are the families in which we may have a table.
var tableFamilies = [...]uint8{unix.NFPROTO_INET, unix.NFPROTO_BRIDGE, unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}

// tableOf returns our table of a family.
func tableOf(family uint8) table {
	switch family {
	case unix.NFPROTO_BRIDGE:
		return bridgeTable()
	case unix.NFPROTO_IPV4:
		return conditionTable(ipv4())
	case unix.NFPROTO_IPV6:
		return conditionTable(ipv6())
	}
	return inetTable()
}

// bridgeTable holds what concerns frames. It exists only once an endpoint has a MAC.
func bridgeTable() table {
	return table{unix.NFPROTO_BRIDGE, []*set{&guarded, &macs}, []chain{
		{"prerouting", "filter", nfBridgePreRouting, priBridgeDestNAT, 0, []rule{
			{"no other source MAC than the container's", // iifname @guarded iifname . ether saddr != @macs drop
				rules(in(&guarded), notIn(&macs), drop)},
		}},
	}}
}

// rare says that a table comes and goes while the others stay: that it is not
// there does not mean that another program has flushed it.
func (t table) rare() bool { return t.family == unix.NFPROTO_IPV4 || t.family == unix.NFPROTO_IPV6 }

// part is some of what a rule does. It is made when the rule is written, which
// is seldom: mostly rules are only counted.
type part func() []expr

// rules joins the parts of one rule.
func rules(parts ...part) part {
	return func() []expr {
		var all []expr
		for _, p := range parts {
			all = append(all, p()...)
		}
		return all
	}
}

func just(exprs ...expr) part { return func() []expr { return exprs } }

// in matches packets whose fields are an element of s. The fields are those
// of s, unless others are given.
func in(s *set, fields ...field) part { return lookup(s, false, fields) }

func notIn(s *set) part { return lookup(s, true, nil) }

func lookup(s *set, invert bool, fields tuple) part {
	if fields == nil {
		fields = s.key
	}
	return func() []expr { return append(fields.load(), lookupExpr(s, invert)) }
}

// Bits of ct state (NFT_CT_STATE_BIT) and ct status (linux/netfilter/nf_conntrack_common.h).
const (
	ctEstablished = 1 << 1
	ctRelated     = 1 << 2
	ctNew         = 1 << 3
	ctConfirmed   = 1 << 3
	ctDNAT        = 1 << 5
)

// metaIIFKind is NFT_META_IIFKIND, which golang.org/x/sys/unix lacks.
const metaIIFKind = 26

func ctHas(key, bits uint32) part {
	return func() []expr { return []expr{ct(key), bitwise(host32(bits)), compare(unix.NFT_CMP_NEQ, host32(0))} }
}

func isFamily(family uint8) part {
	return func() []expr {
		return []expr{meta(unix.NFT_META_NFPROTO, regKey), compare(unix.NFT_CMP_EQ, []byte{family})}
	}
}

func isProtocol(p byte) part {
	return func() []expr { return []expr{meta(unix.NFT_META_L4PROTO, regKey), compare(unix.NFT_CMP_EQ, []byte{p})} }
}

func jump(chain string) part { return func() []expr { return []expr{verdict(unix.NFT_JUMP, chain)} } }

// prefix matches a field against a prefix; size is that of the prefix in bytes.
func prefix(f field, op uint32, want, mask []byte) []expr {
	all := []expr{f.load(regKey)}
	if mask != nil {
		all = append(all, bitwise(mask))
	}
	return append(all, compare(op, want))
}

// firstByte returns the first byte of the field.
func (f field) firstByte() field {
	f.size = 1
	return f
}

func drop() []expr       { return []expr{verdict(nfDrop, "")} }
func accept() []expr     { return []expr{verdict(nfAccept, "")} }
func ret() []expr        { return []expr{verdict(unix.NFT_RETURN, "")} }
func masquerade() []expr { return []expr{masqExpr()} }
func isIPv4() []expr     { return isFamily(unix.NFPROTO_IPV4)() }
func isIPv6() []expr     { return isFamily(unix.NFPROTO_IPV6)() }

// fib daddr type local, fib saddr type local
func isLocal() []expr {
	return []expr{addrType(), compare(unix.NFT_CMP_EQ, host32(unix.RTN_LOCAL))}
}
func fromLocal() []expr {
	return []expr{sourceType(), compare(unix.NFT_CMP_EQ, host32(unix.RTN_LOCAL))}
}

// fib saddr type anycast. While a link forwards IPv6 the first address of its
// subnet is anycast, also where it is the host's own on another link.
func fromAnycast() []expr {
	return []expr{sourceType(), compare(unix.NFT_CMP_EQ, host32(unix.RTN_ANYCAST))}
}

// meta iifkind "vxlan"
func isVXLAN() []expr {
	return []expr{meta(metaIIFKind, regKey), compare(unix.NFT_CMP_EQ, iifname.bytes("vxlan"))}
}

// meta mark set mark | 0x2000, meta mark & 0x2000 != 0
func addMark() []expr {
	return []expr{meta(unix.NFT_META_MARK, regKey), setBits(masqMark), setMark()}
}
func hasMark() []expr {
	return []expr{meta(unix.NFT_META_MARK, regKey), bitwise(host32(masqMark)), compare(unix.NFT_CMP_NEQ, host32(0))}
}

// translate is NAT to what the map s gave.
func translate(typ uint32, s *set) part {
	family := uint8(unix.NFPROTO_IPV4)
	if s.data[0].datatype == typeIPv6 {
		family = unix.NFPROTO_IPV6
	}
	return func() []expr { return []expr{nat(typ, family, s)} }
}

func notLo() []expr {
	return []expr{meta(unix.NFT_META_IIFNAME, regKey), compare(unix.NFT_CMP_NEQ, iifname.bytes("lo"))}
}

// ip saddr 127.0.0.0/8
func sourceLocalhost4() []expr {
	return prefix(saddr4.firstByte(), unix.NFT_CMP_EQ, []byte{127}, nil)
}

// ip saddr 0.0.0.0/8
func sourceNone4() []expr {
	return prefix(saddr4.firstByte(), unix.NFT_CMP_EQ, []byte{0}, nil)
}

// ip daddr 127.0.0.0/8
func destLocalhost4() []expr {
	return prefix(daddr4.firstByte(), unix.NFT_CMP_EQ, []byte{127}, nil)
}

// ip daddr != 224.0.0.0/4, ip6 daddr != ff00::/8
func notMulticast(f *familySets) part {
	return func() []expr {
		if f.family == unix.NFPROTO_IPV6 {
			return prefix(daddr6.firstByte(), unix.NFT_CMP_NEQ, []byte{0xff}, nil)
		}
		return prefix(daddr4, unix.NFT_CMP_NEQ, []byte{224, 0, 0, 0}, []byte{0xf0, 0, 0, 0})
	}
}

// ip6 saddr fe80::/10
func sourceLinkLocal6() []expr {
	return prefix(saddr6, unix.NFT_CMP_EQ, first16(0xfe, 0x80), first16(0xff, 0xc0))
}

// ip6 daddr ::1
func destLocalhost6() []expr {
	return prefix(daddr6, unix.NFT_CMP_EQ, append(make([]byte, 15), 1), nil)
}

func first16(b ...byte) []byte { return append(b, make([]byte, 16-len(b))...) }

// bytes returns a name as the field has it, filled up with NULs.
func (f field) bytes(s string) []byte {
	b := make([]byte, f.size)
	copy(b, s)
	return b
}

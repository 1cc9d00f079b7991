package firewall

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// inetTable holds what concerns packets.
func inetTable() table {
	t := table{family: unix.NFPROTO_INET, sets: append(slices.Clone(networkSets), &strict, &owners)}
	for _, f := range []*familySets{&ipv4, &ipv6} {
		plain, ports := f.all()
		t.sets = append(append(t.sets, plain...), ports...)
	}
	t.chains = []chain{
		{name: "direct", jumps: 2, rules: directRules()},
		{name: marksChain, jumps: 1},
		{name: "closed", jumps: 1, rules: closedRules()},
		{name: "publish", jumps: 2, rules: publishRules()},
		{"raw", "filter", unix.NF_INET_PRE_ROUTING, priRaw, 0, []rule{
			{"published on localhost is for this host alone", // ip daddr 127.0.0.0/8 iifname != "lo" drop
				rules(isIPv4, destLocalhost4, notLo, drop)},
			{"nothing out of a tunnel but of the network's hosts", // meta iifkind "vxlan" iifname @tunnels iifname . ether saddr != @vteps drop
				rules(isVXLAN, in(&tunnels), notIn(&vteps), drop)},
		}},
		{"prerouting", "nat", unix.NF_INET_PRE_ROUTING, priDestNAT + 5, 0, []rule{toPublish}},
		{"output", "nat", unix.NF_INET_LOCAL_OUT, priDestNAT + 5, 0, []rule{toPublish}},
		{"forward", "filter", unix.NF_INET_FORWARD, priFilter - 1, 0, forwardRules()},
		{"postrouting", "nat", unix.NF_INET_POST_ROUTING, priSourceNAT, 0, postroutingRules()},
	}
	return t
}

// marksChain holds a rule for each network with AcceptMark.
const marksChain = "marks"

var toPublish = rule{"what is for this host may be for a published port", // fib daddr type local jump publish
	rules([]expr{addrType(), compare(unix.NFT_CMP_EQ, host32(unix.RTN_LOCAL))}, jump("publish"))}

// publishRules look a port up. Never without "fib daddr type local" before:
// what is only forwarded belongs to others (CVE-2025-67499).
func publishRules() []rule {
	all := []rule{
		{"no link-local clients", // ip6 saddr fe80::/10 return
			rules(isIPv6, sourceLinkLocal6, ret)},
		{"no published ports on ::1, which cannot leave the host", // ip6 daddr ::1 return
			rules(isIPv6, destLocalhost6, ret)},
	}
	for _, f := range []*familySets{&ipv4, &ipv6} {
		for _, s := range []*set{&f.port, &f.anyPort, &f.from, &f.span} {
			// dnat ip to ip daddr . meta l4proto . th dport map @port4
			all = append(all, rule{s.name, rules(isFamily(f.family), in(s), []expr{nat(unix.NFT_NAT_DNAT, f.family, s)})})
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
	for _, f := range []*familySets{&ipv4, &ipv6} { // ct state new ct status dnat ip daddr . iifname @hairpin4 meta mark set mark | 0x2000
		all = append(all, rule{"back to where it came from: " + f.hairpin.name, rules(ctHas(unix.NFT_CT_STATE, ctNew),
			published(f, &f.hairpin, f.daddr, iifname), []expr{meta(unix.NFT_META_MARK, regKey), setBits(masqMark), setMark()})})
	}
	return append(all, []rule{
		{"no traffic between containers", // iifname . oifname @noicc drop
			rules(in(&noicc), drop)},
		{"between containers of a network", // iifname . oifname @inside accept
			rules(in(&inside), accept)},
		{"nothing out of an internal network", // iifname @internal drop
			rules(in(&internal), drop)},
		{"nothing into an internal network", // oifname @internal drop
			rules(in(&internal, oifname), drop)},
		{"networks apart from each other", // iifname @apart oifname @apart drop
			rules(in(&apart), in(&apart, oifname), drop)},
		{"who may come into a closed network", // meta nfproto . oifname @closed jump closed
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
		{"nobody else", rules(drop)},
	}
}

func directRules() []rule {
	var all []rule
	for _, f := range []*familySets{&ipv4, &ipv6} {
		for _, s := range []*set{&f.open, &f.openSpan} { // ip daddr . meta l4proto . th dport @open4 accept
			all = append(all, rule{s.name, rules(isFamily(f.family), in(s), accept)})
		}
	}
	return all
}

func postroutingRules() []rule {
	// A nat chain sees the first packet of each connection only, and none of
	// neighbour discovery.
	all := []rule{{"no connections from the host", // oifname @nohost fib saddr type local drop
		rules(in(&noHost), []expr{sourceType(), compare(unix.NFT_CMP_EQ, host32(unix.RTN_LOCAL))}, drop)}}
	for _, f := range []*familySets{&ipv4, &ipv6} {
		version, notGroup := "ipv4", notMulticast4
		if f.family == unix.NFPROTO_IPV6 {
			version, notGroup = "ipv6", notMulticast6
		}
		leaves := rules(isFamily(f.family), in(&f.masq), notIn(&f.home), notGroup)
		all = append(all,
			rule{"fixed source of what leaves the bridge, " + version, // … snat ip to ip saddr map @source4
				rules(leaves, in(&f.source), []expr{nat(unix.NFT_NAT_SNAT, f.family, &f.source)})},
			rule{"masquerade what leaves the bridge, " + version, // ip saddr @masq4 ip saddr . oifname != @home4 ip daddr != 224.0.0.0/4 masquerade
				rules(leaves, masquerade)},
			rule{"masquerade all published connections, " + version, // ct status dnat ip daddr @masqall4 masquerade
				rules(published(f, &f.masqAll), masquerade)})
	}
	return append(all, rule{"masquerade what goes back to where it came from", // ct status dnat meta mark & 0x2000 != 0 masquerade
		rules(ctHas(unix.NFT_CT_STATUS, ctDNAT), []expr{meta(unix.NFT_META_MARK, regKey), bitwise(host32(masqMark)), compare(unix.NFT_CMP_NEQ, host32(0))}, masquerade)},
		rule{"masquerade localhost", // ct status dnat ip daddr . oifname @hairpin4 ip saddr 127.0.0.0/8 masquerade
			rules(published(&ipv4, &ipv4.hairpin), sourceLocalhost4, masquerade)})
}

func published(f *familySets, s *set, fields ...field) []expr {
	return rules(isFamily(f.family), ctHas(unix.NFT_CT_STATUS, ctDNAT), in(s, fields...))
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

// rules joins the parts of one rule.
func rules(parts ...[]expr) []expr { return slices.Concat(parts...) }

// in matches packets whose fields are an element of s. The fields are those
// of s, unless others are given.
func in(s *set, fields ...field) []expr { return lookup(s, false, fields) }

func notIn(s *set) []expr { return lookup(s, true, nil) }

func lookup(s *set, invert bool, fields tuple) []expr {
	if fields == nil {
		fields = s.key
	}
	return append(fields.load(), lookupExpr(s, invert))
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

func ctHas(key, bits uint32) []expr {
	return []expr{ct(key), bitwise(host32(bits)), compare(unix.NFT_CMP_NEQ, host32(0))}
}

func isFamily(family uint8) []expr {
	return []expr{meta(unix.NFT_META_NFPROTO, regKey), compare(unix.NFT_CMP_EQ, []byte{family})}
}

func isProtocol(p byte) []expr {
	return []expr{meta(unix.NFT_META_L4PROTO, regKey), compare(unix.NFT_CMP_EQ, []byte{p})}
}

func jump(chain string) []expr { return []expr{verdict(unix.NFT_JUMP, chain)} }

// prefix matches a field against a prefix; size is that of the prefix in bytes.
func prefix(f field, op uint32, want, mask []byte) []expr {
	all := []expr{f.load(regKey)}
	if mask != nil {
		all = append(all, bitwise(mask))
	}
	return append(all, compare(op, want))
}

// first returns the field cut to its first bytes.
func (f field) first(bytes, offset uint32) field {
	f.size, f.load = bytes, network(offset, bytes)
	return f
}

var (
	drop       = []expr{verdict(nfDrop, "")}
	accept     = []expr{verdict(nfAccept, "")}
	ret        = []expr{verdict(unix.NFT_RETURN, "")}
	masquerade = []expr{masqExpr()}
	isIPv4     = isFamily(unix.NFPROTO_IPV4)
	isIPv6     = isFamily(unix.NFPROTO_IPV6)

	isVXLAN = []expr{meta(metaIIFKind, regKey), compare(unix.NFT_CMP_EQ, iifname.bytes("vxlan"))}
	notLo   = []expr{meta(unix.NFT_META_IIFNAME, regKey), compare(unix.NFT_CMP_NEQ, iifname.bytes("lo"))}

	sourceLocalhost4 = prefix(saddr4.first(1, 12), unix.NFT_CMP_EQ, []byte{127}, nil)            // ip saddr 127.0.0.0/8
	destLocalhost4   = prefix(daddr4.first(1, 16), unix.NFT_CMP_EQ, []byte{127}, nil)            // ip daddr 127.0.0.0/8
	notMulticast4    = prefix(daddr4, unix.NFT_CMP_NEQ, []byte{224, 0, 0, 0}, mask4(0xf0000000)) // ip daddr != 224.0.0.0/4
	notMulticast6    = prefix(daddr6.first(1, 24), unix.NFT_CMP_NEQ, []byte{0xff}, nil)          // ip6 daddr != ff00::/8
	sourceLinkLocal6 = prefix(saddr6, unix.NFT_CMP_EQ, first16(0xfe, 0x80), first16(0xff, 0xc0)) // ip6 saddr fe80::/10
	destLocalhost6   = prefix(daddr6, unix.NFT_CMP_EQ, append(make([]byte, 15), 1), nil)
)

func first16(b ...byte) []byte { return append(b, make([]byte, 16-len(b))...) }

func mask4(m uint32) []byte { return binary.BigEndian.AppendUint32(nil, m) }

// bytes returns a name as the field has it, filled up with NULs.
func (f field) bytes(s string) []byte {
	b := make([]byte, f.size)
	copy(b, s)
	return b
}

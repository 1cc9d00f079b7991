package admit

import (
	"math"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
)

// PortGroup is the group (IFLA_GROUP) of the host's ends of containers' interfaces, as package link
// makes them: the ports that are closed until a pod is known there.
const PortGroup = 0x6c6e7074 // "lnpt"

// goingGroup is that of such ports while GC removes them; package link gives it. Killed in
// between, it leaves them so.
const goingGroup = 0x6c6e676f // "lngo"

// Priorities: in forward before all that may set the priority of packets, which our rules use to
// keep a class in: what a map gives cannot be part of a key for nft(8) 1.0.6, which ends when it
// lists such a rule. On the bridge behind the guards of source addresses (-300).
const (
	priForward = -300
	priBridge  = -299
)

// Chains that are not those of a hook.
const (
	straysChain  = "strays"
	answersChain = "answers"
	liftChain    = "lift"
)

// way is one direction of connections.
type way struct {
	name      string
	direction byte // IP_CT_DIR_*
	port      ruleset.Field
	// client and server are the addresses of the two ends. In forward all are those of containers
	// and of clients themselves: destinations have been translated there, and sources not yet.
	client, server func(*family) ruleset.Field
}

func (f *family) source() ruleset.Field      { return f.saddr }
func (f *family) destination() ruleset.Field { return f.daddr }

// ways are both directions.
func ways() []way {
	return []way{
		{"requests", 0, ruleset.DPort, (*family).source, (*family).destination},
		{"replies", 1, ruleset.SPort, (*family).destination, (*family).source},
	}
}

// inetTable judges packets.
func (s *Sets) inetTable() ruleset.Table {
	t := ruleset.Table{Family: unix.NFPROTO_INET, Sets: []*ruleset.Set{&s.ports, &s.spans}}
	forward := ruleset.Chain{Name: "forward", Kind: "filter", Hook: unix.NF_INET_FORWARD, Priority: priForward}
	for _, f := range s.families() {
		t.Sets = append(append(append(t.Sets, f.sides[In].sets()...), f.sides[Out].sets()...), &f.peers, &f.blocks, &f.pods, &f.self, &f.home, &f.local)
		home := ruleset.Chain{Name: "home" + f.suffix, Jumps: 1, Rules: []ruleset.Rule{
			// meta nfproto . ip daddr @home4 reject with icmpx host-unreachable
			{Why: "no pod is known there, and none shall find it waiting", Does: ruleset.Rules(ruleset.IsFamily(f.number), ruleset.Just(ruleset.Meta(unix.NFT_META_NFPROTO, ruleset.RegKey), f.daddr.Load(ruleset.RegKey+1), ruleset.Lookup(&f.home)), rejectHost)},
		}}
		t.Chains = append(t.Chains, f.done(), home)
		// ip daddr != @local4 jump home4
		forward.Rules = append(forward.Rules, ruleset.Rule{Why: "to no pod of this host", Does: ruleset.Rules(ruleset.IsFamily(f.number), ruleset.NotIn(&f.local), ruleset.Jump(home.Name))})
	}
	for _, w := range ways() {
		both := ruleset.Chain{Name: w.name, Jumps: 1}
		t.Chains = append(t.Chains, s.profile(w))
		for _, f := range s.families() {
			out := f.judge("egress", w, &f.sides[Out], w.client(f), w.server(f))
			in := f.judge("ingress", w, &f.sides[In], w.server(f), w.client(f))
			t.Chains = append(t.Chains, out, in)
			both.Rules = append(both.Rules,
				// ip saddr @out4 jump egressrequests4
				ruleset.Rule{Why: "begun by an isolated pod", Does: ruleset.Rules(ruleset.IsFamily(f.number), has(&f.sides[Out].isolated, w.client(f)), ruleset.Jump(out.Name))},
				// ip daddr @in4 jump ingressrequests4
				ruleset.Rule{Why: "to an isolated pod", Does: ruleset.Rules(ruleset.IsFamily(f.number), has(&f.sides[In].isolated, w.server(f)), ruleset.Jump(in.Name))})
		}
		t.Chains = append(t.Chains, both)
		// ct direction original jump requests
		forward.Rules = append(forward.Rules, ruleset.Rule{Why: "of a connection", Does: ruleset.Rules(isDirection(w.direction), ruleset.Jump(w.name))})
	}
	forward.Rules = append(forward.Rules,
		// ct state invalid,untracked jump strays
		ruleset.Rule{Why: "of no connection", Does: ruleset.Rules(isState(stateInvalid|stateUntracked), ruleset.Jump(straysChain))},
		// tcp flags ! syn ct state new jump answers
		ruleset.Rule{Why: "of a connection whose beginning conntrack has not seen", Does: ruleset.Rules(ruleset.IsProtocol(unix.IPPROTO_TCP), isState(stateNew), noSYN, ruleset.Jump(answersChain))})
	t.Chains = append(append(t.Chains, s.unknown()...), forward)
	return t
}

// unknown are the chains for packets of which conntrack does not know which end began.
func (s *Sets) unknown() []ruleset.Chain {
	strays := ruleset.Chain{Name: straysChain, Jumps: 1, Rules: []ruleset.Rule{
		// meta l4proto ipv6-icmp ct state untracked return
		{Why: "neighbour discovery", Does: ruleset.Rules(ruleset.IsProtocol(unix.IPPROTO_ICMPV6), isState(stateUntracked), ruleset.Return)},
	}}
	answers := ruleset.Chain{Name: answersChain, Jumps: 1}
	for _, f := range s.families() {
		in, out := &f.sides[In].isolated, &f.sides[Out].isolated
		drop := func(why string, set *ruleset.Set, address ruleset.Field) ruleset.Rule { // ip saddr @in4 drop
			return ruleset.Rule{Why: why, Does: ruleset.Rules(ruleset.IsFamily(f.number), has(set, address), ruleset.Drop)}
		}
		for _, address := range []ruleset.Field{f.saddr, f.daddr} {
			strays.Rules = append(strays.Rules, drop("no connection that could be judged", in, address), drop("no connection that could be judged", out, address))
		}
		answers.Rules = append(answers.Rules, drop("an answer of an isolated pod, it may be", in, f.saddr), drop("an answer to an isolated pod, it may be", out, f.daddr))
	}
	return []ruleset.Chain{strays, answers}
}

// has looks for an address of the packet.
func has(set *ruleset.Set, address ruleset.Field) ruleset.Part {
	return ruleset.Just(address.Load(ruleset.RegKey), ruleset.Lookup(set))
}

// allowed is what a profile becomes that has the packet's port.
const allowed = math.MaxUint32 - 1

// profile is the chain that looks whether the profile in the packet's priority has its port.
func (s *Sets) profile(w way) ruleset.Chain {
	in := func(set *ruleset.Set) ruleset.Part {
		return ruleset.Just(ruleset.Meta(unix.NFT_META_PRIORITY, ruleset.RegKey), ruleset.L4Proto.Load(ruleset.RegKey+1), w.port.Load(ruleset.RegKey+2), ruleset.Lookup(set))
	}
	yes := ruleset.Just(ruleset.Constant(ruleset.RegData, ruleset.Host32(allowed)), setPriority())
	return ruleset.Chain{Name: w.name + "ports", Jumps: 2 * stages * int(sides), Rules: []ruleset.Rule{
		// meta priority 1 meta priority set ffff:fffe
		{Why: "all", Does: ruleset.Rules(isPriority(unix.NFT_CMP_EQ, AllPorts), yes)},
		// meta priority . meta l4proto . th dport @ports meta priority set ffff:fffe
		{Why: "a port", Does: ruleset.Rules(in(&s.ports), yes)},
		{Why: "a range of ports", Does: ruleset.Rules(in(&s.spans), yes)},
	}}
}

// stages is how many times judge looks up a profile.
const stages = 4

// judge is the chain for one side of one direction, by the addresses of the isolated pod and of the
// other end.
func (f *family) judge(name string, w way, s *side, own, other ruleset.Field) ruleset.Chain {
	c := ruleset.Chain{Name: name + w.name + f.suffix, Jumps: 1}
	rule := func(why string, does ...ruleset.Part) {
		c.Rules = append(c.Rules, ruleset.Rule{Why: why, Does: ruleset.Rules(append([]ruleset.Part{ruleset.IsFamily(f.number)}, does...)...)})
	}
	reset := func() { // meta priority set 0
		rule("none", ruleset.Just(ruleset.Constant(ruleset.RegData, ruleset.Host32(0)), setPriority()))
	}
	decide := func() {
		// meta priority != 0 jump requestsports
		rule("may it use this port", isPriority(unix.NFT_CMP_NEQ, 0), ruleset.Jump(w.name+"ports"))
		// meta priority ffff:fffe goto done4
		rule("it may", isPriority(unix.NFT_CMP_EQ, allowed), ruleset.Just(ruleset.Verdict(unix.NFT_GOTO, "done"+f.suffix)))
	}
	profile := func(why string, set *ruleset.Set, before ruleset.Part) {
		reset()
		rule(why, before, ruleset.Just(own.Load(ruleset.RegKey), ruleset.Lookup(set), setPriority()))
		decide()
	}
	class := func(why string, before ...ruleset.Expr) {
		reset()
		rule(why, ruleset.Just(append(before, setPriority())...))
		// meta priority set ip daddr . meta priority map @inclass4
		rule("what this class may", ruleset.Just(own.Load(ruleset.RegKey), ruleset.Meta(unix.NFT_META_PRIORITY, ruleset.RegKey+own.Padded()/4), ruleset.Lookup(&s.class), setPriority()))
		decide()
	}
	// ip saddr . ip daddr @self4 return
	rule("a pod reaches itself", ruleset.Just(f.saddr.Load(ruleset.RegKey), f.daddr.Load(ruleset.RegKey+f.saddr.Padded()/4), ruleset.Lookup(&f.self)), ruleset.Return)
	// meta l4proto icmp ct state related return
	rule("errors about what may be there", ruleset.IsProtocol(f.icmp), isState(stateRelated), ruleset.Return)
	// meta priority set ip daddr map @inany4
	profile("what every address may", &s.any, ruleset.Just())
	// ip saddr @pods4 meta priority set ip daddr map @inpod4
	profile("what every pod may", &s.pod, has(&f.pods, other))
	// meta priority set ip saddr map @peers4
	class("the class of a pod", other.Load(ruleset.RegKey), ruleset.Lookup(&f.peers))
	// meta priority set meta nfproto . ip saddr map @blocks4
	class("the class of an address", ruleset.Meta(unix.NFT_META_NFPROTO, ruleset.RegKey), other.Load(ruleset.RegKey+1), ruleset.Lookup(&f.blocks))
	rule("all else", ruleset.Drop)
	return c
}

// done gives a packet back the priority that it had: ip_forward has made it of the type of service
// (rt_tos2priority), and from a pod it has none.
func (f *family) done() ruleset.Chain {
	c := ruleset.Chain{Name: "done" + f.suffix, Jumps: 2 * stages * int(sides), Rules: []ruleset.Rule{
		{Why: "best effort", Does: ruleset.Just(ruleset.Constant(ruleset.RegData, ruleset.Host32(0)), setPriority())}, // meta priority set 0
	}}
	if f.number == unix.NFPROTO_IPV6 {
		return c
	}
	const bulk, interactiveBulk, interactive = 2, 4, 6 // TC_PRIO_*
	for _, p := range []struct {
		why      string
		bits     byte
		priority uint32
	}{{"bulk", 0x08, bulk}, {"interactive", 0x10, interactive}, {"interactive bulk", 0x18, interactiveBulk}} {
		// ip dscp & 0x06 == 0x02 meta priority set 0:2
		c.Rules = append(c.Rules, ruleset.Rule{Why: p.why, Does: ruleset.Just(network(1), ruleset.Mask([]byte{0x18}), ruleset.Compare(unix.NFT_CMP_EQ, []byte{p.bits}),
			ruleset.Constant(ruleset.RegData, ruleset.Host32(p.priority)), setPriority())})
	}
	return c
}

// bridgeTable closes ports, and has packets between pods pass by the host.
func (s *Sets) bridgeTable() ruleset.Table {
	t := ruleset.Table{Family: unix.NFPROTO_BRIDGE, Sets: []*ruleset.Set{&s.open}}
	lift := ruleset.Chain{Name: liftChain, Jumps: 1}
	for _, f := range s.families() {
		t.Sets = append(t.Sets, &f.lift)
		// meta protocol ip meta pkttype other ether daddr set ip daddr map @lift4 meta pkttype set host
		lift.Rules = append(lift.Rules, ruleset.Rule{Why: "by the host", Does: ruleset.Rules(isEther(unix.NFT_CMP_EQ, f.ether), ruleset.ToNeighbour,
			ruleset.Just(f.daddr.Load(ruleset.RegKey), ruleset.Lookup(&f.lift)), ruleset.Just(ruleset.SetEtherDestination(ruleset.RegData)), ruleset.ToHost)})
	}
	// iifgroup != 0x6c6e7074 return
	foreign := func(group uint32) ruleset.Rule {
		return ruleset.Rule{Why: "none of ours", Does: ruleset.Rules(ruleset.Just(ruleset.Meta(group, ruleset.RegKey), ruleset.Compare(unix.NFT_CMP_NEQ, ruleset.Host32(PortGroup))), ruleset.Return)}
	}
	// iifgroup 0x6c6e676f drop
	going := func(group uint32) ruleset.Rule {
		return ruleset.Rule{Why: "being removed", Does: ruleset.Rules(ruleset.Just(ruleset.Meta(group, ruleset.RegKey), ruleset.Compare(unix.NFT_CMP_EQ, ruleset.Host32(goingGroup))), ruleset.Drop)}
	}
	known := func(port ruleset.Field) ruleset.Part {
		return ruleset.Just(port.Load(ruleset.RegKey), ruleset.Lookup(&s.open))
	}
	neighbours := ruleset.Rule{Why: "neighbour discovery", Does: ruleset.Rules(isEther(unix.NFT_CMP_EQ, unix.ETH_P_IPV6), isNeighbourDiscovery, ruleset.Return)}
	// meta protocol != arp drop
	closed := ruleset.Rule{Why: "closed until a pod is known there", Does: ruleset.Rules(isEther(unix.NFT_CMP_NEQ, unix.ETH_P_ARP), ruleset.Drop)}
	t.Chains = []ruleset.Chain{
		lift,
		{Name: "prerouting", Kind: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: priBridge, Rules: []ruleset.Rule{
			going(unix.NFT_META_IIFGROUP), foreign(unix.NFT_META_IIFGROUP), neighbours,
			// iifname @open goto lift
			{Why: "from a pod", Does: ruleset.Rules(known(ruleset.IIFName), ruleset.Just(ruleset.Verdict(unix.NFT_GOTO, liftChain)))}, closed}},
		{Name: "postrouting", Kind: "filter", Hook: unix.NF_INET_POST_ROUTING, Priority: 0, Rules: []ruleset.Rule{
			going(unix.NFT_META_OIFGROUP), foreign(unix.NFT_META_OIFGROUP),
			// oifname @open return
			{Why: "to a pod", Does: ruleset.Rules(known(ruleset.OIFName), ruleset.Return)}, neighbours, closed}},
	}
	return t
}

func (s *Sets) tables() []ruleset.Table { return []ruleset.Table{s.inetTable(), s.bridgeTable()} }

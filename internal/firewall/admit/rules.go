package admit

import (
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
	priLift    = 1 // behind br_netfilter
)

// Chains that are not those of a hook; those of forward have a family's suffix.
const (
	judgeChain   = "judge"
	repliesChain = "replies"
	answersChain = "answers"
	liftChain    = "lift"
)

// way is one direction of connections.
type way struct {
	name string
	port ruleset.Field
	// client and server are the addresses of the two ends. In forward all are those of containers
	// and of clients themselves: destinations have been translated there, and sources not yet.
	client, server func(*family) ruleset.Field
}

func (f *family) source() ruleset.Field      { return f.saddr }
func (f *family) destination() ruleset.Field { return f.daddr }

// Both directions.
func requests() way {
	return way{"requests", ruleset.DPort, (*family).source, (*family).destination}
}
func replies() way {
	return way{"replies", ruleset.SPort, (*family).destination, (*family).source}
}

// inetTable judges packets. One between two pods that are not isolated is looked up three times.
func (s *Sets) inetTable() ruleset.Table {
	t := ruleset.Table{Family: unix.NFPROTO_INET, Sets: []*ruleset.Set{&s.ports, &s.spans}}
	forward := ruleset.Chain{Name: "forward", Kind: "filter", Hook: unix.NF_INET_FORWARD, Priority: priForward}
	for _, f := range s.families() {
		t.Sets = append(append(append(t.Sets, f.sides[In].sets()...), f.sides[Out].sets()...), &f.judged, &f.peers, &f.blocks, &f.pods, &f.self, &f.home, &f.local)
		home := ruleset.Chain{Name: "home" + f.suffix, Jumps: 1, Rules: []ruleset.Rule{
			// meta nfproto . ip daddr @home4 reject with icmpx host-unreachable
			f.rule("no pod is known there, and none shall find it waiting", ruleset.Just(ruleset.Meta(unix.NFT_META_NFPROTO, ruleset.RegKey), f.daddr.Load(ruleset.RegKey+1), ruleset.Lookup(&f.home)), rejectHost),
		}}
		t.Chains = append(append(t.Chains, f.done(), home), s.judges(f)...)
		forward.Rules = append(forward.Rules,
			// ip daddr != @local4 jump home4
			f.rule("to no pod of this host", ruleset.NotIn(&f.local), ruleset.Jump(home.Name)),
			// ip daddr @judged4 goto judge4
			f.rule("to an isolated pod", has(&f.judged, f.daddr), goTo(judgeChain+f.suffix)),
			f.rule("from an isolated pod", has(&f.judged, f.saddr), goTo(judgeChain+f.suffix)))
	}
	t.Chains = append(t.Chains, forward)
	return t
}

// rule is one for packets of the family.
func (f *family) rule(why string, does ...ruleset.Part) ruleset.Rule {
	return ruleset.Rule{Why: why, Does: ruleset.Rules(append([]ruleset.Part{ruleset.IsFamily(f.number)}, does...)...)}
}

func goTo(chain string) ruleset.Part { return ruleset.Just(ruleset.Verdict(unix.NFT_GOTO, chain)) }

// has looks for an address of the packet.
func has(set *ruleset.Set, address ruleset.Field) ruleset.Part {
	return ruleset.Just(address.Load(ruleset.RegKey), ruleset.Lookup(set))
}

// gives has the number that a map gives for an address be the packet's priority.
func gives(set *ruleset.Set, address ruleset.Field) ruleset.Part {
	return ruleset.Just(address.Load(ruleset.RegKey), ruleset.Lookup(set), setPriority())
}

// judges are the chains for packets of isolated pods.
func (s *Sets) judges(f *family) (all []ruleset.Chain) {
	judge := ruleset.Chain{Name: judgeChain + f.suffix, Jumps: 2}
	if f.number == unix.NFPROTO_IPV6 {
		// meta l4proto ipv6-icmp ct state untracked accept
		judge.Rules = append(judge.Rules, ruleset.Rule{Why: "neighbour discovery", Does: ruleset.Rules(ruleset.IsProtocol(unix.IPPROTO_ICMPV6), isState(stateUntracked), ruleset.Accept)})
	}
	answers := ruleset.Chain{Name: answersChain + f.suffix, Jumps: 1, Rules: []ruleset.Rule{
		// meta priority set ip saddr map @in4 drop
		f.rule("an answer of an isolated pod, it may be", gives(&f.sides[In].isolated, f.saddr), ruleset.Drop),
		f.rule("an answer to an isolated pod, it may be", gives(&f.sides[Out].isolated, f.daddr), ruleset.Drop),
	}}
	reply := ruleset.Chain{Name: repliesChain + f.suffix, Jumps: 1}
	judge.Rules = append(judge.Rules,
		// ct state invalid,untracked drop
		ruleset.Rule{Why: "no connection that could be judged", Does: ruleset.Rules(isState(stateInvalid|stateUntracked), ruleset.Drop)},
		// ct direction reply goto replies4
		ruleset.Rule{Why: "of the end that was asked", Does: ruleset.Rules(isReply, goTo(reply.Name))},
		// ct state new tcp flags ! syn jump answers4
		ruleset.Rule{Why: "of a connection whose beginning conntrack has not seen", Does: ruleset.Rules(isState(stateNew), ruleset.IsProtocol(unix.IPPROTO_TCP), noSYN, ruleset.Jump(answers.Name))})
	for _, both := range []struct {
		way
		chain *ruleset.Chain
	}{{requests(), &judge}, {replies(), &reply}} {
		w := both.way
		out := s.judge(f, "egress", w, &f.sides[Out], w.client(f), w.server(f))
		in := s.judge(f, "ingress", w, &f.sides[In], w.server(f), w.client(f))
		all = append(all, out, in)
		both.chain.Rules = append(both.chain.Rules,
			// meta priority set ip saddr map @out4 jump egressrequests4
			f.rule("begun by an isolated pod", gives(&f.sides[Out].isolated, w.client(f)), ruleset.Jump(out.Name)),
			// meta priority set ip daddr map @in4 jump ingressrequests4
			f.rule("to an isolated pod", gives(&f.sides[In].isolated, w.server(f)), ruleset.Jump(in.Name)),
			ruleset.Rule{Why: "nothing keeps it", Does: goTo("done" + f.suffix)})
	}
	return append(all, answers, judge, reply)
}

// judge is the chain for one side of one direction, by the addresses of the isolated pod and of the
// other end. The priority of the packet is the profile that every address may use.
func (s *Sets) judge(f *family, name string, w way, on *side, own, other ruleset.Field) ruleset.Chain {
	c := ruleset.Chain{Name: name + w.name + f.suffix, Jumps: 1}
	rule := func(why string, does ...ruleset.Part) { c.Rules = append(c.Rules, f.rule(why, does...)) }
	// A rule whose map has nothing leaves the priority as it is: a profile that lacks the port, or a
	// class, which is no profile. So neither needs to be taken away.
	decide := func() { // of no family: a packet meets these rules often
		rule := func(why string, does ...ruleset.Part) {
			c.Rules = append(c.Rules, ruleset.Rule{Why: why, Does: ruleset.Rules(does...)})
		}
		port := func(set *ruleset.Set) ruleset.Part {
			return ruleset.Just(ruleset.Meta(unix.NFT_META_PRIORITY, ruleset.RegKey), ruleset.L4Proto.Load(ruleset.RegKey+1), w.port.Load(ruleset.RegKey+2), ruleset.Lookup(set))
		}
		// meta priority 1 return
		rule("every port", isPriority(unix.NFT_CMP_EQ, AllPorts), ruleset.Return)
		// meta priority != 0 meta priority . meta l4proto . th dport @ports return
		rule("a port", isPriority(unix.NFT_CMP_NEQ, NoPorts), port(&s.ports), ruleset.Return)
		rule("a range of ports", isPriority(unix.NFT_CMP_NEQ, NoPorts), port(&s.spans), ruleset.Return)
	}
	class := func(why string, before ...ruleset.Expr) {
		rule(why, ruleset.Just(append(before, setPriority())...))
		// meta priority set ip daddr . meta priority map @inclass4
		rule("what this class may", ruleset.Just(own.Load(ruleset.RegKey), ruleset.Meta(unix.NFT_META_PRIORITY, ruleset.RegKey+own.Padded()/4), ruleset.Lookup(&on.class), setPriority()))
		decide()
	}
	decide()
	// meta priority set ip saddr map @peers4
	class("the class of a pod", other.Load(ruleset.RegKey), ruleset.Lookup(&f.peers))
	// ip saddr @pods4 meta priority set ip daddr map @inpod4
	rule("what every pod may", has(&f.pods, other), gives(&on.pod, own))
	decide()
	// meta priority set meta nfproto . ip saddr map @blocks4
	class("the class of an address", ruleset.Meta(unix.NFT_META_NFPROTO, ruleset.RegKey), other.Load(ruleset.RegKey+1), ruleset.Lookup(&f.blocks))
	// meta l4proto icmp ct state related return
	rule("errors about what may be there", ruleset.IsProtocol(f.icmp), isState(stateRelated), ruleset.Return)
	// ip saddr . ip daddr @self4 return
	rule("a pod reaches itself", ruleset.Just(f.saddr.Load(ruleset.RegKey), f.daddr.Load(ruleset.RegKey+f.saddr.Padded()/4), ruleset.Lookup(&f.self)), ruleset.Return)
	rule("all else", ruleset.Drop)
	return c
}

// done gives a packet back the priority that it had: ip_forward has made it of the type of service
// (rt_tos2priority), and from a pod it has none.
func (f *family) done() ruleset.Chain {
	c := ruleset.Chain{Name: "done" + f.suffix, Jumps: 2, Rules: []ruleset.Rule{
		{Why: "best effort", Does: ruleset.Just(ruleset.Constant(ruleset.RegData, ruleset.Host32(0)), setPriority())}, // meta priority set 0
	}}
	if f.number == unix.NFPROTO_IPV6 {
		return c
	}
	const bulk, interactiveBulk, interactive = 2, 4, 6 // TC_PRIO_*
	tos := func(bits byte) ruleset.Part {              // ip dscp & 0x06 == 0x02
		return ruleset.Just(network(1), ruleset.Mask([]byte{0x18}), ruleset.Compare(unix.NFT_CMP_EQ, []byte{bits}))
	}
	c.Rules = append(c.Rules, ruleset.Rule{Why: "as most", Does: ruleset.Rules(tos(0), ruleset.Return)})
	for _, p := range []struct {
		why      string
		bits     byte
		priority uint32
	}{{"bulk", 0x08, bulk}, {"interactive", 0x10, interactive}, {"interactive bulk", 0x18, interactiveBulk}} {
		// ip dscp & 0x06 == 0x02 meta priority set 0:2
		c.Rules = append(c.Rules, ruleset.Rule{Why: p.why, Does: ruleset.Rules(tos(p.bits), ruleset.Just(ruleset.Constant(ruleset.RegData, ruleset.Host32(p.priority)), setPriority()))})
	}
	return c
}

// bridgeTable closes ports, and has packets between pods pass by the host, unless br_netfilter shows
// them to the inet table while they pass the bridge. That is asked of each packet: others may switch
// br_netfilter on and off. A kernel that cannot say so is blind: all pass by the host.
func (s *Sets) bridgeTable(blind bool) ruleset.Table {
	t := ruleset.Table{Family: unix.NFPROTO_BRIDGE, Sets: []*ruleset.Set{&s.open}}
	// iifgroup != 0x6c6e7074 return
	foreign := func(group uint32) ruleset.Rule {
		return ruleset.Rule{Why: "none of ours", Does: ruleset.Rules(ruleset.Just(ruleset.Meta(group, ruleset.RegKey), ruleset.Compare(unix.NFT_CMP_NEQ, ruleset.Host32(PortGroup))), ruleset.Return)}
	}
	neighbours := ruleset.Rule{Why: "neighbour discovery", Does: ruleset.Rules(isEther(unix.NFT_CMP_EQ, unix.ETH_P_IPV6), isNeighbourDiscovery, ruleset.Return)}
	lift := ruleset.Chain{Name: liftChain, Kind: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: priLift, Rules: []ruleset.Rule{foreign(unix.NFT_META_IIFGROUP)}}
	if !blind {
		lift.Rules = append(lift.Rules, ruleset.Rule{Why: "br_netfilter shows it", Does: ruleset.Rules(isShown, ruleset.Return)}) // meta rtclassid 0 return
	}
	for _, f := range s.families() {
		if t.Sets = append(t.Sets, &f.lift); f.number == unix.NFPROTO_IPV6 {
			lift.Rules = append(lift.Rules, neighbours)
		}
		// meta protocol ip meta pkttype != host ether daddr set ip daddr map @lift4 meta pkttype set host
		lift.Rules = append(lift.Rules, ruleset.Rule{Why: "by the host", Does: ruleset.Rules(isEther(unix.NFT_CMP_EQ, f.ether), notToHost,
			ruleset.Just(f.daddr.Load(ruleset.RegKey), ruleset.Lookup(&f.lift)), ruleset.Just(ruleset.SetEtherDestination(ruleset.RegData)), ruleset.ToHost)})
	}
	// iifgroup 0x6c6e676f drop
	going := func(group uint32) ruleset.Rule {
		return ruleset.Rule{Why: "being removed", Does: ruleset.Rules(ruleset.Just(ruleset.Meta(group, ruleset.RegKey), ruleset.Compare(unix.NFT_CMP_EQ, ruleset.Host32(goingGroup))), ruleset.Drop)}
	}
	known := func(port ruleset.Field) ruleset.Part {
		return ruleset.Just(port.Load(ruleset.RegKey), ruleset.Lookup(&s.open))
	}
	// meta protocol != arp drop
	closed := ruleset.Rule{Why: "closed until a pod is known there", Does: ruleset.Rules(isEther(unix.NFT_CMP_NEQ, unix.ETH_P_ARP), ruleset.Drop)}
	// @nh,0,16 & 0xfff == 0 meta protocol 8021q drop
	hidden := func(protocol uint16) ruleset.Rule {
		return ruleset.Rule{Why: "a packet behind tags", Does: ruleset.Rules(isTwice(protocol), ruleset.Drop)}
	}
	t.Chains = []ruleset.Chain{
		lift,
		{Name: "prerouting", Kind: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: priBridge, Rules: []ruleset.Rule{
			going(unix.NFT_META_IIFGROUP), foreign(unix.NFT_META_IIFGROUP), neighbours, hidden(unix.ETH_P_8021Q), hidden(unix.ETH_P_8021AD),
			// iifname @open return
			{Why: "from a pod", Does: ruleset.Rules(known(ruleset.IIFName), ruleset.Return)}, closed}},
		{Name: "postrouting", Kind: "filter", Hook: unix.NF_INET_POST_ROUTING, Priority: 0, Rules: []ruleset.Rule{
			going(unix.NFT_META_OIFGROUP), foreign(unix.NFT_META_OIFGROUP),
			// oifname @open return
			{Why: "to a pod", Does: ruleset.Rules(known(ruleset.OIFName), ruleset.Return)}, neighbours, closed}},
	}
	return t
}

func (s *Sets) tables(blind bool) []ruleset.Table {
	return []ruleset.Table{s.inetTable(), s.bridgeTable(blind)}
}

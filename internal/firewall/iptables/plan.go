package iptables

import (
	"fmt"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// plan returns the rules of n and e for one family.
func plan(f family, n firewall.Network, e firewall.Endpoint) []rule {
	return append(networkRules(f, n), endpointRules(f, n, e)...)
}

// networkRules has the rules of n. A network that lets all packets in has some,
// too: the host's own policy may be to drop.
func networkRules(f family, n firewall.Network) []rule {
	if n.Bridge == "" {
		return nil
	}
	var all []rule
	br := n.Bridge
	add := func(chain, match, target string) {
		all = append(all, newRule("filter", chain, match, n.GuardKey(), target))
	}
	if n.Internal {
		add(chainIsolate, "-i "+br+" ! -o "+br, "DROP")
		add(chainIsolate, "! -i "+br+" -o "+br, "DROP")
	}
	if n.NoICC {
		add(chainIsolate, "-i "+br+" -o "+br, "DROP")
	}
	if n.Apart {
		add(chainIsolate, "-i "+br+" ! -o "+br, chainApart)
		add(chainApart, "-o "+br, "DROP")
	}
	if n.NoHost && f == ipv4 {
		add(chainHost, "-s 0.0.0.0/8 -i "+br, "DROP")
	}
	for _, r := range entry(f, n) {
		add(chainInto, r[0], r[1])
	}
	add(chainOut, "-i "+br, "ACCEPT")
	return all
}

// entry has the matches and targets, in order, for what is forwarded to n's bridge.
func entry(f family, n firewall.Network) [][2]string {
	to := "-o " + n.Bridge
	policy := f.policy(n)
	if policy != firewall.Published && policy != firewall.Routed {
		return [][2]string{{to, "ACCEPT"}}
	}
	all := [][2]string{
		{to + " -m conntrack --ctstate RELATED,ESTABLISHED", "ACCEPT"},
		{"-i " + n.Bridge + " " + to, "ACCEPT"},
	}
	if n.AcceptMark != nil {
		all = append(all, [2]string{to + " -m mark --mark " + maskedMark(n.AcceptMark.Value, n.AcceptMark.Mask), "ACCEPT"})
	}
	all = append(all, [2]string{to + " -m conntrack --ctstate DNAT", "ACCEPT"})
	if policy == firewall.Routed {
		all = append(all, [2]string{to + " -p " + f.icmp(), "ACCEPT"}, [2]string{to, chainPorts})
		return append(all, [2]string{to, "DROP"})
	}
	for _, dev := range n.Trusted {
		all = append(all, [2]string{"-i " + dev + " " + to, chainPorts})
	}
	return append(all, [2]string{to, "DROP"})
}

func maskedMark(value, mask uint32) string {
	if mask == ^uint32(0) {
		return fmt.Sprintf("0x%x", value)
	}
	return fmt.Sprintf("0x%x/0x%x", value, mask)
}

package iptables

import (
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Our chains. Networks and endpoints have their rules in all but the first,
// second and last, each with its owner as the comment; these three have the
// rules that stand below.
const (
	chainUser    = firewall.UserChain               // rules of the administrator, evaluated before ours
	chainForward = firewall.ChainPrefix + "FORWARD" // the way through the next three
	chainIsolate = firewall.ChainPrefix + "ISOLATE" // drops that no other network's rule can undo
	chainInto    = firewall.ChainPrefix + "INTO"    // which source may send to a bridge; it has the last word on each
	chainOut     = firewall.ChainPrefix + "OUT"     // what leaves a bridge and is not for another one of ours
	chainApart   = firewall.ChainPrefix + "APART"   // from ISOLATE: into which bridges those that are apart may not send
	chainPorts   = firewall.ChainPrefix + "PORTS"   // from INTO: published container ports
	chainDNAT    = firewall.ChainPrefix + "DNAT"    // published ports of the host
	chainSNAT    = firewall.ChainPrefix + "SNAT"    // masquerade
	chainHost    = firewall.ChainPrefix + "HOST"    // from where the host takes nothing without a source
	chainGuard   = firewall.ChainPrefix + "GUARD"   // loopback addresses stay on lo, whatever route_localnet says

	prefixEndpoint = firewall.ChainPrefix + "EP-" // from DNAT: the ports of an endpoint with conditions
)

// unit is a set of chains and the rules that lead to them. It is there as long
// as a chain of usedBy has a rule.
type unit struct {
	table  string
	chains []string // the ones that are jumped to first
	fixed  []rule
	jumps  []jump
	usedBy []string
}

// jump is the rule of a built-in chain that leads to one of ours. It is put
// right after the jump to another one, or in the first place, or appended.
type jump struct {
	from, match, to string
	after           string
	last            bool
}

func (j jump) rule(table string) rule {
	return newRule(table, j.from, j.match, "", j.to)
}

// newRule returns a rule from words with a space in between.
func newRule(table, chain, match, comment, target string) rule {
	args := strings.Fields(match)
	if comment != "" {
		args = append(args, "-m", "comment", "--comment", comment)
	}
	return rule{table, chain, append(append(args, "-j"), strings.Fields(target)...)}
}

// layout is all of the chains, in the order in which they are put in place:
// what forbids before what allows, what allows before what redirects.
func layout(f family) []unit {
	filter := unit{
		table:  "filter",
		chains: []string{chainUser, chainForward, chainIsolate, chainInto, chainOut, chainApart, chainPorts},
		fixed: []rule{
			newRule("filter", chainForward, "", "", chainIsolate),
			newRule("filter", chainForward, "", "", chainInto),
			newRule("filter", chainForward, "", "", chainOut),
		},
		jumps:  []jump{{from: "FORWARD", to: chainUser}, {from: "FORWARD", to: chainForward, after: chainUser}},
		usedBy: []string{chainIsolate, chainInto, chainOut, chainApart, chainPorts},
	}
	// Only what is for the host itself: another one's port of the same number is
	// not ours to take. Link-local clients have no way to an address behind the
	// host, and the kernel lets no packet of ::1 leave it.
	local := "-m addrtype --dst-type LOCAL"
	if f == ipv6 {
		local = "! -s fe80::/10 ! -d ::1/128 " + local
	}
	dnat := unit{
		table:  "nat",
		chains: []string{chainDNAT},
		jumps: []jump{ // after kube-proxy's: its services come first (CVE-2019-9946)
			{from: "PREROUTING", match: local, to: chainDNAT, last: true},
			{from: "OUTPUT", match: local, to: chainDNAT, last: true},
		},
		usedBy: []string{chainDNAT},
	}
	// Before the reference bridge plugin's, which accept what stays in the subnet.
	snat := unit{
		table:  "nat",
		chains: []string{chainSNAT},
		jumps:  []jump{{from: "POSTROUTING", to: chainSNAT}},
		usedBy: []string{chainSNAT},
	}
	if f == ipv6 {
		return []unit{filter, snat, dnat}
	}
	guard := unit{
		table:  "raw",
		chains: []string{chainGuard},
		fixed:  []rule{newRule("raw", chainGuard, "-d 127.0.0.0/8 ! -i lo", "", "DROP")},
		jumps:  []jump{{from: "PREROUTING", to: chainGuard}},
		usedBy: []string{chainDNAT},
	}
	host := unit{
		table:  "filter",
		chains: []string{chainHost},
		jumps:  []jump{{from: "INPUT", to: chainHost}},
		usedBy: []string{chainHost},
	}
	return []unit{guard, host, filter, snat, dnat}
}

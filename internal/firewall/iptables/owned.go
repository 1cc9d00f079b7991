package iptables

import (
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// owners returns whose rules an Apply replaces.
func owners(n firewall.Network, e firewall.Endpoint) []string {
	var all []string
	if n.Bridge != "" {
		all = append(all, n.GuardKey())
	}
	if hasRules(e) {
		all = append(all, firewall.Key(e.Owner))
	}
	return all
}

// differences returns which rules are to go and which are to come, so that
// of what the owners hold there is wanted and nothing else. Where the
// rules of an owner in a table are up to date, none is written anew.
func differences(snap snapshot, wanted []rule, owners []string) (gone, added []rule) {
	there := snap.owned()
	for _, owner := range owners {
		for _, table := range []string{"filter", "nat"} {
			of := func(r rule) bool { return r.table != table || r.owner() != owner }
			have := slices.DeleteFunc(slices.Clone(there), of)
			want := slices.DeleteFunc(slices.Clone(wanted), of)
			if !sameByChain(have, want) {
				gone, added = append(gone, have...), append(added, want...)
			}
		}
	}
	keys := keysOf(wanted)
	for _, r := range there {
		if r.ofNetwork() && !slices.Contains(owners, r.owner()) && keys[r.key()] {
			gone = append(gone, r)
		}
	}
	return gone, added
}

// keepClosed returns wanted with what the guard of n's bridge forbids now and wanted
// does not: as long as nothing is said to be exact, the guard becomes no weaker.
func keepClosed(snap snapshot, wanted []rule, n firewall.Network) []rule {
	if n.Guard == "" || n.Exact != firewall.AddOnly {
		return wanted
	}
	of := func(rules []rule, chain string) (all []rule, forbids bool) {
		for _, r := range rules {
			if r.owner() == n.GuardKey() && r.in(chain) {
				all = append(all, r)
				forbids = forbids || r.target() == "DROP" || r.target() == chainApart
			}
		}
		return all, forbids
	}
	there := snap.owned()
	for _, chain := range []string{chainIsolate, chainApart, chainHost, chainInto} {
		have, closed := of(there, chain)
		want, closes := of(wanted, chain)
		switch {
		case !closed || chain == chainInto && closes:
		case chain == chainInto: // in order: its last rule forbids
			wanted = append(slices.DeleteFunc(slices.Clone(wanted), func(r rule) bool { return slices.ContainsFunc(want, r.equal) }), have...)
		default:
			for _, r := range have {
				if !slices.ContainsFunc(want, r.equal) {
					wanted = append(wanted, r)
				}
			}
		}
	}
	return wanted
}

// sameByChain compares in order, but for the order of chains.
func sameByChain(a, b []rule) bool {
	byChain := func(rules []rule) []rule {
		sorted := slices.Clone(rules)
		sorting.Stable(sorted, func(x, y rule) int {
			switch {
			case x.chain < y.chain:
				return -1
			case x.chain > y.chain:
				return 1
			}
			return 0
		})
		return sorted
	}
	return slices.EqualFunc(byChain(a), byChain(b), rule.equal)
}

// key is equal for rules of which only one of two owners can have one: those of a
// network for the same bridge, those of an endpoint for the same address. Two owners
// may publish ports of one address; the rules that masquerade it have no equal.
// Empty: the rule stands beside any other.
func (r rule) key() string {
	switch {
	case r.ofNetwork():
		return "network " + r.bridge()
	case r.chain == chainSNAT && r.get("-d") == "":
		dev, _ := r.value("-o")
		return strings.Join([]string{"source", r.get("-s"), dev}, " ")
	case r.chain == chainPorts:
		return strings.Join([]string{"port", r.get("-d"), r.get("-p"), r.get("--dport")}, " ")
	}
	return ""
}

// keysOf returns the keys of rules that stand beside no other with the same.
func keysOf(rules []rule) map[string]bool {
	keys := map[string]bool{}
	for _, r := range rules {
		if key := r.key(); key != "" {
			keys[key] = true
		}
	}
	return keys
}

// checkTaken returns a HeldError if another endpoint than owner has rules for an
// address that wanted has rules for.
func checkTaken(snap snapshot, owner string, wanted []rule) error {
	keys := keysOf(wanted)
	for _, r := range snap.owned() {
		if r.owner() != owner && !r.ofNetwork() && keys[r.key()] {
			return &firewall.HeldError{Owner: r.owner(), Element: r.String()}
		}
	}
	return nil
}

func (r rule) ofNetwork() bool { return r.in(chainIsolate, chainInto, chainOut, chainApart) }

// bridge returns the bridge that a rule of a network is for: the one it names
// last; all but INTO name no other.
func (r rule) bridge() string {
	for i := len(r.args) - 2; i >= 0; i-- {
		if r.args[i] == "-i" || r.args[i] == "-o" {
			return r.args[i+1]
		}
	}
	return ""
}

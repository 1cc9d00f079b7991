package operator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/firewall/foreign"
	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// checkForeign looks for other firewalls that drop what is forwarded: a drop is
// final, whatever our rules say.
func (s survey) checkForeign(ctx context.Context) []Finding {
	bridges := s.forwarding()
	const about = "other firewalls"
	chains, unjudged, err := foreign.Drops(ctx, bridges...)
	if err != nil {
		return []Finding{{about, err.Error(), "try again; what others have forwarded is not known"}}
	}
	remarks := notJudged(about, unjudged)
	if len(chains) == 0 {
		return append([]Finding{{about, "none drops what is forwarded", ""}}, remarks...)
	}
	var all []Finding
	for _, ch := range chains {
		all = append(all, Finding{About: about, Found: fmt.Sprintf("table %s %s, chain %s: %s", ch.Family, ch.Table, ch.Chain, ch.End)})
		f := &all[len(all)-1]
		if ch.Handle != 0 || ch.Rule != "" {
			f.Found = fmt.Sprintf("table %s %s, chain %s: a rule is %s for all of %s", ch.Family, ch.Table, ch.Chain, ch.End, strings.Join(ch.Named, ", "))
			f.Advice = deleteRule(ch) + ", unless it is meant to cut them off"
			continue
		}
		unnamed := slices.DeleteFunc(slices.Clone(bridges), func(b string) bool { return slices.Contains(ch.Named, b) })
		switch {
		case len(bridges) == 0:
			f.Found += "; nothing needs it now"
		case len(unnamed) == 0:
			f.Found += "; it has rules for " + strings.Join(bridges, ", ")
		default:
			f.Found += "; no rule of it names " + strings.Join(unnamed, ", ")
			f.Advice = letThrough(ch, unnamed[0])
		}
	}
	return append(append(all, bridgeNetfilter()), remarks...)
}

// mostRemarks is how many rules that are not understood are named.
const mostRemarks = 5

// notJudged says of which rules the doctor cannot tell whether they drop. That is no
// fault of the host: no finding has an advice.
func notJudged(about string, rules []foreign.Unjudged) []Finding {
	var all []Finding
	for i, u := range rules {
		if i == mostRemarks {
			return append(all, Finding{About: about, Found: fmt.Sprintf("could not judge %d more rules", len(rules)-i)})
		}
		rule := "rules"
		if u.Rule != "" {
			rule = fmt.Sprintf("rule %q", u.Rule)
		}
		all = append(all, Finding{About: about, Found: fmt.Sprintf("could not judge %s of chain %s in table %s %s: %s", rule, u.Chain, u.Family, u.Table, u.Why)})
	}
	return all
}

// deleteRule is the command that deletes a rule.
func deleteRule(r foreign.Drop) string {
	if r.Rule != "" {
		return fmt.Sprintf("%s -D %s", iptablesOf(r.Family), strings.TrimPrefix(r.Rule, "-A "))
	}
	return fmt.Sprintf("nft delete rule %s %s %s handle %d", r.Family, r.Table, r.Chain, r.Handle)
}

// iptablesOf names the program for a family of chains.
func iptablesOf(family string) string {
	program := "iptables"
	if strings.HasSuffix(family, "ip6") {
		program = "ip6tables"
	}
	if strings.HasPrefix(family, "legacy") {
		program += "-legacy"
	}
	return program
}

// checkInput tells of firewalls that keep containers from services of the host, which is
// no fault: most need none of them.
func (s survey) checkInput(ctx context.Context) []Finding {
	bridges := s.forwarding()
	chains, err := foreign.InputDrops(ctx, bridges...)
	if err != nil || len(bridges) == 0 {
		return nil // checkForeign could not look either
	}
	var all []Finding
	for _, ch := range chains {
		if i := slices.IndexFunc(bridges, func(b string) bool { return !slices.Contains(ch.Named, b) }); i >= 0 {
			all = append(all, Finding{About: "host services", Found: fmt.Sprintf("table %s %s, chain %s: %s; no rule of it names %s, so its containers may not reach services of this host", ch.Family, ch.Table, ch.Chain, ch.End, bridges[i])})
		}
	}
	return all
}

// forwarding returns the bridges whose containers need forwarding, each once.
func (s survey) forwarding() []string {
	var bridges []string
	for _, n := range s.networks {
		if v4, v6 := s.forwards(n); v4 || v6 {
			bridges = append(bridges, n.Config().Bridge)
		}
	}
	slices.Sort(bridges)
	return slices.Compact(bridges)
}

// checkWayOut tells that the host has no default route, which is no fault where
// containers are to reach the host's own networks alone.
func (s survey) checkWayOut() []Finding {
	var all []Finding
	for _, f := range []struct {
		name string
		far  netip.Addr // an address of nowhere (RFC 5737, RFC 3849)
		is6  bool
	}{{"IPv4", netip.AddrFrom4([4]byte{198, 51, 100, 1}), false}, {"IPv6", netip.MustParseAddr("2001:db8:ffff::1"), true}} {
		needs := slices.ContainsFunc(s.networks, func(n *engine.Network) bool {
			v4, v6 := s.forwards(n)
			return v4 && !f.is6 || v6 && f.is6
		})
		if _, err := s.o.kernel.DeviceTo(f.far); needs && errors.Is(err, netlink.ErrNotFound) {
			all = append(all, Finding{About: "way out " + f.name, Found: "this host has no default route: containers reach no further than networks that it has routes to"})
		}
	}
	return all
}

// checkPolicyRules looks for rules of the host's routing that drop what containers
// send, or what is sent to them.
func (s survey) checkPolicyRules(ctx context.Context) []Finding {
	const about = "policy routing"
	h, err := kernel.Open()
	if err != nil {
		return []Finding{{about, oneLine(err), "run it as root"}}
	}
	defer h.Close()
	var all []Finding
	for _, n := range s.networks {
		if v4, v6 := s.forwards(n); !v4 && !v6 {
			continue
		}
		var subnets []netip.Prefix
		for _, e := range s.endpoints[n] {
			for _, a := range e.Addressing().Addresses {
				if subnet := a.Prefix.Masked(); !slices.Contains(subnets, subnet) {
					subnets = append(subnets, subnet)
				}
			}
		}
		rules, err := h.DroppingRules(ctx, gatewayInterface(n), subnets)
		if err != nil {
			return []Finding{{about, oneLine(err), "try again; which rules drop is not known"}}
		}
		for _, r := range rules {
			tool := "ip"
			if r.IPv6 {
				tool = "ip -6"
			}
			all = append(all, Finding{about, fmt.Sprintf("network %q: the rule %q drops packets of its containers", n.Name(), r),
				fmt.Sprintf("%s rule del pref %d, unless it is meant to cut them off", tool, r.Priority)})
		}
	}
	if len(all) == 0 {
		return []Finding{{About: about, Found: "no rule drops what is forwarded"}}
	}
	return all
}

// letThrough says how a firewall is told to let a bridge's packets through.
func letThrough(ch foreign.Drop, bridge string) string {
	if ch.Table == "firewalld" {
		return "firewall-cmd --permanent --zone=trusted --add-interface=" + bridge + " && firewall-cmd --reload"
	}
	if ch.Table != "filter" {
		return fmt.Sprintf("add rules to chain %s that accept iifname %[2]s and oifname %[2]s", ch.Chain, bridge)
	}
	return fmt.Sprintf("%s -I FORWARD -i %[2]s -j ACCEPT and the same with -o (Docker: chain DOCKER-USER; ufw: ufw route allow in on %[2]s)", iptablesOf(ch.Family), bridge)
}

// bridgeNetfilter says whether such a drop also hits frames inside of a bridge.
func bridgeNetfilter() Finding {
	if foreign.BridgeNetfilter() {
		return Finding{About: "br_netfilter", Found: "on: such a drop also hits frames between containers of a bridge"}
	}
	return Finding{About: "br_netfilter", Found: "off: such a drop does not touch frames between containers of a bridge"}
}

package iptables

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// publishedBy returns the part of the host's ports that a DNAT rule takes; false if r
// redirects no port.
func publishedBy(f family, r rule) (firewall.PortSpan, bool) {
	if r.target() != "DNAT" {
		return firewall.PortSpan{}, false
	}
	return portsOf(f, r)
}

// portsOf returns the ports that r is for, whatever it does with them.
func portsOf(f family, r rule) (firewall.PortSpan, bool) {
	m := firewall.PortMap{Protocol: protocolOf(r.get("-p")), HostIP: f.unspecified()}
	if d, err := netip.ParsePrefix(r.get("-d")); err == nil && d.IsSingleIP() {
		m.HostIP = d.Addr()
	}
	first, last, isRange := strings.Cut(r.get("--dport"), ":")
	if !isRange {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 16)
	b, errB := strconv.ParseUint(last, 10, 16)
	m.HostPort, m.HostPortEnd = uint16(a), uint16(b)
	return m.Spans()[0], errA == nil && errB == nil
}

func protocolOf(name string) firewall.Protocol {
	for _, p := range []firewall.Protocol{firewall.UDP, firewall.SCTP} {
		if p.String() == name {
			return p
		}
	}
	return firewall.TCP
}

// holding is a part of the host's ports, the rule that takes it and its owner.
type holding struct {
	firewall.PortSpan
	owner string
	rule  rule
}

// holdings are the ports that rules take.
type holdings struct {
	all     []holding
	index   firewall.PortIndex[holding]
	returns map[string][]firewall.PortSpan // by owner: what its rules for any address leave out
}

func holdingsOf(f family, rules []rule) holdings {
	h := holdings{returns: map[string][]firewall.PortSpan{}}
	for _, r := range rules {
		if r.target() == "RETURN" {
			if p, ok := portsOf(f, r); ok {
				h.returns[r.owner()] = append(h.returns[r.owner()], p)
			}
			continue
		}
		if p, ok := publishedBy(f, r); ok {
			h.all = append(h.all, holding{p, r.owner(), r})
		}
	}
	h.index = firewall.IndexPorts(h.all, func(o holding) firewall.PortSpan { return o.PortSpan })
	return h
}

// meeting returns the parts of p that other owners than this one take.
func (h holdings) meeting(p firewall.PortSpan, owner string) []holding {
	var all []holding
	h.index.Meeting(p, func(o holding, part firewall.PortSpan) {
		if o.owner != owner && !h.leavesOut(o.owner, part) {
			o.PortSpan = part
			all = append(all, o)
		}
	})
	return all
}

// leavesOut says that the owner's rules return before they take p.
func (h holdings) leavesOut(owner string, p firewall.PortSpan) bool {
	return slices.ContainsFunc(h.returns[owner], func(r firewall.PortSpan) bool {
		part, ok := r.Common(p)
		return ok && part == p
	})
}

// checkHeld returns a PortHeldError if another than owner has a port that wanted
// redirects, but for the owner that hands its ports over: those rules are returned.
func checkHeld(snap snapshot, owner, from string, wanted []rule) (handed []rule, err error) {
	others, ours := holdingsOf(snap.family, snap.owned()), holdingsOf(snap.family, wanted)
	var refused *firewall.PortHeldError
	seen := map[string]bool{}
	for _, w := range ours.all {
		for _, o := range others.meeting(w.PortSpan, owner) {
			if ours.leavesOut(owner, o.PortSpan) {
				continue
			}
			if o.owner == from {
				if !seen[o.rule.String()] {
					handed = append(handed, o.rule)
				}
				seen[o.rule.String()] = true
				continue
			}
			if refused == nil {
				refused = &firewall.PortHeldError{Owner: o.owner, Port: o.String()}
			}
			if refused.Owner == o.owner {
				refused.All = append(refused.All, o.PortMap())
			}
		}
	}
	if refused != nil {
		return nil, refused
	}
	return handed, nil
}

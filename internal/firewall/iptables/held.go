package iptables

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// published is the part of the host's ports that a DNAT rule takes.
type published struct {
	protocol    string
	host        netip.Addr // unspecified: any
	first, last uint16
}

// publishedBy returns false if r redirects no port.
func publishedBy(f family, r rule) (published, bool) {
	if r.target() != "DNAT" {
		return published{}, false
	}
	return portsOf(f, r)
}

// portsOf returns the ports that r is for, whatever it does with them.
func portsOf(f family, r rule) (published, bool) {
	p := published{protocol: r.get("-p"), host: f.unspecified()}
	if d, err := netip.ParsePrefix(r.get("-d")); err == nil && d.IsSingleIP() {
		p.host = d.Addr()
	}
	first, last, isRange := strings.Cut(r.get("--dport"), ":")
	if !isRange {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 16)
	b, errB := strconv.ParseUint(last, 10, 16)
	p.first, p.last = uint16(a), uint16(b)
	return p, errA == nil && errB == nil
}

// overlap returns the part of p that q takes, too.
func (p published) overlap(q published) (published, bool) {
	same := p.host == q.host || p.host.IsUnspecified() || q.host.IsUnspecified()
	both := published{p.protocol, p.host, max(p.first, q.first), min(p.last, q.last)}
	return both, p.protocol == q.protocol && same && both.first <= both.last
}

// String has the form of firewall.PortMap's.
func (p published) String() string {
	s := fmt.Sprintf("%s %s", p.protocol, netip.AddrPortFrom(p.host, p.first))
	if p.last > p.first {
		s += fmt.Sprintf("-%d", p.last)
	}
	return s
}

// portMap has the form of firewall.PortHeldError.
func (p published) portMap() firewall.PortMap {
	m := firewall.PortMap{Protocol: protocolOf(p.protocol), HostIP: p.host, HostPort: p.first}
	if p.last > p.first {
		m.HostPortEnd = p.last
	}
	return m
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
	published
	owner string
	rule  rule
}

// holdings are in the order of their ports.
type holdings struct {
	f       family
	all     []holding
	widest  int                    // ports of a holding, at most
	returns map[string][]published // by owner: what its rules for any address leave out
}

func holdingsOf(f family, rules []rule) holdings {
	h := holdings{f: f, returns: map[string][]published{}}
	for _, r := range rules {
		if r.target() == "RETURN" {
			if p, ok := portsOf(f, r); ok {
				h.returns[r.owner()] = append(h.returns[r.owner()], p)
			}
			continue
		}
		if p, ok := publishedBy(f, r); ok {
			h.all = append(h.all, holding{p, r.owner(), r})
			h.widest = max(h.widest, int(p.last-p.first)+1)
		}
	}
	slices.SortStableFunc(h.all, func(a, b holding) int { return cmp.Compare(a.first, b.first) })
	return h
}

// meeting returns which of h take a part of p, but for owner's.
func (h holdings) meeting(p published, owner string) []holding {
	at, _ := slices.BinarySearchFunc(h.all, int(p.first)-h.widest+1, func(o holding, first int) int { return cmp.Compare(int(o.first), first) })
	var all []holding
	for _, o := range h.all[at:] {
		if o.first > p.last {
			break
		}
		part, ok := p.overlap(o.published)
		if part.host.IsUnspecified() {
			part.host = o.host
		}
		if ok && o.owner != owner && !h.leavesOut(o.owner, part) {
			o.published = part
			all = append(all, o)
		}
	}
	return all
}

// leavesOut says that the owner's rules return before they take p.
func (h holdings) leavesOut(owner string, p published) bool {
	return slices.ContainsFunc(h.returns[owner], func(r published) bool {
		return r.protocol == p.protocol && r.host == p.host && r.first <= p.first && p.last <= r.last
	})
}

// checkHeld returns a PortHeldError if another than owner has a port that wanted
// redirects, but for the owner that hands its ports over: those rules are returned.
func checkHeld(snap snapshot, owner, from string, wanted []rule) (handed []rule, err error) {
	others, ours := holdingsOf(snap.family, snap.owned()), holdingsOf(snap.family, wanted)
	var refused *firewall.PortHeldError
	seen := map[string]bool{}
	for _, w := range ours.all {
		for _, o := range others.meeting(w.published, owner) {
			if ours.leavesOut(owner, o.published) {
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
				part, _ := w.overlap(o.published)
				refused = &firewall.PortHeldError{Owner: o.owner, Port: part.String()}
			}
			if refused.Owner == o.owner {
				refused.All = append(refused.All, o.portMap())
			}
		}
	}
	if refused != nil {
		return nil, refused
	}
	return handed, nil
}

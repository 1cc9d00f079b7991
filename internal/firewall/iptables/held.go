package iptables

import (
	"fmt"
	"net/netip"
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

// portOf returns false if m publishes nothing for the family.
func portOf(f family, m firewall.PortMap) (published, bool) {
	p := published{m.Protocol.String(), m.HostIP, m.HostPort, last(m)}
	if !m.HostIP.IsValid() {
		p.host = f.unspecified()
	}
	return p, f.has(p.host)
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

// checkHeld returns a PortHeldError if another than owner has a port that wanted redirects.
func checkHeld(snap snapshot, owner string, wanted []rule) error {
	type holding struct {
		published
		owner string
	}
	var others []holding
	for _, r := range snap.owned() {
		if p, ok := publishedBy(snap.family, r); ok && r.owner() != owner {
			others = append(others, holding{p, r.owner()})
		}
	}
	for _, w := range wanted {
		p, ok := publishedBy(snap.family, w)
		if !ok {
			continue
		}
		for _, o := range others {
			if part, held := p.overlap(o.published); held {
				return &firewall.PortHeldError{Owner: o.owner, Port: part.String()}
			}
		}
	}
	return nil
}

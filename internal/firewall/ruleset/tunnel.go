package ruleset

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// VXLAN trusts the address that a packet comes from, and so does the MAC check
// behind it (vteps). Two kinds of senders could use that: a container, whose
// packet goes to the UDP port of its own host, or by it to another one, where it
// arrives with the address of this host if it is masqueraded; and one that
// forges the address of a host of the network. So each host drops, before any
// translation, whatever carries the VNI of a tunnel of its own and is not from a
// host of that network, be it for this host or for another one.
//
// The VNI is read out of the packet, so that other VXLAN devices on the same
// UDP port are left alone. Packets that a host sends by its own tunnel are not seen: it is
// not forwarded. A packet is whole here: conntrack, which these tables use, joins
// fragments before.

// vni is the VNI in a VXLAN header, behind that of UDP, and one byte more, which
// is masked.
var vni = Field{typeInteger, 4, inTransport, 12}

// vniMask leaves of those four bytes the VNI.
const vniMask = 0xffffff00

// The sets of tunnels as seen from the underlay. Each key has port and VNI in it,
// of which no two networks of a host have the same pair.
var (
	hosts4   = Set{unix.NFPROTO_INET, "hosts4", Tuple{SAddr4, DPort, vni}, nil, false}
	hosts6   = Set{unix.NFPROTO_INET, "hosts6", Tuple{SAddr6, DPort, vni}, nil, false}
	underlay = Set{unix.NFPROTO_INET, "underlay", Tuple{DPort, vni}, nil, false}
)

// ofUnderlay says that a set is one of these.
func (s *Set) ofUnderlay() bool { return s == &hosts4 || s == &hosts6 || s == &underlay }

const underlayChain = "underlay"

// toUnderlay leads to the rules for packets that carry frames of a tunnel.
func toUnderlay() Rule {
	return Rule{"frames of a tunnel", // meta l4proto udp udp dport . vni @underlay jump underlay
		Rules(IsProtocol(unix.IPPROTO_UDP), ofTunnel(&underlay, false), Jump(underlayChain))}
}

// underlayRules are for packets that carry frames of a tunnel.
func underlayRules() []Rule {
	return []Rule{
		{"not from a host of the network, ipv4", // ip saddr . udp dport . vni != @hosts4 drop
			Rules(isIPv4, ofTunnel(&hosts4, true), Drop)},
		{"not from a host of the network, ipv6", // ip6 saddr . udp dport . vni != @hosts6 drop
			Rules(isIPv6, ofTunnel(&hosts6, true), Drop)},
		{"in the name of a host that is elsewhere", // meta iifkind != { bond, team, vlan } fib saddr . iif oif 0 drop
			Rules(isVirtual, sourceElsewhere, Drop)},
	}
}

// ofTunnel looks a packet up in one of the sets above.
func ofTunnel(s *Set, invert bool) Part {
	return func() []Expr {
		all, reg := s.Key.load(), uint32(RegKey)
		for _, f := range s.Key[:len(s.Key)-1] {
			reg += f.padded() / 4
		}
		mask := binary.BigEndian.AppendUint32(nil, vniMask)
		return append(all, Expr{"bitwise", func(a *nfnl.Attrs) {
			a.Uint32(unix.NFTA_BITWISE_SREG, reg)
			a.Uint32(unix.NFTA_BITWISE_DREG, reg)
			a.Uint32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
			a.Nest(unix.NFTA_BITWISE_MASK, value(mask))
			a.Nest(unix.NFTA_BITWISE_XOR, value(make([]byte, len(mask))))
		}}, lookupExpr(s, invert))
	}
}

// isVirtual matches what came by an interface that may lead to a container, a
// virtual machine or another tunnel. An interface card has no kind, and ends the
// rule; it, and what bundles or divides cards, may have ways back that differ.
func isVirtual() []Expr {
	all := []Expr{Meta(metaIIFKind, RegKey)}
	for _, kind := range []string{"bond", "team", "vlan"} {
		all = append(all, Compare(unix.NFT_CMP_NEQ, IIFName.bytes(kind)))
	}
	return all
}

// sourceElsewhere matches what came by an interface that no route to its source
// leads by: fib saddr . iif oif 0.
func sourceElsewhere() []Expr {
	return []Expr{{"fib", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_FIB_DREG, RegKey)
		a.Uint32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_OIF)
		a.Uint32(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_SADDR|unix.NFTA_FIB_F_IIF)
	}}, Compare(unix.NFT_CMP_EQ, Host32(0))}
}

// planUnderlay adds the elements of a tunnel. Those of hosts come first: until the one
// of underlay is there, nothing is refused.
func planUnderlay(u firewall.Underlay, add func(*Set, ...[]byte)) error {
	if u.Port == 0 {
		return nil
	}
	port := binary.BigEndian.AppendUint16(nil, u.Port)
	id := binary.BigEndian.AppendUint32(nil, uint32(u.VNI)<<8)
	for _, a := range u.Hosts {
		switch {
		case a.Is4():
			add(&hosts4, a.AsSlice(), port, id)
		case a.Is6() && !a.Is4In6() && a.Zone() == "":
			add(&hosts6, a.AsSlice(), port, id)
		default:
			return fmt.Errorf("host %s of the network: %w", a, firewall.ErrInvalid)
		}
	}
	add(&underlay, port, id)
	return nil
}

// sealedElems has a range for each prefix of an encrypted network.
func sealedElems(n firewall.Network, br []byte) ([]Elem, error) {
	var all []Elem
	for _, p := range n.Sealed {
		s := &Sealed4
		if p.Addr().Is6() {
			s = &Sealed6
		}
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("prefix %s of the network: %w", p, firewall.ErrInvalid)
		}
		r := rangeOf(p)
		all = append(all, Elem{Set: s, Key: s.Key.Of(br, r.first), End: s.Key.Of(br, r.last), Owner: firewall.Key(n.Name)})
	}
	return all, nil
}

// tunnelRules are for what is forwarded into a tunnel or out of it, its own
// bridge apart.
func tunnelRules() []Rule {
	return []Rule{
		{"out of a tunnel", // iifname @tunnels jump translated
			Rules(In(&Tunnels), Jump(translatedChain))},
		{"into a tunnel", // oifname @tunnels jump translated
			Rules(In(&Tunnels, OIFName), Jump(translatedChain))},
		{"to where a tunnel could lead, past it, ipv4", // ip daddr . oifname @far4 jump translated
			Rules(isIPv4, In(&Far4), Jump(translatedChain))},
		{"to where a tunnel could lead, past it, ipv6", // ip6 daddr . oifname @far6 jump translated
			Rules(isIPv6, In(&Far6), Jump(translatedChain))},
	}
}

// ofDirect says that a set is about packets that need no tunnel.
func (s *Set) ofDirect() bool {
	switch s {
	case &Beyond4, &Beyond6, &Senders4, &Senders6, &Far4, &Far6:
		return true
	}
	return false
}

// beyond is the set of a family.
func beyond(f *FamilySets) *Set {
	if f == IPv6() {
		return &Beyond6
	}
	return &Beyond4
}

// notSentBy matches what is for this host and not from one of the set's senders.
func notSentBy(s *Set, saddr Field) Part {
	return lookup(s, true, Tuple{IIFName, EtherSource, saddr, IIFName})
}

// directElems are those of the hosts that are reached without a tunnel.
func directElems(n firewall.Network, br []byte) ([]Elem, error) {
	var all []Elem
	for _, d := range n.Direct {
		device, err := ifname(d.Device)
		if err != nil {
			return nil, fmt.Errorf("device of the segment %w", err)
		}
		o := oneDirect{owner: firewall.Key(n.Name), device: device, bridge: br}
		for _, p := range d.Blocks {
			o.senders(p, d.MACs, true)
			o.to(p)
		}
		for _, a := range d.Hosts {
			o.senders(netip.PrefixFrom(a, a.BitLen()), d.MACs, false)
		}
		for _, a := range d.Ends {
			o.end(a)
		}
		if o.err != nil {
			return nil, o.err
		}
		all = append(all, o.all...)
	}
	return Dedupe(all), nil
}

// oneDirect gathers the elements of one such host.
type oneDirect struct {
	owner          string
	device, bridge []byte
	all            []Elem
	err            error
}

// add adds the element from the first to the last of p, where key puts an address in its place.
func (o *oneDirect) add(v4, v6 *Set, p netip.Prefix, key func(s *Set, addr []byte) []byte) {
	s := v4
	if p.Addr().Is6() {
		s = v6
	}
	if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
		o.err = fmt.Errorf("prefix %s of the network: %w", p, firewall.ErrInvalid)
		return
	}
	r := rangeOf(p)
	o.all = append(o.all, Elem{Set: s, Key: key(s, r.first), End: key(s, r.last), Owner: o.owner})
}

// senders lets in what comes from MACs out of p; to this host, too, where ends says so.
func (o *oneDirect) senders(p netip.Prefix, macs []net.HardwareAddr, ends bool) {
	for _, mac := range macs {
		if uint32(len(mac)) != EtherSource.Size {
			o.err = fmt.Errorf("MAC address %s: %w", mac, firewall.ErrInvalid)
			return
		}
		o.add(&Senders4, &Senders6, p, func(s *Set, addr []byte) []byte { return s.Key.Of(o.device, mac, addr, o.bridge) })
		if ends {
			o.add(&Senders4, &Senders6, p, func(s *Set, addr []byte) []byte { return s.Key.Of(o.device, mac, addr, o.device) })
		}
	}
}

// to leads from the bridge to p, and keeps out what comes otherwise.
func (o *oneDirect) to(p netip.Prefix) {
	o.add(&Beyond4, &Beyond6, p, func(s *Set, addr []byte) []byte { return s.Key.Of(o.bridge, addr, o.device) })
	o.add(&Far4, &Far6, p, func(s *Set, addr []byte) []byte { return s.Key.Of(addr, o.device) })
}

// end closes an address of this host to all but senders.
func (o *oneDirect) end(a netip.Addr) {
	o.add(&Beyond4, &Beyond6, netip.PrefixFrom(a, a.BitLen()), func(s *Set, addr []byte) []byte { return s.Key.Of(o.device, addr, o.device) })
}

const translatedChain = "translated"

// translatedRules let pass what was translated to a container, by whomever, and
// its answers. So a Service of Kubernetes that leads to a container of another
// host gets there. A packet of no connection is dropped: it matches no word
// about one, so the first rule returns and the second one drops all else.
func translatedRules() []Rule {
	return []Rule{
		{"what was translated to a container, and its answers", // ct status dnat return
			Rules(ctHas(unix.NFT_CT_STATUS, ctDNAT), Return)},
		{"nothing else between a tunnel and other networks", Rules(Drop)},
	}
}

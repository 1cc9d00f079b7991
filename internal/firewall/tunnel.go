package firewall

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

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
// UDP port are left alone. What a host sends by its own tunnel is not seen: it
// is not forwarded. A packet is whole here: conntrack, which these tables use,
// joins fragments before.

// vni is the VNI in a VXLAN header, behind that of UDP, and one byte more, which
// is masked. It is typed as an address because nft prints no number of 24 bits.
var vni = field{typeIPv4, 4, inTransport, 12}

// vniMask leaves of those four bytes the VNI.
const vniMask = 0xffffff00

// The sets of tunnels as seen from the underlay. Each key has port and VNI in it,
// of which no two networks of a host have the same pair.
var (
	hosts4   = set{unix.NFPROTO_INET, "hosts4", tuple{saddr4, dport, vni}, nil, false}
	hosts6   = set{unix.NFPROTO_INET, "hosts6", tuple{saddr6, dport, vni}, nil, false}
	underlay = set{unix.NFPROTO_INET, "underlay", tuple{dport, vni}, nil, false}
)

// underneath says that a set is one of these.
func (s *set) underneath() bool { return s == &hosts4 || s == &hosts6 || s == &underlay }

const underlayChain = "underlay"

// toUnderlay leads to the rules for packets that carry frames of a tunnel.
func toUnderlay() rule {
	return rule{"frames of a tunnel", // meta l4proto udp udp dport . vni @underlay jump underlay
		rules(isProtocol(unix.IPPROTO_UDP), ofTunnel(&underlay, false), jump(underlayChain))}
}

// underlayRules are for packets that carry frames of a tunnel.
func underlayRules() []rule {
	return []rule{
		{"not from a host of the network, ipv4", // ip saddr . udp dport . vni != @hosts4 drop
			rules(isIPv4, ofTunnel(&hosts4, true), drop)},
		{"not from a host of the network, ipv6", // ip6 saddr . udp dport . vni != @hosts6 drop
			rules(isIPv6, ofTunnel(&hosts6, true), drop)},
		{"in the name of a host that is elsewhere", // meta iifkind != { bond, team, vlan } fib saddr . iif oif 0 drop
			rules(isVirtual, sourceElsewhere, drop)},
	}
}

// ofTunnel looks a packet up in one of the sets above.
func ofTunnel(s *set, invert bool) part {
	return func() []expr {
		all, reg := s.key.load(), uint32(regKey)
		for _, f := range s.key[:len(s.key)-1] {
			reg += f.padded() / 4
		}
		mask := binary.BigEndian.AppendUint32(nil, vniMask)
		return append(all, expr{"bitwise", func(a *nfnl.Attrs) {
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
func isVirtual() []expr {
	all := []expr{meta(metaIIFKind, regKey)}
	for _, kind := range []string{"bond", "team", "vlan"} {
		all = append(all, compare(unix.NFT_CMP_NEQ, iifname.bytes(kind)))
	}
	return all
}

// sourceElsewhere matches what came by an interface that no route to its source
// leads by: fib saddr . iif oif 0.
func sourceElsewhere() []expr {
	return []expr{{"fib", func(a *nfnl.Attrs) {
		a.Uint32(unix.NFTA_FIB_DREG, regKey)
		a.Uint32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_OIF)
		a.Uint32(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_SADDR|unix.NFTA_FIB_F_IIF)
	}}, compare(unix.NFT_CMP_EQ, host32(0))}
}

// planUnderlay adds the elements of a tunnel. Those of hosts come first: until the one
// of underlay is there, nothing is refused.
func planUnderlay(u Underlay, add func(*set, ...[]byte)) error {
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
			return fmt.Errorf("host %s of the network: %w", a, ErrInvalid)
		}
	}
	add(&underlay, port, id)
	return nil
}

// tunnelRules are for what is forwarded into a tunnel or out of it, its own
// bridge apart.
func tunnelRules() []rule {
	return []rule{
		{"out of a tunnel", // iifname @tunnels jump translated
			rules(in(&tunnels), jump(translatedChain))},
		{"into a tunnel", // oifname @tunnels jump translated
			rules(in(&tunnels, oifname), jump(translatedChain))},
	}
}

const translatedChain = "translated"

// translatedRules let pass what was translated to a container, by whomever, and
// its answers. So a Service of Kubernetes that leads to a container of another
// host gets there. A packet of no connection is dropped: it matches no word
// about one, so the first rule returns and the second one drops all else.
func translatedRules() []rule {
	return []rule{
		{"what was translated to a container, and its answers", // ct status dnat return
			rules(ctHas(unix.NFT_CT_STATUS, ctDNAT), ret)},
		{"nothing else between a tunnel and other networks", rules(drop)},
	}
}

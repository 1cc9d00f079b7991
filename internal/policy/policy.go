// Package policy says which sources may reach the containers on a bridge: it joins what all
// networks on the bridge ask for. It is pure.
package policy

import (
	"slices"
	"strconv"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Of returns what n asks of its bridge, without the rest: its name and its tunnel
// belong to the network.
func Of(n firewall.Network) firewall.Network {
	return firewall.Network{
		Guard: n.Guard, Bridge: n.Bridge, Internal: n.Internal, NoICC: n.NoICC, Apart: n.Apart, NoHost: n.NoHost,
		IPv4: n.IPv4, IPv6: n.IPv6, Trusted: n.Trusted, AcceptMark: n.AcceptMark,
	}
}

// Join returns n with the strictest of what n and all others ask of the bridge
// they share: the bridge lets in what each of its networks lets in. Name and
// tunnel stay n's.
func Join(n firewall.Network, others ...firewall.Network) firewall.Network {
	trusted, marks := n.Trusted, n.AcceptMark
	if !closes(n) {
		trusted, marks = nil, nil
	}
	closed := closes(n)
	for _, o := range others {
		n.Internal, n.NoICC, n.Apart, n.NoHost = n.Internal || o.Internal, n.NoICC || o.NoICC, n.Apart || o.Apart, n.NoHost || o.NoHost
		n.IPv4, n.IPv6 = stricter(n.IPv4, o.IPv4), stricter(n.IPv6, o.IPv6)
		switch {
		case !closes(o): // it lets in whatever the others do
		case !closed:
			trusted, marks, closed = o.Trusted, o.AcceptMark, true
		default:
			trusted = slices.DeleteFunc(slices.Clone(trusted), func(dev string) bool { return !slices.Contains(o.Trusted, dev) })
			if marks != nil && (o.AcceptMark == nil || *o.AcceptMark != *marks) {
				marks = nil
			}
		}
	}
	n.Trusted, n.AcceptMark = trusted, marks
	return n
}

// Closes says that a network keeps connections from outside out, for one family at
// least.
func Closes(n firewall.Network) bool { return n.Internal || closes(n) }

// closes says that the policy of a family does.
func closes(n firewall.Network) bool { return rank(n.IPv4) > 1 || rank(n.IPv6) > 1 }

func stricter(a, b firewall.Policy) firewall.Policy {
	if rank(b) > rank(a) {
		return b
	}
	return a
}

// rank orders policies by what they let in: Routed lets in pings and published
// ports by the container's address, Published only what was translated.
func rank(p firewall.Policy) int {
	switch p {
	case firewall.Unprotected:
		return 1
	case firewall.Routed:
		return 2
	case firewall.Published:
		return 3
	}
	return 0
}

// ID tells what one network asks of a bridge from what another one does, in 64
// bits: two networks that ask for the same have one ID.
//
// Nothing may be changed here: attachments have it in their records.
func ID(n firewall.Network) string {
	h := uint64(14695981039346656037) // FNV-1a
	add := func(s string) {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	flag := func(b bool) { add(strconv.FormatBool(b)) }
	flag(n.Internal)
	flag(n.NoICC)
	flag(n.Apart)
	flag(n.NoHost)
	add(strconv.Itoa(int(n.IPv4)))
	add(strconv.Itoa(int(n.IPv6)))
	for _, dev := range n.Trusted {
		add(dev)
	}
	if m := n.AcceptMark; m != nil {
		add(strconv.FormatUint(uint64(m.Value), 16))
		add(strconv.FormatUint(uint64(m.Mask), 16))
	}
	return strconv.FormatUint(h, 16)
}

// WithID returns what has an ID; false where it has trusted interfaces or a mark, or
// there is nothing of that ID.
func WithID(id string) (firewall.Network, bool) {
	policies := []firewall.Policy{firewall.Open, firewall.Published, firewall.Unprotected, firewall.Routed}
	for flags := range 1 << 4 {
		n := firewall.Network{Internal: flags&1 != 0, NoICC: flags&2 != 0, Apart: flags&4 != 0, NoHost: flags&8 != 0}
		for _, n.IPv4 = range policies {
			for _, n.IPv6 = range policies {
				if ID(n) == id {
					return n, true
				}
			}
		}
	}
	return firewall.Network{}, false
}

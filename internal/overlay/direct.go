package overlay

import (
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/tunnel"
)

// Link is by what a host can be reached without a tunnel.
type Link = tunnel.Link

// Direct is another host of the network that may be reached without a tunnel: it is on a
// segment of this one, and takes such packets.
type Direct struct {
	// Device of this host that leads there.
	Device string `json:"device"`
	Link
	// IPv4 and IPv6 say that packets of that family to it were answered: its blocks of the
	// family are led to by this way. From it they are taken in any case.
	IPv4 bool `json:"ipv4,omitempty"`
	IPv6 bool `json:"ipv6,omitempty"`
}

// Uses says that the blocks of a family are led to by this way.
func (d *Direct) Uses(is6 bool) bool { return d != nil && (is6 && d.IPv6 || !is6 && d.IPv4) }

// Via is the address of the host by which its blocks of a family are led to: the one by which
// all others know it, or of the other family one of the same interface, of IPv6 one that no
// router can take elsewhere. The zero Addr: it has none.
func (d *Direct) Via(known netip.Addr, is6 bool) netip.Addr {
	if known.Is6() == is6 {
		return known
	}
	i := slices.IndexFunc(d.Addresses, func(a netip.Addr) bool { return a.Is6() == is6 && a.IsLinkLocalUnicast() == is6 })
	if i < 0 {
		return netip.Addr{}
	}
	return d.Addresses[i]
}

// addDirect adds the route to a block that leads to its host by the segment, and says whether
// there is such a way.
func addDirect(t *tunnel.Tunnel, node Node, block netip.Prefix) bool {
	is6 := block.Addr().Is6()
	if !node.Direct.Uses(is6) {
		return false
	}
	via := node.Direct.Via(node.Address, is6)
	if !via.IsValid() {
		return false
	}
	r := tunnel.Direct{Dst: block.Masked(), Via: via, Device: node.Direct.Device}
	for _, a := range t.Addrs {
		if a.Addr().Is6() == is6 {
			r.Source = a.Addr()
			break
		}
	}
	t.Direct = append(t.Direct, r)
	return true
}

package firewall

import "net/netip"

// Underlay is what a tunnel looks like on the underlay. The zero value has no
// rules.
type Underlay struct {
	VNI  int
	Port uint16 // UDP
	// Hosts are the addresses of the network's other hosts: the only ones that
	// packets of the tunnel come from.
	Hosts []netip.Addr
}

package overlay

import "net/netip"

// NamedID is an attachment of one of the hosts.
type NamedID struct{ Node, Network, Container, IfName string }

// Named is an attachment that containers on other hosts find by name.
type Named struct {
	NamedID
	Names     []string // the best one first; none: the attachment is gone
	Domain    string   // of the network; empty: none
	Addresses []netip.Addr
	// Well are the services, in lower case and in order, whose checks of the attachment succeed.
	Well []string
}

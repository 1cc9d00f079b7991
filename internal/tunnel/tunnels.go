package tunnel

import (
	"github.com/libnet-cni/libnet/internal/netlink"
)

// Tunnels makes, verifies and removes these devices and their entries in the
// namespace of its rtnetlink, which must be that of the calling thread.
type Tunnels struct{ Basis }

// Basis is the part of Tunnels that a program needs which makes none.
type Basis struct{ conn *netlink.Conn }

// New returns the Tunnels that c leads to.
func New(c *netlink.Conn) *Tunnels { return &Tunnels{Basis{c}} }

// BasisOf returns the Basis of New.
func BasisOf(c *netlink.Conn) *Basis { return &Basis{c} }

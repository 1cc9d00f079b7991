package host

import (
	"github.com/libnet-cni/libnet/internal/netlink"
)

// Host is what the host has in the namespace of its rtnetlink: routes, addresses,
// ports and sysctls. Sysctls are those of the calling thread's namespace, which
// must be the same.
type Host struct{ conn *netlink.Conn }

// New returns the Host that c leads to.
func New(c *netlink.Conn) *Host { return &Host{c} }

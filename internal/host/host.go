package host

import (
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/procfs"
)

// Host is what the host has in the namespace of its rtnetlink: routes, addresses,
// ports and sysctls. Sysctls are those of the calling thread's namespace, which
// must be the same.
type Host struct {
	Sysctls Sysctls

	conn *netlink.Conn
}

// New returns the Host that c leads to, with sysctls by proc; nil: by /proc itself.
func New(c *netlink.Conn, proc *procfs.FS) *Host { return &Host{Sysctls{proc}, c} }

package link

import (
	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/procfs"
)

// Links makes, verifies and removes bridges and attachments in the namespace of
// its rtnetlink, which must be that of the calling thread.
type Links struct {
	conn *netlink.Conn
	host *host.Host
	proc *procfs.FS // for sysctls of containers
}

// New returns the Links of a Host, by c, with sysctls of containers by proc; nil: by /proc
// itself.
func New(c *netlink.Conn, of *host.Host, proc *procfs.FS) *Links { return &Links{c, of, proc} }

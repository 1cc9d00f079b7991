package link

import (
	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// Links makes, verifies and removes bridges and attachments in the namespace of
// its rtnetlink, which must be that of the calling thread.
type Links struct {
	conn *netlink.Conn
	host *host.Host
}

// New returns the Links of a Host, by c.
func New(c *netlink.Conn, of *host.Host) *Links { return &Links{c, of} }

package netlink

import (
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	NetconfAll = -1 // NETCONFA_IFINDEX_ALL (linux/netconf.h)

	netconfaIfIndex, NetconfaForwarding, NetconfaRPFilter = 1, 2, 3 // linux/netconf.h
)

// netconfmsg is struct netconfmsg for a family, padded.
type netconfmsg struct{ family uint8 }

var _ nl.NetlinkRequestData = netconfmsg{}

func (netconfmsg) Len() int            { return 4 }
func (m netconfmsg) Serialize() []byte { return []byte{m.family, 0, 0, 0} }

// Netconf reads a setting of an interface, or of all, which is a file under
// net/<family>/conf as well. That would need a thread in the namespace, and in
// /proc/sys a look at one directory of each other namespace of the host.
func (c *Conn) Netconf(family uint8, index int, attr uint16) (int, error) {
	msg := netconfmsg{family}
	b, err := c.Get(Request(unix.RTM_GETNETCONF, 0, msg, AttrUint32(netconfaIfIndex, uint32(int32(index)))), unix.RTM_NEWNETCONF)
	if err != nil {
		return 0, err
	}
	value := 0
	err = EachAttr(b[min(len(b), msg.Len()):], func(typ uint16, v []byte) error {
		if typ == attr {
			value = Number(v)
		}
		return nil
	})
	return value, err
}

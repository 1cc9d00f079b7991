package link

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
)

const (
	// maxPorts is how many ports a bridge holds: BR_MAX_PORTS less port 0 (net/bridge/br_private.h).
	maxPorts = 1023
	// maxAlias is IFALIASZ less the final zero.
	maxAlias = 255
)

// pair is a veth to make: host is a port of the bridge with index master, peer
// is in the namespace open as PeerNS, or here when that is -1.
type pair struct {
	host, peer       string
	hostMAC, peerMAC net.HardwareAddr
	peerNS           int
	mtu, master      int
}

// createPair makes the veth in one message, complete and down: the peer is
// made in its namespace under its final name, for moving and renaming costs
// RCU grace periods. A failure leaves nothing. It returns the host's end as the
// kernel echoes it, nil from a kernel that does not (before 6.1).
func createPair(c *netlink.Conn, p pair) (*netlink.Device, error) {
	peer := netlink.Nest(nl.VETH_INFO_PEER)
	peer.AddChild(nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, a := range endAttrs(p.peer, p.peerMAC, p.mtu) {
		peer.AddChild(a)
	}
	if p.peerNS >= 0 {
		peer.AddChild(netlink.AttrUint32(unix.IFLA_NET_NS_FD, uint32(p.peerNS)))
	}
	req := netlink.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, a := range endAttrs(p.host, p.hostMAC, p.mtu) {
		req.AddData(a)
	}
	req.AddData(netlink.AttrUint32(unix.IFLA_MASTER, uint32(p.master)))
	req.AddData(netlink.Nest(unix.IFLA_LINKINFO, netlink.Attr(nl.IFLA_INFO_KIND, []byte("veth")), netlink.Nest(nl.IFLA_INFO_DATA, peer)))
	req.Flags |= unix.NLM_F_ACK | unix.NLM_F_ECHO
	echo, err := c.Execute(req, unix.RTM_NEWLINK)
	if err != nil || len(echo) == 0 {
		return nil, netlink.Translate(err)
	}
	return netlink.ParseDevice(echo[0])
}

// endAttrs are what both ends have. One queue each way is what a veth uses
// unless told otherwise, but unasked the kernel first makes one per CPU and
// then waits for an RCU grace period to take them back.
func endAttrs(name string, mac net.HardwareAddr, mtu int) []*nl.RtAttr {
	return []*nl.RtAttr{
		netlink.AttrString(unix.IFLA_IFNAME, name), netlink.Attr(unix.IFLA_ADDRESS, mac), netlink.AttrUint32(unix.IFLA_MTU, uint32(mtu)),
		netlink.AttrUint32(unix.IFLA_NUM_TX_QUEUES, 1), netlink.AttrUint32(unix.IFLA_NUM_RX_QUEUES, 1),
	}
}

// GroupPort is the group (IFLA_GROUP) of the ports of containers, "lnpt": rules find them by it, as the
// bridge's family has no name of the bridge on every kernel.
const GroupPort = 0x6c6e7074

// port is what a new bridge port shall be.
type port struct {
	name, alias       string
	hairpin, isolated bool
	vlan              int
	trunk             []VLANRange
	preserve          bool
}

// plug sets up a new port of br and brings it up. The port gets no link-local
// address: it only carries frames. That must be said before it comes up. The
// port is d, or looked up by its name if d is nil.
func (h *Links) plug(br, d *netlink.Device, p port) (_ *netlink.Device, err error) {
	if d == nil {
		if d, err = h.conn.Device(p.name); err != nil {
			return nil, fmt.Errorf("port %s: %w", p.name, err)
		}
	}
	var attrs []*nl.RtAttr
	if p.alias != "" {
		attrs = append(attrs, netlink.Attr(unix.IFLA_IFALIAS, []byte(p.alias)), netlink.AttrUint32(unix.IFLA_GROUP, GroupPort))
	}
	if p.hairpin || p.isolated {
		attrs = append(attrs, netlink.Nest(unix.IFLA_LINKINFO,
			netlink.Attr(nl.IFLA_INFO_SLAVE_KIND, []byte("bridge")),
			netlink.Nest(nl.IFLA_INFO_SLAVE_DATA,
				netlink.AttrBool(nl.IFLA_BRPORT_MODE, p.hairpin), netlink.AttrBool(nl.IFLA_BRPORT_ISOLATED, p.isolated))))
	}
	v6, err := h.host.Sysctls.SetIPv6(p.name, false, host.Sysctl{Key: "accept_ra", Value: "0"})
	if host.ReadOnly(err) {
		v6, err = true, nil // a port hands nothing to IPv6: frames are the bridge's
	}
	if err != nil {
		return nil, err
	}
	if v6 { // the kernel refuses the attribute on a link without IPv6
		attrs = append(attrs, netlink.Nest(unix.IFLA_AF_SPEC,
			netlink.Nest(unix.AF_INET6, netlink.Attr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{nl.IN6_ADDR_GEN_MODE_NONE}))))
	}
	if len(attrs) > 0 {
		if err := h.conn.SetLink(d.Index, 0, 0, attrs...); err != nil {
			return nil, fmt.Errorf("port %s: %w", p.name, err)
		}
	}
	if err := setPortVLANs(h.conn, br, d.Index, p); err != nil {
		return nil, err
	}
	if err := h.conn.SetLink(d.Index, unix.IFF_UP, unix.IFF_UP); err != nil {
		return nil, fmt.Errorf("set port %s up: %w", p.name, err)
	}
	return d, nil
}

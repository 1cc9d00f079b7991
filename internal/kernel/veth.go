package kernel

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// maxPorts is how many ports a bridge holds: BR_MAX_PORTS less port 0 (net/bridge/br_private.h).
	maxPorts = 1023
	// maxAlias is IFALIASZ less the final zero.
	maxAlias = 255
)

// pair is a veth to make: host is a port of the bridge with index master, peer
// is in the namespace open as peerNS, or here when that is -1.
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
func createPair(c *conn, p pair) (*device, error) {
	peer := nest(nl.VETH_INFO_PEER)
	peer.AddChild(nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, a := range endAttrs(p.peer, p.peerMAC, p.mtu) {
		peer.AddChild(a)
	}
	if p.peerNS >= 0 {
		peer.AddChild(attrUint32(unix.IFLA_NET_NS_FD, uint32(p.peerNS)))
	}
	req := request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, a := range endAttrs(p.host, p.hostMAC, p.mtu) {
		req.AddData(a)
	}
	req.AddData(attrUint32(unix.IFLA_MASTER, uint32(p.master)))
	req.AddData(nest(unix.IFLA_LINKINFO, attr(nl.IFLA_INFO_KIND, []byte("veth")), nest(nl.IFLA_INFO_DATA, peer)))
	req.Flags |= unix.NLM_F_ACK | unix.NLM_F_ECHO
	echo, err := c.execute(req, unix.RTM_NEWLINK)
	if err != nil || len(echo) == 0 {
		return nil, translate(err)
	}
	return parseDevice(echo[0])
}

// endAttrs are what both ends have. One queue each way is what a veth uses
// unless told otherwise, but unasked the kernel first makes one per CPU and
// then waits for an RCU grace period to take them back.
func endAttrs(name string, mac net.HardwareAddr, mtu int) []*nl.RtAttr {
	return []*nl.RtAttr{
		attrString(unix.IFLA_IFNAME, name), attr(unix.IFLA_ADDRESS, mac), attrUint32(unix.IFLA_MTU, uint32(mtu)),
		attrUint32(unix.IFLA_NUM_TX_QUEUES, 1), attrUint32(unix.IFLA_NUM_RX_QUEUES, 1),
	}
}

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
func (h *Links) plug(br, d *device, p port) (_ *device, err error) {
	if d == nil {
		if d, err = h.conn.device(p.name); err != nil {
			return nil, fmt.Errorf("port %s: %w", p.name, err)
		}
	}
	var attrs []*nl.RtAttr
	if p.alias != "" {
		attrs = append(attrs, attr(unix.IFLA_IFALIAS, []byte(p.alias)))
	}
	if p.hairpin || p.isolated {
		attrs = append(attrs, nest(unix.IFLA_LINKINFO,
			attr(nl.IFLA_INFO_SLAVE_KIND, []byte("bridge")),
			nest(nl.IFLA_INFO_SLAVE_DATA,
				attrBool(nl.IFLA_BRPORT_MODE, p.hairpin), attrBool(nl.IFLA_BRPORT_ISOLATED, p.isolated))))
	}
	v6, err := setIPv6(p.name, false, sysctl{"accept_ra", "0"})
	if readOnly(err) {
		v6, err = true, nil // a port hands nothing to IPv6: frames are the bridge's
	}
	if err != nil {
		return nil, err
	}
	if v6 { // the kernel refuses the attribute on a link without IPv6
		attrs = append(attrs, nest(unix.IFLA_AF_SPEC,
			nest(unix.AF_INET6, attr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{nl.IN6_ADDR_GEN_MODE_NONE}))))
	}
	if len(attrs) > 0 {
		if err := h.conn.setLink(d.index, 0, 0, attrs...); err != nil {
			return nil, fmt.Errorf("port %s: %w", p.name, err)
		}
	}
	if err := setPortVLANs(h.conn, br, d.index, p); err != nil {
		return nil, err
	}
	if err := h.conn.setLink(d.index, unix.IFF_UP, unix.IFF_UP); err != nil {
		return nil, fmt.Errorf("set port %s up: %w", p.name, err)
	}
	return d, nil
}

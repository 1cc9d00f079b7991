// Package routing asks the kernel what becomes of a packet: which way it goes, or why it goes none,
// whether the next hop is known, and whether queues drop packets. It changes nothing, and is for
// operators.
package routing

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Question asks the kernel which way a packet goes.
type Question struct {
	From, To netip.Addr // From may be zero
	In       int        // the index of the interface by which it came; 0: it is sent from here
	Out      int        // by which it leaves; 0: that is asked
	Protocol uint8      // IPPROTO_*; 0: any
	Port     uint16     // of the destination, of TCP and UDP
}

// Route is the answer.
type Route struct {
	Kind    uint8      // unix.RTN_*
	Gateway netip.Addr // zero: the destination is on the link
	Out     int        // index
}

// Ask asks the kernel. The error is that with which it drops such a packet.
func Ask(c *netlink.Conn, q Question) (Route, error) {
	const protocol, port = 27, 29 // RTA_IP_PROTO, RTA_DPORT (Linux 4.19)
	msg := nl.NewRtDelMsg()
	msg.Family, msg.Dst_len = uint8(netlink.Family(q.To)), uint8(q.To.BitLen())
	msg.Table, msg.Scope = 0, 0
	req := netlink.Request(unix.RTM_GETROUTE, 0, msg, netlink.Attr(unix.RTA_DST, q.To.AsSlice()))
	if q.From.IsValid() {
		msg.Src_len = uint8(q.From.BitLen())
		req.AddData(netlink.Attr(unix.RTA_SRC, q.From.AsSlice()))
	}
	if q.In != 0 {
		req.AddData(netlink.AttrUint32(unix.RTA_IIF, uint32(q.In)))
	}
	if q.Out != 0 {
		req.AddData(netlink.AttrUint32(unix.RTA_OIF, uint32(q.Out)))
	}
	if q.Protocol == unix.IPPROTO_TCP || q.Protocol == unix.IPPROTO_UDP {
		req.AddData(netlink.Attr(protocol, []byte{q.Protocol}))
		req.AddData(netlink.Attr(port, binary.BigEndian.AppendUint16(nil, q.Port)))
	}
	b, err := c.Get(req, unix.RTM_NEWROUTE)
	if err != nil {
		return Route{}, err
	}
	r, _, err := netlink.ParseRoute(b)
	return Route{nl.DeserializeRtMsg(b).Type, r.Gateway, r.OIF}, err
}

// Refusing finds the most specific of the routes to an address that drop packets, in all tables, as
// ip(8) writes it; empty: there is none.
func Refusing(c *netlink.Conn, to netip.Addr) (text string) {
	kinds := map[uint8]string{unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit"}
	bits := -1
	msgs, err := c.Dump(func() *nl.NetlinkRequest {
		msg := nl.NewRtDelMsg()
		msg.Family, msg.Table, msg.Scope = uint8(netlink.Family(to)), 0, 0
		return netlink.Request(unix.RTM_GETROUTE, 0, msg)
	}, unix.RTM_NEWROUTE)
	if err != nil {
		return ""
	}
	for _, b := range msgs {
		r, _, err := netlink.ParseRoute(b)
		kind := kinds[nl.DeserializeRtMsg(b).Type]
		// The kernel's own route of last resort of IPv6 has the highest metric.
		if err != nil || kind == "" || !r.Dst.Contains(to) || r.Dst.Bits() <= bits || r.Priority == -1 || uint32(r.Priority) == ^uint32(0) {
			continue
		}
		text, bits = kind+" "+r.Dst.String(), r.Dst.Bits()
		if r.Table != unix.RT_TABLE_MAIN {
			text += fmt.Sprint(" table ", r.Table)
		}
	}
	return text
}

// Neighbour is what is known of the link address of a next hop.
type Neighbour struct {
	Known bool // it answered, or an operator has written it
	Asked bool // it was asked for, and did not answer
	MAC   net.HardwareAddr
}

// NeighbourOf reads the entry of an address at an interface; zero if there is none.
func NeighbourOf(c *netlink.Conn, index int, addr netip.Addr) (n Neighbour) {
	b, err := c.Get(netlink.Request(unix.RTM_GETNEIGH, 0, netlink.Ndmsg{Family: uint8(netlink.Family(addr)), Index: index}, netlink.Attr(unix.NDA_DST, addr.AsSlice())), unix.RTM_NEWNEIGH)
	if err != nil || len(b) < netlink.NdmsgSize {
		return n
	}
	state := binary.NativeEndian.Uint16(b[8:])
	n.Asked = state&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0
	n.Known = state&(unix.NUD_REACHABLE|unix.NUD_STALE|unix.NUD_DELAY|unix.NUD_PROBE|unix.NUD_PERMANENT) != 0
	_ = netlink.EachAttr(b[netlink.NdmsgSize:], func(typ uint16, v []byte) error {
		if typ == unix.NDA_LLADDR {
			n.MAC = append(n.MAC, v...)
		}
		return nil
	})
	return n
}

// DroppedByQueues counts the packets that queues and filters of tc have dropped, by the index of the
// interface, in the calling thread's network namespace.
func DroppedByQueues() map[int]uint32 {
	const stats2, queue, drops = 7, 3, 8 // TCA_STATS2, TCA_STATS_QUEUE, and where that has them
	all := map[int]uint32{}
	c, err := netlink.Open()
	if err != nil {
		return all
	}
	defer c.Close()
	msgs, err := c.Dump(func() *nl.NetlinkRequest {
		return netlink.Request(unix.RTM_GETQDISC, 0, &nl.TcMsg{Family: nl.FAMILY_ALL})
	}, unix.RTM_NEWQDISC)
	if err != nil {
		return all
	}
	for _, m := range msgs {
		if len(m) < nl.SizeofTcMsg {
			continue
		}
		index := int(nl.DeserializeTcMsg(m).Ifindex)
		_ = netlink.EachAttr(m[nl.SizeofTcMsg:], func(typ uint16, v []byte) error {
			if typ != stats2 {
				return nil
			}
			return netlink.EachAttr(v, func(typ uint16, v []byte) error {
				if typ == queue && len(v) >= drops+4 {
					all[index] += binary.NativeEndian.Uint32(v[drops:])
				}
				return nil
			})
		})
	}
	return all
}

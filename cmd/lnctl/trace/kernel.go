package trace

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
)

func deviceIn(p *place, name string) (*netlink.Device, error) {
	if name == "" {
		return nil, netlink.ErrNotFound
	}
	return netlink.DeviceIn(p.ns, name)
}

// question asks the kernel which way a packet goes.
type question struct {
	from, to netip.Addr // from may be zero
	in       int        // the index of the interface by which it came; 0: it is sent from here
	out      int        // by which it leaves; 0: that is asked
	protocol uint8
	port     uint16
}

// route is the answer.
type route struct {
	kind    uint8      // unix.RTN_*
	gateway netip.Addr // zero: the destination is on the link
	out     int        // index
}

// routed asks the kernel. The error is that with which the kernel drops such a packet.
func routed(c *netlink.Conn, q question) (route, error) {
	const protocol, port = 27, 29 // RTA_IP_PROTO, RTA_DPORT (Linux 4.19)
	msg := nl.NewRtDelMsg()
	msg.Family, msg.Dst_len = uint8(netlink.Family(q.to)), uint8(q.to.BitLen())
	msg.Table, msg.Scope = 0, 0
	req := netlink.Request(unix.RTM_GETROUTE, 0, msg, netlink.Attr(unix.RTA_DST, q.to.AsSlice()))
	if q.from.IsValid() {
		msg.Src_len = uint8(q.from.BitLen())
		req.AddData(netlink.Attr(unix.RTA_SRC, q.from.AsSlice()))
	}
	if q.in != 0 {
		req.AddData(netlink.AttrUint32(unix.RTA_IIF, uint32(q.in)))
	}
	if q.out != 0 {
		req.AddData(netlink.AttrUint32(unix.RTA_OIF, uint32(q.out)))
	}
	if q.protocol == unix.IPPROTO_TCP || q.protocol == unix.IPPROTO_UDP {
		req.AddData(netlink.Attr(protocol, []byte{q.protocol}))
		req.AddData(netlink.Attr(port, binary.BigEndian.AppendUint16(nil, q.port)))
	}
	b, err := c.Get(req, unix.RTM_NEWROUTE)
	if err != nil {
		return route{}, err
	}
	r, _, err := netlink.ParseRoute(b)
	return route{nl.DeserializeRtMsg(b).Type, r.Gateway, r.OIF}, err
}

// refusing finds the most specific of the routes to an address that drop packets, in all tables, as
// ip(8) writes it; empty: there is none.
func refusing(c *netlink.Conn, to netip.Addr) (text string) {
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
			text += " table " + itoa(r.Table)
		}
	}
	return text
}

// neighbour is what is known of the link address of a next hop.
type neighbour struct {
	known bool // it answered, or an operator has written it
	asked bool // it was asked for, and did not answer
	mac   net.HardwareAddr
}

func neighbourOf(c *netlink.Conn, index int, addr netip.Addr) (n neighbour) {
	b, err := c.Get(netlink.Request(unix.RTM_GETNEIGH, 0, netlink.Ndmsg{Family: uint8(netlink.Family(addr)), Index: index}, netlink.Attr(unix.NDA_DST, addr.AsSlice())), unix.RTM_NEWNEIGH)
	if err != nil || len(b) < netlink.NdmsgSize {
		return n
	}
	state := binary.NativeEndian.Uint16(b[8:])
	n.asked = state&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0
	n.known = state&(unix.NUD_REACHABLE|unix.NUD_STALE|unix.NUD_DELAY|unix.NUD_PROBE|unix.NUD_PERMANENT) != 0
	_ = netlink.EachAttr(b[netlink.NdmsgSize:], func(typ uint16, v []byte) error {
		if typ == unix.NDA_LLADDR {
			n.mac = append(n.mac, v...)
		}
		return nil
	})
	return n
}

// droppedByQueues counts the packets that queues and filters of tc have dropped, by the index of the
// interface, in the calling thread's network namespace.
func droppedByQueues() map[int]uint32 {
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

// sysctl is a value of the calling thread's network namespace; empty: it is not there.
func sysctl(path string) string {
	value, _ := host.GetSysctl(path)
	return value
}

// legacyTables are those of iptables-legacy in the calling thread's network namespace.
func legacyTables(is6 bool) []string {
	name := "ip_tables_names"
	if is6 {
		name = "ip6_tables_names"
	}
	data, _ := os.ReadFile("/proc/thread-self/net/" + name)
	return strings.Fields(string(data))
}

// refusalOf tells apart the errors with which the kernel drops what it has no way for.
func refusalOf(err error) unix.Errno {
	for _, e := range []unix.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, e) {
			return e
		}
	}
	return 0
}

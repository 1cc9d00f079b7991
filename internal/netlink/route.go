package netlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Route is a unicast route as the kernel has it. One of several next hops is
// as many routes here.
type Route struct {
	Dst                               netip.Prefix
	Gateway                           netip.Addr
	Source                            netip.Addr // preferred, of the host's own packets; of one that was read only
	OIF, MTU, AdvMSS, Priority, Table int
	Scope, Protocol                   uint8
	Metrics                           []byte // value of RTA_METRICS
	hops                              []hop  // of one that was read; nil: oif and gateway are it
}

// Message adds or deletes the route under a metric; 0: IPv4's lowest, and what
// IPv6 has for none.
func (r *Route) Message(typ, flags, metric int) *nl.NetlinkRequest {
	msg := nl.NewRtMsg()
	msg.Family = uint8(Family(r.Dst.Addr()))
	msg.Dst_len, msg.Scope, msg.Protocol = uint8(r.Dst.Bits()), r.Scope, r.Protocol
	if r.Table < 256 {
		msg.Table = uint8(r.Table)
	} else {
		msg.Table = unix.RT_TABLE_UNSPEC
	}
	req := Request(typ, flags, msg,
		Attr(unix.RTA_DST, r.Dst.Addr().AsSlice()),
		AttrUint32(unix.RTA_OIF, uint32(r.OIF)), AttrUint32(unix.RTA_TABLE, uint32(r.Table)))
	if r.Gateway.IsValid() {
		req.AddData(Attr(unix.RTA_GATEWAY, r.Gateway.AsSlice()))
	}
	if metric > 0 {
		req.AddData(AttrUint32(unix.RTA_PRIORITY, uint32(metric)))
	}
	if typ == unix.RTM_NEWROUTE && len(r.Metrics) > 0 {
		req.AddData(Attr(unix.RTA_METRICS, r.Metrics))
	}
	return req
}

// Routes lists unicast routes. With oif above 0 only those of that link, with
// table above 0 only those of that table; the kernel filters since 4.20.
func (c *Conn) Routes(fam, oif, table int) ([]Route, error) {
	var rs []Route
	err := c.DumpEach(func() *nl.NetlinkRequest {
		msg := nl.NewRtDelMsg() // all zero but the table
		msg.Family, msg.Scope = uint8(fam), 0
		if table < 256 {
			msg.Table = uint8(table)
		} else {
			msg.Table = unix.RT_TABLE_UNSPEC
		}
		req := Request(unix.RTM_GETROUTE, 0, msg)
		if table > 0 {
			req.AddData(AttrUint32(unix.RTA_TABLE, uint32(table)))
		}
		if oif > 0 {
			req.AddData(AttrUint32(unix.RTA_OIF, uint32(oif)))
		}
		return req
	}, unix.RTM_NEWROUTE, func() { rs = nil }, func(b []byte) error {
		r, ok, err := ParseRoute(b)
		if !ok || err != nil || table > 0 && r.Table != table {
			return err
		}
		one := []hop{{r.OIF, r.Gateway}} // stays on the stack: a host may have very many
		hops := r.hops
		if len(hops) == 0 {
			hops = one
		}
		r.hops = nil
		for _, h := range hops {
			if oif == 0 || h.oif == oif {
				r.OIF, r.Gateway = h.oif, h.gateway
				rs = append(rs, r)
			}
		}
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		return nil, nil // no such table
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return rs, nil
}

// ParseRoute reads a RTM_NEWROUTE; false: it is no unicast route.
func ParseRoute(b []byte) (Route, bool, error) {
	if len(b) < unix.SizeofRtMsg {
		return Route{}, false, ErrShort
	}
	msg := nl.DeserializeRtMsg(b)
	r := Route{Table: int(msg.Table), Scope: msg.Scope, Protocol: msg.Protocol}
	dst := netip.IPv4Unspecified()
	if msg.Family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	err := EachAttr(b[unix.SizeofRtMsg:], func(typ uint16, v []byte) error {
		switch typ {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(v)
		case unix.RTA_GATEWAY:
			r.Gateway, _ = netip.AddrFromSlice(v)
		case unix.RTA_PREFSRC:
			r.Source, _ = netip.AddrFromSlice(v)
		case unix.RTA_OIF:
			r.OIF = Number(v)
		case unix.RTA_TABLE:
			r.Table = Number(v)
		case unix.RTA_PRIORITY:
			r.Priority = int(uint32(Number(v)))
		case unix.RTA_MULTIPATH:
			return r.parseHops(v)
		case unix.RTA_METRICS:
			r.Metrics = bytes.Clone(v)
			return EachAttr(v, func(typ uint16, v []byte) error {
				switch typ {
				case unix.RTAX_MTU:
					r.MTU = Number(v)
				case unix.RTAX_ADVMSS:
					r.AdvMSS = Number(v)
				}
				return nil
			})
		}
		return nil
	})
	r.Dst = netip.PrefixFrom(dst, int(msg.Dst_len))
	return r, msg.Type == unix.RTN_UNICAST, err
}

// hop is one of a route's next hops.
type hop struct {
	oif     int
	gateway netip.Addr
}

// parseHops reads the next hops of a route that has several (struct rtnexthop,
// each with attributes of its own).
func (r *Route) parseHops(v []byte) error {
	for len(v) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(v))
		if n < unix.SizeofRtNexthop || n > len(v) {
			return ErrShort
		}
		h := hop{oif: Number(v[4:8])}
		if err := EachAttr(v[unix.SizeofRtNexthop:n], func(typ uint16, v []byte) error {
			if typ == unix.RTA_GATEWAY {
				h.gateway, _ = netip.AddrFromSlice(v)
			}
			return nil
		}); err != nil {
			return err
		}
		r.hops = append(r.hops, h)
		v = v[min(len(v), (n+unix.RTNH_ALIGNTO-1)&^(unix.RTNH_ALIGNTO-1)):]
	}
	return nil
}

// RouteTo returns the route that packets to an address take. The MTU is the
// route's own: what path MTU discovery found is not asked for, as it passes.
func (c *Conn) RouteTo(a netip.Addr, oif int) (Route, error) {
	msg := nl.NewRtDelMsg() // all zero but table and scope
	msg.Family, msg.Dst_len, msg.Table, msg.Scope = uint8(Family(a)), uint8(a.BitLen()), 0, 0
	msg.Flags = unix.RTM_F_FIB_MATCH
	req := Request(unix.RTM_GETROUTE, 0, msg, Attr(unix.RTA_DST, a.AsSlice()))
	if oif != 0 {
		req.AddData(AttrUint32(unix.RTA_OIF, uint32(oif)))
	}
	b, err := c.Get(req, unix.RTM_NEWROUTE)
	if err != nil {
		return Route{}, err
	}
	r, unicast, err := ParseRoute(b)
	if err == nil && !unicast {
		err = ErrNotFound
	}
	return r, err
}

package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// route is a unicast route as the kernel has it. One of several next hops is
// as many routes here.
type route struct {
	dst                               netip.Prefix
	gateway                           netip.Addr
	oif, mtu, advMSS, priority, table int
	scope, protocol                   uint8
	metrics                           []byte // value of RTA_METRICS
	hops                              []hop  // of one that was read; nil: oif and gateway are it
}

// message adds or deletes the route under a metric; 0: IPv4's lowest, and what
// IPv6 has for none.
func (r *route) message(typ, flags, metric int) *nl.NetlinkRequest {
	msg := nl.NewRtMsg()
	msg.Family = uint8(family(r.dst.Addr()))
	msg.Dst_len, msg.Scope, msg.Protocol = uint8(r.dst.Bits()), r.scope, r.protocol
	if r.table < 256 {
		msg.Table = uint8(r.table)
	} else {
		msg.Table = unix.RT_TABLE_UNSPEC
	}
	req := request(typ, flags, msg,
		attr(unix.RTA_DST, r.dst.Addr().AsSlice()),
		attrUint32(unix.RTA_OIF, uint32(r.oif)), attrUint32(unix.RTA_TABLE, uint32(r.table)))
	if r.gateway.IsValid() {
		req.AddData(attr(unix.RTA_GATEWAY, r.gateway.AsSlice()))
	}
	if metric > 0 {
		req.AddData(attrUint32(unix.RTA_PRIORITY, uint32(metric)))
	}
	if typ == unix.RTM_NEWROUTE && len(r.metrics) > 0 {
		req.AddData(attr(unix.RTA_METRICS, r.metrics))
	}
	return req
}

// routes lists unicast routes. With oif above 0 only those of that link, with
// table above 0 only those of that table; the kernel filters since 4.20.
func (c *conn) routes(fam, oif, table int) ([]route, error) {
	var rs []route
	err := c.dumpEach(func() *nl.NetlinkRequest {
		msg := nl.NewRtDelMsg() // all zero but the table
		msg.Family, msg.Scope = uint8(fam), 0
		if table < 256 {
			msg.Table = uint8(table)
		} else {
			msg.Table = unix.RT_TABLE_UNSPEC
		}
		req := request(unix.RTM_GETROUTE, 0, msg)
		if table > 0 {
			req.AddData(attrUint32(unix.RTA_TABLE, uint32(table)))
		}
		if oif > 0 {
			req.AddData(attrUint32(unix.RTA_OIF, uint32(oif)))
		}
		return req
	}, unix.RTM_NEWROUTE, func() { rs = nil }, func(b []byte) error {
		r, ok, err := parseRoute(b)
		if !ok || err != nil || table > 0 && r.table != table {
			return err
		}
		one := []hop{{r.oif, r.gateway}} // stays on the stack: a host may have very many
		hops := r.hops
		if len(hops) == 0 {
			hops = one
		}
		r.hops = nil
		for _, h := range hops {
			if oif == 0 || h.oif == oif {
				r.oif, r.gateway = h.oif, h.gateway
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

func parseRoute(b []byte) (route, bool, error) {
	if len(b) < unix.SizeofRtMsg {
		return route{}, false, errShort
	}
	msg := nl.DeserializeRtMsg(b)
	r := route{table: int(msg.Table), scope: msg.Scope, protocol: msg.Protocol}
	dst := netip.IPv4Unspecified()
	if msg.Family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	err := eachAttr(b[unix.SizeofRtMsg:], func(typ uint16, v []byte) error {
		switch typ {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(v)
		case unix.RTA_GATEWAY:
			r.gateway, _ = netip.AddrFromSlice(v)
		case unix.RTA_OIF:
			r.oif = number(v)
		case unix.RTA_TABLE:
			r.table = number(v)
		case unix.RTA_PRIORITY:
			r.priority = int(uint32(number(v)))
		case unix.RTA_MULTIPATH:
			return r.parseHops(v)
		case unix.RTA_METRICS:
			r.metrics = bytes.Clone(v)
			return eachAttr(v, func(typ uint16, v []byte) error {
				switch typ {
				case unix.RTAX_MTU:
					r.mtu = number(v)
				case unix.RTAX_ADVMSS:
					r.advMSS = number(v)
				}
				return nil
			})
		}
		return nil
	})
	r.dst = netip.PrefixFrom(dst, int(msg.Dst_len))
	return r, msg.Type == unix.RTN_UNICAST, err
}

// hop is one of a route's next hops.
type hop struct {
	oif     int
	gateway netip.Addr
}

// parseHops reads the next hops of a route that has several (struct rtnexthop,
// each with attributes of its own).
func (r *route) parseHops(v []byte) error {
	for len(v) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(v))
		if n < unix.SizeofRtNexthop || n > len(v) {
			return errShort
		}
		h := hop{oif: number(v[4:8])}
		if err := eachAttr(v[unix.SizeofRtNexthop:n], func(typ uint16, v []byte) error {
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

// routeTo returns the route that packets to an address take. The MTU is the
// route's own: what path MTU discovery found is not asked for, as it passes.
func (c *conn) routeTo(a netip.Addr, oif int) (route, error) {
	msg := nl.NewRtDelMsg() // all zero but table and scope
	msg.Family, msg.Dst_len, msg.Table, msg.Scope = uint8(family(a)), uint8(a.BitLen()), 0, 0
	msg.Flags = unix.RTM_F_FIB_MATCH
	req := request(unix.RTM_GETROUTE, 0, msg, attr(unix.RTA_DST, a.AsSlice()))
	if oif != 0 {
		req.AddData(attrUint32(unix.RTA_OIF, uint32(oif)))
	}
	b, err := c.get(req, unix.RTM_NEWROUTE)
	if err != nil {
		return route{}, err
	}
	r, unicast, err := parseRoute(b)
	if err == nil && !unicast {
		err = ErrNotFound
	}
	return r, err
}

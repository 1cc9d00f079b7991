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

func (r *Route) check() error {
	if !r.Dst.IsValid() || r.Dst.Addr().Is4In6() {
		return fmt.Errorf("invalid route destination %s", r.Dst)
	}
	if r.Gateway.IsValid() && r.Gateway.Is4() != r.Dst.Addr().Is4() {
		return fmt.Errorf("route %s via %s: not of one family", r.Dst, r.Gateway)
	}
	return nil
}

func (r *Route) String() string {
	if r.Gateway.IsValid() {
		return fmt.Sprintf("%s via %s", r.Dst.Masked(), r.Gateway)
	}
	return r.Dst.Masked().String()
}

func (r *Route) table() int {
	if r.Table == 0 {
		return unix.RT_TABLE_MAIN
	}
	return r.Table
}

func (r *Route) scope() uint8 {
	switch {
	case r.Scope != nil:
		return uint8(*r.Scope)
	case !r.Gateway.IsValid() && r.Dst.Addr().Is4():
		return unix.RT_SCOPE_LINK
	}
	return unix.RT_SCOPE_UNIVERSE
}

// addRoute adds a route; one that is there already is success.
func (c *conn) addRoute(index int, r Route) error {
	have := route{
		dst: r.Dst.Masked(), gateway: r.Gateway, oif: index, table: r.table(), scope: r.scope(), protocol: unix.RTPROT_BOOT,
		metrics: r.metrics(),
	}
	err := c.change(have.message(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, r.Priority))
	if err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("add route %s: %w", &r, err)
	}
	return nil
}

// removeRoute removes an on-link route of the main table.
func (c *conn) removeRoute(index int, dst netip.Prefix) error {
	msg := nl.NewRtDelMsg()
	msg.Family, msg.Dst_len = uint8(family(dst.Addr())), uint8(dst.Bits())
	err := c.change(request(unix.RTM_DELROUTE, 0, msg,
		attr(unix.RTA_DST, dst.Masked().Addr().AsSlice()), attrUint32(unix.RTA_OIF, uint32(index))))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route %s: %w", dst, err)
	}
	return nil
}

// metrics is the value of RTA_METRICS; nil: none.
func (r *Route) metrics() []byte {
	var value []byte
	for _, m := range []struct{ typ, value int }{{unix.RTAX_MTU, r.MTU}, {unix.RTAX_ADVMSS, r.AdvMSS}} {
		if m.value > 0 {
			value = append(value, attrUint32(m.typ, uint32(m.value)).Serialize()...)
		}
	}
	return value
}

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

// UplinkMTU returns the MTU in bytes of the default routes: a route's own MTU,
// else its device's; the lowest of them all. ErrNotFound without a default route.
func (h *Handle) UplinkMTU() (int, error) {
	lowest := 0
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		rs, err := h.routes(fam, 0, unix.RT_TABLE_MAIN)
		if err != nil {
			return 0, fmt.Errorf("uplink MTU: %w", err)
		}
		for _, r := range rs {
			if r.dst.Bits() != 0 || r.oif == 0 {
				continue
			}
			mtu := r.mtu
			if mtu == 0 {
				d, err := h.deviceByIndex(r.oif)
				if errors.Is(err, ErrNotFound) {
					continue // gone since the list
				}
				if err != nil {
					return 0, fmt.Errorf("uplink MTU: %w", err)
				}
				mtu = d.mtu
			}
			if lowest == 0 || mtu < lowest {
				lowest = mtu
			}
		}
	}
	if lowest == 0 {
		return 0, fmt.Errorf("uplink MTU: default route: %w", ErrNotFound)
	}
	return lowest, nil
}

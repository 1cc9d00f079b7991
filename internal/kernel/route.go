package kernel

import (
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
	msg := nl.NewRtMsg()
	msg.Family = uint8(family(r.Dst.Addr()))
	msg.Dst_len, msg.Scope = uint8(r.Dst.Bits()), r.scope()
	if r.table() < 256 {
		msg.Table = uint8(r.table())
	} else {
		msg.Table = unix.RT_TABLE_UNSPEC
	}
	req := request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, msg,
		attr(unix.RTA_DST, r.Dst.Masked().Addr().AsSlice()),
		attrUint32(unix.RTA_OIF, uint32(index)), attrUint32(unix.RTA_TABLE, uint32(r.table())))
	if r.Gateway.IsValid() {
		req.AddData(attr(unix.RTA_GATEWAY, r.Gateway.AsSlice()))
	}
	if r.Priority > 0 {
		req.AddData(attrUint32(unix.RTA_PRIORITY, uint32(r.Priority)))
	}
	if r.MTU > 0 || r.AdvMSS > 0 {
		metrics := nest(unix.RTA_METRICS)
		if r.MTU > 0 {
			metrics.AddChild(attrUint32(unix.RTAX_MTU, uint32(r.MTU)))
		}
		if r.AdvMSS > 0 {
			metrics.AddChild(attrUint32(unix.RTAX_ADVMSS, uint32(r.AdvMSS)))
		}
		req.AddData(metrics)
	}
	if err := c.change(req); err != nil && !errors.Is(err, ErrExists) {
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

// route is a unicast route as the kernel has it.
type route struct {
	dst                               netip.Prefix
	gateway                           netip.Addr
	oif, mtu, advMSS, priority, table int
	scope, protocol                   uint8
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
		if ok && err == nil && (oif == 0 || r.oif == oif) && (table == 0 || r.table == table) {
			rs = append(rs, r)
		}
		return err
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
			r.priority = number(v)
		case unix.RTA_MULTIPATH:
			r.parseHops(v)
		case unix.RTA_METRICS:
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

// parseHops takes the first of a route's next hops.
func (r *route) parseHops(v []byte) {
	if len(v) >= unix.SizeofRtNexthop && r.oif == 0 {
		r.oif = number(v[4:])
	}
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

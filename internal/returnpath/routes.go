package returnpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Marks, and the tables of routes of the same numbers, are 0x6c6e0001 to 0x6c6e1fff ("ln" in
// ASCII). The bits that kube-proxy (0x4000, 0x8000) and the portmap plugin (0x2000) test for
// themselves are not among them.
const (
	markBase = 0x6c6e0000
	markMask = 0xffffe000
	maxPaths = 0x1fff
)

// IsMark says whether a mark, or a table of routes, is one of ours.
func isMark(n uint32) bool { return n&markMask == markBase && n != markBase }

// The rules of the routing policy stand at preference 108, before those of most others: the first
// has what bears none of our marks skip the others, to the last, at 109, which does nothing.
const (
	preference    = 108
	preferenceEnd = 109
	protocolOurs  = 108 // of rules and routes; that of the routes to other hosts
)

// families that a path may have.
var families = [...]int{unix.AF_INET, unix.AF_INET6}

// rule is one of ours.
type rule struct {
	mark   uint32 // markBase: that of what bears none
	end    bool
	action uint8
}

func skip() rule            { return rule{mark: markBase, action: unix.FR_ACT_GOTO} }
func end() rule             { return rule{end: true, action: unix.FR_ACT_NOP} }
func to(mark uint32) rule   { return rule{mark: mark, action: unix.FR_ACT_TO_TBL} }
func (r rule) isPath() bool { return !r.end && r.mark != markBase }

// message adds or deletes a rule.
func (r rule) message(typ, flags, family int) *nl.NetlinkRequest {
	msg := nl.NewRtDelMsg() // struct fib_rule_hdr is laid out alike
	msg.Family, msg.Type, msg.Table, msg.Scope = uint8(family), r.action, unix.RT_TABLE_UNSPEC, 0
	attrs := []nl.NetlinkRequestData{msg, netlink.Attr(unix.FRA_PROTOCOL, []byte{protocolOurs})}
	switch {
	case r.end:
		attrs = append(attrs, netlink.AttrUint32(unix.FRA_PRIORITY, preferenceEnd))
	case r.mark == markBase:
		msg.Flags = unix.FIB_RULE_INVERT
		attrs = append(attrs, netlink.AttrUint32(unix.FRA_PRIORITY, preference), netlink.AttrUint32(unix.FRA_GOTO, preferenceEnd),
			netlink.AttrUint32(unix.FRA_FWMARK, markBase), netlink.AttrUint32(unix.FRA_FWMASK, markMask))
	default:
		attrs = append(attrs, netlink.AttrUint32(unix.FRA_PRIORITY, preference), netlink.AttrUint32(unix.FRA_TABLE, r.mark),
			netlink.AttrUint32(unix.FRA_FWMARK, r.mark), netlink.AttrUint32(unix.FRA_FWMASK, 0xffffffff))
	}
	return netlink.Request(typ, flags, attrs...)
}

// parseRule reads a RTM_NEWRULE; false: it is not one of ours.
func parseRule(b []byte) (r rule, ours bool, err error) {
	if len(b) < unix.SizeofRtMsg {
		return r, false, netlink.ErrShort
	}
	r.action = b[7]
	var priority uint32
	err = netlink.EachAttr(b[unix.SizeofRtMsg:], func(typ uint16, v []byte) error {
		switch typ {
		case unix.FRA_PRIORITY:
			priority = binary.NativeEndian.Uint32(v)
		case unix.FRA_FWMARK:
			r.mark = binary.NativeEndian.Uint32(v)
		case unix.FRA_PROTOCOL:
			ours = len(v) > 0 && v[0] == protocolOurs
		}
		return nil
	})
	r.end = priority == preferenceEnd
	if r.end {
		r.mark = 0
	}
	return r, ours && (r.end && r.action == unix.FR_ACT_NOP || priority == preference && r.mark&markMask == markBase), err
}

// rules lists ours, in their order.
func rules(c *netlink.Conn, family int) (all []rule, err error) {
	err = c.DumpEach(func() *nl.NetlinkRequest {
		msg := nl.NewRtDelMsg()
		msg.Family, msg.Table, msg.Scope = uint8(family), 0, 0
		return netlink.Request(unix.RTM_GETRULE, 0, msg)
	}, unix.RTM_NEWRULE, func() { all = nil }, func(b []byte) error {
		r, ours, err := parseRule(b)
		if ours && err == nil {
			all = append(all, r)
		}
		return err
	})
	if err != nil && !absent(err) {
		return nil, fmt.Errorf("list rules of the routing policy: %w", err)
	}
	return all, nil
}

// absent says that the kernel has nothing of a family, or of what was asked.
func absent(err error) bool {
	return errors.Is(err, netlink.ErrNotFound) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

func addRule(c *netlink.Conn, family int, r rule) error {
	err := c.Change(r.message(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, family))
	if err != nil && !errors.Is(err, netlink.ErrExists) {
		return fmt.Errorf("rule of the routing policy for mark %#x: %w", r.mark, err)
	}
	return nil
}

func delRule(c *netlink.Conn, family int, r rule) error {
	if err := c.Change(r.message(unix.RTM_DELRULE, 0, family)); err != nil && !absent(err) {
		return fmt.Errorf("delete the rule of the routing policy for mark %#x: %w", r.mark, err)
	}
	return nil
}

// path is what a table of ours has: a route to the host, and none for what is behind the tunnel,
// which the host's other tables know.
type path struct {
	via    netip.Addr
	device int
	throws map[netip.Prefix]bool
}

// paths returns our tables of a family.
func paths(c *netlink.Conn, family int) (map[uint32]path, error) {
	all := map[uint32]path{}
	err := c.DumpEach(func() *nl.NetlinkRequest {
		msg := nl.NewRtDelMsg() // all zero but the table
		msg.Family, msg.Scope, msg.Table, msg.Protocol = uint8(family), 0, unix.RT_TABLE_UNSPEC, protocolOurs
		return netlink.Request(unix.RTM_GETROUTE, 0, msg)
	}, unix.RTM_NEWROUTE, func() { clear(all) }, func(b []byte) error {
		r, unicast, err := netlink.ParseRoute(b)
		if err != nil || !isMark(uint32(r.Table)) || r.Protocol != protocolOurs {
			return err
		}
		p := all[uint32(r.Table)]
		switch {
		case unicast && r.Dst.Bits() == 0:
			p.via, p.device = r.Gateway, r.OIF
		case !unicast:
			if p.throws == nil {
				p.throws = map[netip.Prefix]bool{}
			}
			p.throws[r.Dst] = true
		}
		all[uint32(r.Table)] = p
		return nil
	})
	if err != nil && !absent(err) {
		return nil, fmt.Errorf("list return paths: %w", err)
	}
	return all, nil
}

// change adds or deletes a route of a table: the default one by via, or that dst is not looked up
// there.
func change(c *netlink.Conn, typ, flags int, table uint32, dst netip.Prefix, via netip.Addr, device int) error {
	msg := nl.NewRtDelMsg()
	msg.Family, msg.Dst_len, msg.Scope = uint8(netlink.Family(dst.Addr())), uint8(dst.Bits()), unix.RT_SCOPE_UNIVERSE
	msg.Table, msg.Protocol, msg.Type = unix.RT_TABLE_UNSPEC, protocolOurs, unix.RTN_THROW
	attrs := []nl.NetlinkRequestData{msg, netlink.AttrUint32(unix.RTA_TABLE, table)}
	if dst.Bits() > 0 {
		attrs = append(attrs, netlink.Attr(unix.RTA_DST, dst.Addr().AsSlice()))
	}
	if via.IsValid() {
		msg.Type, msg.Flags = unix.RTN_UNICAST, unix.RTNH_F_ONLINK
		attrs = append(attrs, netlink.Attr(unix.RTA_GATEWAY, via.AsSlice()), netlink.AttrUint32(unix.RTA_OIF, uint32(device)))
	}
	if err := c.Change(netlink.Request(typ, flags, attrs...)); err != nil {
		return fmt.Errorf("return path, table %d, to %s: %w", table, dst, err)
	}
	return nil
}

func whole(family int) netip.Prefix {
	if family == unix.AF_INET6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// bring brings a table from what it has to a path.
func bring(c *netlink.Conn, family int, table uint32, have, want path) error {
	const put = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	for dst := range want.throws { // before the route that would lead them astray
		if !have.throws[dst] {
			if err := change(c, unix.RTM_NEWROUTE, put, table, dst, netip.Addr{}, 0); err != nil {
				return err
			}
		}
	}
	if want.via.IsValid() && (have.via != want.via || have.device != want.device) {
		if err := change(c, unix.RTM_NEWROUTE, put, table, whole(family), want.via, want.device); err != nil {
			return err
		}
	}
	if !want.via.IsValid() && have.via.IsValid() {
		err := change(c, unix.RTM_DELROUTE, 0, table, whole(family), have.via, have.device)
		if err != nil && !gone(err) {
			return err
		}
	}
	for dst := range have.throws {
		if !want.throws[dst] {
			if err := change(c, unix.RTM_DELROUTE, 0, table, dst, netip.Addr{}, 0); err != nil && !gone(err) {
				return err
			}
		}
	}
	return nil
}

// gone says that there is no such route any more.
func gone(err error) bool { return absent(err) || errors.Is(err, unix.ESRCH) }

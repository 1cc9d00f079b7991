package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// protocolOurs is the protocol number of our routes on the host: by it they
// are told from those of others. iproute2 has no name for it.
const protocolOurs = 108

// entry is an entry of a neighbour table or of a forwarding database.
type entry struct {
	netlink.Ndmsg
	dst netip.Addr
	mac MAC
}

// eachEntry calls fn with what a device has in the neighbour tables or, for
// AF_BRIDGE, in its own forwarding database. The kernel filters since 4.20.
func eachEntry(c *netlink.Conn, fam uint8, index int, start func(), fn func(entry)) error {
	return c.DumpEach(func() *nl.NetlinkRequest {
		return netlink.Request(unix.RTM_GETNEIGH, 0, netlink.Ndmsg{Family: fam}, netlink.AttrUint32(unix.NDA_IFINDEX, uint32(index)))
	}, unix.RTM_NEWNEIGH, start, func(b []byte) error {
		e, err := parseEntry(b)
		if err == nil && e.Index == index {
			fn(e)
		}
		return err
	})
}

func parseEntry(b []byte) (e entry, err error) {
	if len(b) < netlink.NdmsgSize {
		return e, netlink.ErrShort
	}
	e.Ndmsg = netlink.Ndmsg{Family: b[0], Index: netlink.Number(b[4:8]), State: binary.NativeEndian.Uint16(b[8:]), Flags: b[10]}
	err = netlink.EachAttr(b[netlink.NdmsgSize:], func(typ uint16, v []byte) error {
		switch typ {
		case unix.NDA_DST:
			e.dst, _ = netip.AddrFromSlice(v)
		case unix.NDA_LLADDR:
			copy(e.mac[:], v)
		}
		return nil
	})
	return e, err
}

// neighbours lists the permanent ones: the others are the kernel's own.
func neighbours(c *netlink.Conn, index int) (all []Neighbour, err error) {
	err = eachEntry(c, unix.AF_UNSPEC, index, func() { all = nil }, func(e entry) {
		if e.State&unix.NUD_PERMANENT != 0 {
			all = append(all, Neighbour{e.dst, e.mac})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	return all, nil
}

func fdb(c *netlink.Conn, index int) (all []FDBEntry, err error) {
	err = eachEntry(c, unix.AF_BRIDGE, index, func() { all = nil }, func(e entry) {
		if e.Flags&unix.NTF_SELF != 0 {
			all = append(all, FDBEntry{e.mac, e.dst})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list forwarding entries: %w", err)
	}
	return all, nil
}

// changeNeighbour is with RTM_NEWNEIGH or RTM_DELNEIGH.
func changeNeighbour(c *netlink.Conn, typ, index int, n Neighbour) error {
	msg := netlink.Ndmsg{Family: uint8(netlink.Family(n.Addr)), Index: index, State: unix.NUD_PERMANENT}
	req := netlink.Request(typ, replaceFlags(typ), msg, netlink.Attr(unix.NDA_DST, n.Addr.AsSlice()), netlink.Attr(unix.NDA_LLADDR, n.MAC[:]))
	if err := c.Change(req); err != nil {
		return fmt.Errorf("neighbour %s %s: %w", n.Addr, n.MAC, err)
	}
	return nil
}

// changeFDB is with RTM_NEWNEIGH or RTM_DELNEIGH.
func changeFDB(c *netlink.Conn, typ, index int, e FDBEntry) error {
	msg := netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: index, State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF}
	req := netlink.Request(typ, replaceFlags(typ), msg, netlink.Attr(unix.NDA_LLADDR, e.MAC[:]))
	if e.Remote.IsValid() {
		req.AddData(netlink.Attr(unix.NDA_DST, e.Remote.AsSlice()))
	}
	if err := c.Change(req); err != nil {
		return fmt.Errorf("forwarding entry %s to %s: %w", e.MAC, e.Remote, err)
	}
	return nil
}

func replaceFlags(typ int) int {
	if typ == unix.RTM_NEWNEIGH {
		return unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	return 0
}

// addTunnelRoute adds a route that may have come meanwhile; another one to the
// same destination is the host's own and stays, unless it is the network's, by its other device or
// past it: that one is replaced. So is one by flannel's device, where an agent keeps the network and
// thus knows that the other host has changed over from flannel, too.
func addTunnelRoute(c *netlink.Conn, index int, r Route, t Tunnel) error {
	err := changeTunnelRoute(c, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, r)
	if !errors.Is(err, netlink.ErrExists) && !errors.Is(err, unix.EINVAL) { // IPv6: the gateway is elsewhere
		return err
	}
	rs, listErr := c.Routes(netlink.Family(r.Dst.Addr()), 0, unix.RT_TABLE_MAIN)
	if listErr != nil {
		return listErr
	}
	for _, have := range rs {
		if have.Dst == r.Dst && have.OIF == index && have.Gateway == r.Via {
			return nil
		}
	}
	i := slices.IndexFunc(rs, func(have netlink.Route) bool { return have.Dst == r.Dst })
	if i < 0 {
		return err
	}
	name, flannel := fmt.Sprint(rs[i].OIF), false
	if d, err := c.DeviceByIndex(rs[i].OIF); err == nil {
		name, flannel = d.Name, ofFlannel(d)
	}
	if isDirect(rs[i], index, t.Nets) || flannel && t.Nets != nil {
		return replaceDirect(c, index, r)
	}
	if name == t.sister() && rs[i].Protocol == protocolOurs {
		return changeTunnelRoute(c, unix.RTM_NEWROUTE, unix.NLM_F_REPLACE, index, r)
	}
	return fmt.Errorf("%w: the host's route to %s leads by %s", ErrRouteConflict, r.Dst, name)
}

// ofFlannel says that a device is flannel's.
func ofFlannel(d *netlink.Device) bool { return d.VXLAN != nil && strings.HasPrefix(d.Name, "flannel") }

// changeTunnelRoute is with RTM_NEWROUTE or RTM_DELROUTE.
func changeTunnelRoute(c *netlink.Conn, typ, flags, index int, r Route) error {
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = uint8(netlink.Family(r.Dst.Addr())), uint8(r.Dst.Bits())
	msg.Protocol = protocolOurs
	attrs := []nl.NetlinkRequestData{msg, netlink.Attr(unix.RTA_DST, r.Dst.Addr().AsSlice()),
		netlink.AttrUint32(unix.RTA_OIF, uint32(index)), netlink.AttrUint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN)}
	if r.Via.IsValid() {
		msg.Flags = unix.RTNH_F_ONLINK
		attrs = append(attrs, netlink.Attr(unix.RTA_GATEWAY, r.Via.AsSlice()))
	} else {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	if err := c.Change(netlink.Request(typ, flags, attrs...)); err != nil {
		if !r.Via.IsValid() {
			return fmt.Errorf("route %s: %w", r.Dst, err)
		}
		return fmt.Errorf("route %s via %s: %w", r.Dst, r.Via, err)
	}
	return nil
}

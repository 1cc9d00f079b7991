package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// protocolOurs is the protocol number of our routes on the host: by it they
// are told from everybody else's. iproute2 has no name for it.
const protocolOurs = 108

// entry is an entry of a neighbour table or of a forwarding database.
type entry struct {
	ndmsg
	dst netip.Addr
	mac MAC
}

// eachEntry calls fn with what a device has in the neighbour tables or, for
// AF_BRIDGE, in its own forwarding database. The kernel filters since 4.20.
func eachEntry(c *conn, fam uint8, index int, start func(), fn func(entry)) error {
	return c.dumpEach(func() *nl.NetlinkRequest {
		return request(unix.RTM_GETNEIGH, 0, ndmsg{family: fam}, attrUint32(unix.NDA_IFINDEX, uint32(index)))
	}, unix.RTM_NEWNEIGH, start, func(b []byte) error {
		e, err := parseEntry(b)
		if err == nil && e.index == index {
			fn(e)
		}
		return err
	})
}

func parseEntry(b []byte) (e entry, err error) {
	if len(b) < ndmsgSize {
		return e, errShort
	}
	e.ndmsg = ndmsg{b[0], number(b[4:8]), binary.NativeEndian.Uint16(b[8:]), b[10]}
	err = eachAttr(b[ndmsgSize:], func(typ uint16, v []byte) error {
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
func neighbours(c *conn, index int) (all []Neighbour, err error) {
	err = eachEntry(c, unix.AF_UNSPEC, index, func() { all = nil }, func(e entry) {
		if e.state&unix.NUD_PERMANENT != 0 {
			all = append(all, Neighbour{e.dst, e.mac})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	return all, nil
}

func fdb(c *conn, index int) (all []FDBEntry, err error) {
	err = eachEntry(c, unix.AF_BRIDGE, index, func() { all = nil }, func(e entry) {
		if e.flags&unix.NTF_SELF != 0 {
			all = append(all, FDBEntry{e.mac, e.dst})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list forwarding entries: %w", err)
	}
	return all, nil
}

// changeNeighbour is with RTM_NEWNEIGH or RTM_DELNEIGH.
func changeNeighbour(c *conn, typ, index int, n Neighbour) error {
	msg := ndmsg{family: uint8(family(n.Addr)), index: index, state: unix.NUD_PERMANENT}
	req := request(typ, replaceFlags(typ), msg, attr(unix.NDA_DST, n.Addr.AsSlice()), attr(unix.NDA_LLADDR, n.MAC[:]))
	if err := c.change(req); err != nil {
		return fmt.Errorf("neighbour %s %s: %w", n.Addr, n.MAC, err)
	}
	return nil
}

// changeFDB is with RTM_NEWNEIGH or RTM_DELNEIGH.
func changeFDB(c *conn, typ, index int, e FDBEntry) error {
	msg := ndmsg{family: unix.AF_BRIDGE, index: index, state: unix.NUD_PERMANENT, flags: unix.NTF_SELF}
	req := request(typ, replaceFlags(typ), msg, attr(unix.NDA_LLADDR, e.MAC[:]))
	if e.Remote.IsValid() {
		req.AddData(attr(unix.NDA_DST, e.Remote.AsSlice()))
	}
	if err := c.change(req); err != nil {
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
// same destination is the host's own and stays.
func addTunnelRoute(c *conn, index int, r TunnelRoute) error {
	err := changeTunnelRoute(c, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, r)
	if !errors.Is(err, ErrExists) && !errors.Is(err, unix.EINVAL) { // IPv6: the gateway is elsewhere
		return err
	}
	rs, listErr := c.routes(family(r.Via), 0, unix.RT_TABLE_MAIN)
	if listErr != nil {
		return listErr
	}
	for _, have := range rs {
		if have.dst == r.Dst && have.oif == index && have.gateway == r.Via {
			return nil
		}
	}
	i := slices.IndexFunc(rs, func(have route) bool { return have.dst == r.Dst })
	if i < 0 {
		return err
	}
	name := fmt.Sprint(rs[i].oif)
	if d, err := c.deviceByIndex(rs[i].oif); err == nil {
		name = d.name
	}
	return fmt.Errorf("%w: the host's route to %s leads by %s", ErrRouteConflict, r.Dst, name)
}

// changeTunnelRoute is with RTM_NEWROUTE or RTM_DELROUTE.
func changeTunnelRoute(c *conn, typ, flags, index int, r TunnelRoute) error {
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = uint8(family(r.Via)), uint8(r.Dst.Bits())
	msg.Protocol, msg.Flags = protocolOurs, unix.RTNH_F_ONLINK
	req := request(typ, flags, msg,
		attr(unix.RTA_DST, r.Dst.Addr().AsSlice()), attr(unix.RTA_GATEWAY, r.Via.AsSlice()),
		attrUint32(unix.RTA_OIF, uint32(index)), attrUint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN))
	if err := c.change(req); err != nil {
		return fmt.Errorf("route %s via %s: %w", r.Dst, r.Via, err)
	}
	return nil
}

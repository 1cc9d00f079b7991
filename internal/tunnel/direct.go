package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Direct is a route to a remote block without a tunnel: its host is on the same segment.
type Direct struct {
	Dst netip.Prefix
	// Via is an address of the other host, and Device what leads to it.
	Via    netip.Addr
	Device string
	// Source is what packets of this host itself have as their source: its own end of the
	// tunnel, so that they look the same whichever way they take.
	Source netip.Addr
}

// String is "10.80.1.0/24 via 192.0.2.2 dev eth0".
func (r Direct) String() string { return fmt.Sprintf("%s via %s dev %s", r.Dst, r.Via, r.Device) }

// leadsPast says that a route to a block leads past the device.
func (t *Tunnel) leadsPast(block netip.Prefix) bool {
	return slices.ContainsFunc(t.Direct, func(r Direct) bool { return r.Dst == block })
}

// leadsTo says that a route to a block leads by the device.
func (t *Tunnel) leadsTo(block netip.Prefix) bool {
	return slices.ContainsFunc(t.Routes, func(r Route) bool { return r.Dst == block })
}

// isDirect says that a route is one past a network's device, whose index is own, into its nets.
func isDirect(r netlink.Route, own int, nets []netip.Prefix) bool {
	return r.Protocol == protocolOurs && r.OIF != own && r.Gateway.IsValid() &&
		slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Bits() <= r.Dst.Bits() && p.Contains(r.Dst.Addr()) })
}

// readDirect lists the routes of ours into nets that lead by another device than the one with
// the index own.
func readDirect(c *netlink.Conn, own int, nets []netip.Prefix) (all []Direct, err error) {
	names := map[int]string{}
	for _, f := range families(nets) {
		rs, err := ourRoutes(c, f)
		if err != nil {
			return nil, err
		}
		for _, r := range rs {
			if !isDirect(r, own, nets) {
				continue
			}
			if names[r.OIF] == "" {
				d, err := c.DeviceByIndex(r.OIF)
				if errors.Is(err, netlink.ErrNotFound) {
					continue // gone meanwhile, and the route with it
				}
				if err != nil {
					return nil, err
				}
				names[r.OIF] = d.Name
			}
			all = append(all, Direct{r.Dst, r.Gateway, names[r.OIF], r.Source})
		}
	}
	return all, nil
}

// ourRoutes lists the unicast routes of our protocol in the main table.
func ourRoutes(c *netlink.Conn, fam int) (all []netlink.Route, err error) {
	err = c.DumpEach(func() *nl.NetlinkRequest {
		msg := nl.NewRtDelMsg() // all zero but the table
		msg.Family, msg.Scope, msg.Table = uint8(fam), 0, unix.RT_TABLE_MAIN
		msg.Protocol, msg.Type = protocolOurs, unix.RTN_UNICAST
		return netlink.Request(unix.RTM_GETROUTE, 0, msg)
	}, unix.RTM_NEWROUTE, func() { all = nil }, func(b []byte) error {
		r, unicast, err := netlink.ParseRoute(b)
		if err == nil && unicast && r.Table == unix.RT_TABLE_MAIN && r.Protocol == protocolOurs {
			all = append(all, r)
		}
		return err
	})
	if err != nil && !errors.Is(err, netlink.ErrNotFound) {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return all, nil
}

// addDirect adds a route, or puts it in the place of one of ours: no packet is lost in between.
func addDirect(c *netlink.Conn, r Direct) error {
	d, err := c.Device(r.Device)
	if err != nil {
		return fmt.Errorf("route %s: %w", r, err)
	}
	err = changeDirect(c, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, d.Index, r)
	if !errors.Is(err, netlink.ErrExists) {
		return err
	}
	rs, listErr := c.Routes(netlink.Family(r.Dst.Addr()), 0, unix.RT_TABLE_MAIN)
	if listErr != nil {
		return listErr
	}
	i := slices.IndexFunc(rs, func(have netlink.Route) bool { return have.Dst == r.Dst })
	if i < 0 {
		return err
	}
	by, byErr := c.DeviceByIndex(rs[i].OIF)
	if rs[i].Protocol != protocolOurs && (byErr != nil || !ofFlannel(by)) {
		return fmt.Errorf("%w: the host's route to %s leads by another way", ErrRouteConflict, r.Dst)
	}
	return changeDirect(c, unix.RTM_NEWROUTE, unix.NLM_F_REPLACE, d.Index, r)
}

// replaceDirect puts a route by the tunnel in the place of one by another device. Of IPv6 the kernel wants the
// gateway, which is in the block, to be led to by the tunnel before.
func replaceDirect(c *netlink.Conn, index int, r Route) error {
	if r.Via.Is6() {
		gateway := Route{Dst: netip.PrefixFrom(r.Via, r.Via.BitLen())}
		if err := changeTunnelRoute(c, unix.RTM_NEWROUTE, unix.NLM_F_CREATE, index, gateway); ignore(err, netlink.ErrExists) != nil {
			return err
		}
		defer func() { _ = changeTunnelRoute(c, unix.RTM_DELROUTE, 0, index, gateway) }() // or the next look does
	}
	return changeTunnelRoute(c, unix.RTM_NEWROUTE, unix.NLM_F_REPLACE, index, r)
}

// removeDirect takes a route away; without its device it is gone.
func removeDirect(c *netlink.Conn, r Direct) error {
	d, err := c.Device(r.Device)
	if errors.Is(err, netlink.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return changeDirect(c, unix.RTM_DELROUTE, 0, d.Index, r)
}

// changeDirect is with RTM_NEWROUTE or RTM_DELROUTE.
func changeDirect(c *netlink.Conn, typ, flags, index int, r Direct) error {
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = uint8(netlink.Family(r.Dst.Addr())), uint8(r.Dst.Bits())
	msg.Protocol = protocolOurs
	attrs := []nl.NetlinkRequestData{msg, netlink.Attr(unix.RTA_DST, r.Dst.Addr().AsSlice()),
		netlink.AttrUint32(unix.RTA_OIF, uint32(index)), netlink.AttrUint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN),
		netlink.Attr(unix.RTA_GATEWAY, r.Via.AsSlice())}
	if r.Source.IsValid() {
		attrs = append(attrs, netlink.Attr(unix.RTA_PREFSRC, r.Source.AsSlice()))
	}
	if err := c.Change(netlink.Request(typ, flags, attrs...)); err != nil {
		return fmt.Errorf("route %s: %w", r, err)
	}
	return nil
}

// findDirect says how each of t.Direct is in the kernel.
func (h *Tunnels) findDirect(t Tunnel, have []Direct, f *Found) error {
	if have == nil { // without a device nothing was read
		var err error
		if have, err = readDirect(h.conn, 0, t.Nets); err != nil {
			return err
		}
	}
	f.Direct = findEntries(t.Direct, have, func(r Direct) netip.Prefix { return r.Dst }, Direct.String)
	return nil
}

// RemoveDirect takes away all routes of ours into nets that lead past a tunnel. The tunnel is
// gone before.
func (h *Tunnels) RemoveDirect(ctx context.Context, nets []netip.Prefix) error {
	all, err := readDirect(h.conn, 0, nets)
	errs := []error{ctx.Err(), err}
	for _, r := range all {
		if err := removeDirect(h.conn, r); unlessGone(err) != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

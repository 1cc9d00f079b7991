package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// unreachableMetric is that of the routes which have a network end where its tunnel does not
// lead: behind all others, and one for each device, so that it tells whose a route is.
func unreachableMetric(device string) uint32 {
	h := uint32(2166136261) // FNV-1a
	for i := range len(device) {
		h = (h ^ uint32(device[i])) * 16777619
	}
	return 1<<31 | h
}

// unreachable lists the destinations of a device's unreachable routes of a family.
func unreachable(c *netlink.Conn, fam int, device string) (all []netip.Prefix, err error) {
	metric := int(unreachableMetric(device))
	err = c.DumpEach(func() *nl.NetlinkRequest {
		msg := nl.NewRtDelMsg() // all zero but the table
		msg.Family, msg.Scope, msg.Table = uint8(fam), 0, unix.RT_TABLE_MAIN
		msg.Protocol, msg.Type = protocolOurs, unix.RTN_UNREACHABLE
		return netlink.Request(unix.RTM_GETROUTE, 0, msg)
	}, unix.RTM_NEWROUTE, func() { all = nil }, func(b []byte) error {
		r, unicast, err := netlink.ParseRoute(b)
		if err == nil && !unicast && r.Protocol == protocolOurs && r.Priority == metric && r.Table == unix.RT_TABLE_MAIN {
			all = append(all, r.Dst)
		}
		return err
	})
	if err != nil && !errors.Is(err, netlink.ErrNotFound) {
		return nil, fmt.Errorf("list unreachable routes: %w", err)
	}
	return all, nil
}

// families are those of prefixes, AF_INET first.
func families(all []netip.Prefix) (fams []int) {
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		if slices.ContainsFunc(all, func(p netip.Prefix) bool { return netlink.Family(p.Addr()) == f }) {
			fams = append(fams, f)
		}
	}
	return fams
}

// ensureUnreachable adds the routes that are missing, and takes away those of nets that the
// network has no more.
func (h *Tunnels) ensureUnreachable(t Tunnel, u *netlink.Undo) error {
	for _, f := range families(t.Secure.Nets) {
		have, err := unreachable(h.conn, f, t.Name)
		if err != nil {
			return err
		}
		var want []netip.Prefix
		for _, p := range t.Secure.Nets {
			if netlink.Family(p.Addr()) == f {
				want = append(want, p)
			}
		}
		missing, surplus := differ(want, have)
		for _, p := range missing {
			err := changeUnreachable(h.conn, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, p, t.Name)
			if errors.Is(err, netlink.ErrExists) {
				continue // it came meanwhile
			}
			if err != nil {
				return err
			}
			u.Push(func() error { return changeUnreachable(h.conn, unix.RTM_DELROUTE, 0, p, t.Name) })
		}
		for _, p := range surplus {
			if err := unlessGone(changeUnreachable(h.conn, unix.RTM_DELROUTE, 0, p, t.Name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeUnreachable takes all routes of a device's network away.
func (h *Tunnels) removeUnreachable(device string) error {
	if !strings.HasPrefix(device, SecurePrefix) {
		return nil
	}
	var errs []error
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		all, err := unreachable(h.conn, f, device)
		errs = append(errs, err)
		for _, p := range all {
			errs = append(errs, unlessGone(changeUnreachable(h.conn, unix.RTM_DELROUTE, 0, p, device)))
		}
	}
	return errors.Join(errs...)
}

// changeUnreachable is with RTM_NEWROUTE or RTM_DELROUTE.
func changeUnreachable(c *netlink.Conn, typ, flags int, p netip.Prefix, device string) error {
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = uint8(netlink.Family(p.Addr())), uint8(p.Bits())
	msg.Protocol, msg.Type = protocolOurs, unix.RTN_UNREACHABLE
	req := netlink.Request(typ, flags, msg, netlink.Attr(unix.RTA_DST, p.Addr().AsSlice()),
		netlink.AttrUint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN), netlink.AttrUint32(unix.RTA_PRIORITY, unreachableMetric(device)))
	if err := c.Change(req); err != nil {
		return fmt.Errorf("unreachable route to %s: %w", p, err)
	}
	return nil
}

// compareUnreachable says which routes are missing.
func (h *Tunnels) compareUnreachable(at string, t Tunnel, out *netlink.Diff) {
	for _, f := range families(t.Secure.Nets) {
		have, err := unreachable(h.conn, f, t.Name)
		if err != nil {
			out.Failed(at, err)
			continue
		}
		for _, p := range t.Secure.Nets {
			if netlink.Family(p.Addr()) == f && !slices.Contains(have, p) {
				out.Add("%s: the unreachable route to %s, which keeps packets from leaving unencrypted, is missing", at, p)
			}
		}
	}
}

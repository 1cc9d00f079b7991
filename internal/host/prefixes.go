package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// Prefixes returns what the host has routes to, in every table, each once and
// in the order of addresses: connected and static routes, those that drop, and
// its own addresses. Left out are default routes and what stands in for one
// (0.0.0.0/1, 2000::/3: anything shorter than /8), link-local networks,
// multicast and broadcast.
func (h *Host) Prefixes() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		msgs, err := h.conn.Dump(func() *nl.NetlinkRequest {
			msg := nl.NewRtDelMsg() // all zero but the table
			msg.Family, msg.Scope, msg.Table = fam, 0, unix.RT_TABLE_UNSPEC
			return netlink.Request(unix.RTM_GETROUTE, 0, msg)
		}, unix.RTM_NEWROUTE)
		if errors.Is(err, netlink.ErrNotFound) || errors.Is(err, netlink.ErrUnsupported) {
			continue // the kernel has no such family
		}
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, b := range msgs {
			r, _, err := netlink.ParseRoute(b)
			if err != nil {
				return nil, err
			}
			if occupies(nl.DeserializeRtMsg(b).Type, r.Dst) {
				all = append(all, r.Dst.Masked())
			}
		}
	}
	sorting.Stable(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(all), nil
}

// occupies says whether a route means that its destination is somewhere.
func occupies(kind uint8, dst netip.Prefix) bool {
	switch kind {
	case unix.RTN_BROADCAST, unix.RTN_MULTICAST, unix.RTN_ANYCAST:
		return false
	}
	return dst.Bits() >= 8 && !dst.Addr().IsLinkLocalUnicast() && !dst.Addr().IsMulticast()
}

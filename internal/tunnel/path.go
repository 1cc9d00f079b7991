package tunnel

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// deviceMTU reads an MTU once.
func (h *Basis) deviceMTU(index int, known map[int]int) (int, error) {
	if mtu, ok := known[index]; ok {
		return mtu, nil
	}
	d, err := h.conn.DeviceByIndex(index)
	if err != nil {
		return 0, err
	}
	known[index] = d.MTU
	return d.MTU, nil
}

// PathMTU returns the lowest MTU in bytes of the routes to peers; without a
// route to any of them that of the device that has the address local. dev, if
// not empty, is what the routes must lead by. ErrNotFound without either.
func (h *Basis) PathMTU(local netip.Addr, peers []netip.Addr, dev string) (int, error) {
	lowest, known, oif := 0, map[int]int{}, 0
	if dev != "" {
		d, err := h.conn.Device(dev)
		if err != nil {
			return 0, fmt.Errorf("device %s: %w", dev, err)
		}
		oif, known[d.Index] = d.Index, d.MTU
	}
	for _, p := range alike(h.conn, peers) {
		r, err := h.conn.RouteTo(p, oif)
		if err != nil {
			continue // a peer out of reach limits no other
		}
		mtu := r.MTU
		if mtu == 0 {
			if mtu, err = h.deviceMTU(r.OIF, known); err != nil {
				continue
			}
		}
		if lowest == 0 || mtu < lowest {
			lowest = mtu
		}
	}
	if lowest > 0 {
		return lowest, nil
	}
	own, err := host.OwnAddrs(h.conn, netlink.Family(local))
	if err != nil {
		return 0, err
	}
	index, ok := own[local]
	if !ok {
		return 0, fmt.Errorf("address %s: %w", local, netlink.ErrNotFound)
	}
	return h.deviceMTU(index, known)
}

// Where there are more than fewPeers, those are found first that one route is
// for, unless the host has more than mostRoutes: then to ask for each peer is
// cheaper than to read them all.
const (
	fewPeers   = 32
	mostRoutes = 20_000
)

// alike returns one of those addresses for each set of them that the host's
// routes do not tell apart; all of them if that cannot be said.
func alike(c *netlink.Conn, all []netip.Addr) []netip.Addr {
	if len(all) <= fewPeers {
		return all
	}
	known, lengths, ok := destinations(c, netlink.Family(all[0]))
	if !ok {
		return all
	}
	one := map[netip.Prefix]netip.Addr{}
	for _, a := range all {
		one[longest(a, known, lengths)] = a
	}
	return slices.Collect(maps.Values(one))
}

// longest returns the longest of some prefixes that has an address; the zero
// Prefix if none has.
func longest(a netip.Addr, known map[netip.Prefix]bool, lengths [129]bool) netip.Prefix {
	for bits := a.BitLen(); bits >= 0; bits-- {
		if !lengths[bits] {
			continue
		}
		if p, err := a.Prefix(bits); err == nil && known[p] {
			return p
		}
	}
	return netip.Prefix{}
}

// destinations returns those of all routes in all tables of a family, and how
// long they are. It is false where rules choose a table by destination, where
// there are too many routes, or another program is changing them.
func destinations(c *netlink.Conn, fam int) (known map[netip.Prefix]bool, lengths [129]bool, ok bool) {
	zero := nl.NewRtDelMsg()
	zero.Family, zero.Table, zero.Scope = uint8(fam), 0, 0
	rules, err := c.Dump(func() *nl.NetlinkRequest { return netlink.Request(unix.RTM_GETRULE, 0, zero) }, unix.RTM_NEWRULE)
	if err != nil || slices.ContainsFunc(rules, func(b []byte) bool { return len(b) < unix.SizeofRtMsg || b[1] > 0 }) { // struct fib_rule_hdr: dst_len
		return nil, lengths, false
	}
	known = map[netip.Prefix]bool{}
	read := 0
	whole, err := c.DumpSome(netlink.Request(unix.RTM_GETROUTE, 0, zero), unix.RTM_NEWROUTE, func(b []byte) (more bool, err error) {
		r, _, err := netlink.ParseRoute(b)
		if err == nil && r.Protocol != protocolOurs { // these lead to containers, not to hosts
			known[r.Dst], lengths[r.Dst.Bits()] = true, true
		}
		read++
		return read <= mostRoutes, err
	})
	if err != nil || !whole {
		return nil, lengths, false
	}
	return known, lengths, true
}

// LeadsTo returns the index of a device that is up and has the alias, if the host's routes lead by it to
// the beginning of each of these; else an error.
func (h *Tunnels) LeadsTo(name, alias string, to []netip.Prefix) (index int, err error) {
	d, err := h.conn.Device(name)
	if err != nil {
		return 0, err
	}
	if !isTunnel(d, alias) || !d.Up() {
		return 0, fmt.Errorf("tunnel %s: %w", name, netlink.ErrDifferent)
	}
	for _, p := range to {
		r, err := h.conn.RouteTo(p.Addr(), 0)
		if err != nil {
			return 0, err
		}
		if r.OIF != d.Index {
			return 0, fmt.Errorf("route to %s: %w", p, netlink.ErrDifferent)
		}
	}
	return d.Index, nil
}

package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// ensureAddrs makes the device, the bridge br itself or its VLAN interface,
// hold the wanted addresses. fresh says it was just made and has none, which
// saves the look.
func (h *Links) ensureAddrs(d, br *netlink.Device, b Bridge, fresh bool, u *netlink.Undo) error {
	if len(b.Gateways) == 0 {
		return nil
	}
	var have []netlink.Address
	if !fresh {
		var err error
		if have, err = h.conn.Addrs(d.Index, netlink.AddrFamily(b.Gateways)); err != nil {
			return err
		}
	}
	if err := ensureConnected(h.conn, d, have, b.Gateways); err != nil {
		return err
	}
	missing, inTheWay := planAddrs(have, b.Gateways)
	if err := h.clearWay(d, br, b, inTheWay, u); err != nil {
		return err
	}
	for _, p := range missing {
		err := h.conn.AddGateway(d.Index, p)
		if errors.Is(err, netlink.ErrExists) {
			continue // another process added it meanwhile
		}
		if err != nil {
			return err
		}
		u.Push(func() error { return h.conn.RemoveAddr(d.Index, p) })
	}
	return nil
}

// conflict is an address the bridge has that excludes one it should have.
type conflict struct {
	have netlink.Address
	want netip.Prefix
}

// clearWay removes the addresses that exclude wanted ones, or says why they
// stay. The needs of another attachment exclude nothing. The host's own addresses are
// never removed, nor, unasked, those of a bridge with ports: they may be of a network that
// only another state directory knows.
func (h *Links) clearWay(d, br *netlink.Device, b Bridge, all []conflict, u *netlink.Undo) error {
	if len(all) == 0 {
		return nil
	}
	var have []netip.Prefix
	for _, c := range all {
		have = append(have, c.have.Prefix)
	}
	needed, err := b.needed(have)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(c conflict) bool { return slices.Contains(needed, c.have.Prefix) })
	for _, c := range all {
		forced := b.ForceAddress
		if !forced && b.ours(br) && c.have.Protocol == netlink.ProtoLibnet {
			ports, err := h.conn.Devices(br.Index)
			if err != nil {
				return err
			}
			forced = len(ports) == 0
		}
		if why := c.stays(forced); why != "" {
			return fmt.Errorf("%w: %s already has an IP address different from %s: %s%s",
				ErrAddressConflict, d.Name, c.want, c.have.Prefix, why)
		}
	}
	for _, c := range all {
		if err := h.removeGateway(d.Index, c.have.Prefix, u); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bridge) needed(have []netip.Prefix) ([]netip.Prefix, error) {
	if b.Needed == nil {
		return nil, nil
	}
	return b.Needed(have)
}

// stays says why the address is not removed; "": it is.
func (c conflict) stays(forced bool) string {
	switch {
	case c.have.Protocol != netlink.ProtoLibnet:
		return ", which libnet did not put there and never removes: use another bridge, or remove the address yourself"
	case !forced:
		return ", which libnet put there for another network or configuration: use another bridge, or set forceAddress to replace it"
	}
	return ""
}

// removeGateway removes an address that AddGateway made.
func (h *Links) removeGateway(index int, p netip.Prefix, u *netlink.Undo) error {
	if p.Addr().Is4() { // or the other addresses of the subnet go with the first one
		if err := h.conn.SetLink(index, 0, 0, netlink.SetIPv4(netlink.Setting{Number: netlink.IPv4PromoteSecondaries, Value: 1})); err != nil {
			return fmt.Errorf("promote_secondaries of interface %d: %w", index, err)
		}
	}
	if err := h.conn.RemoveAddr(index, p); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	u.Push(func() error { return h.conn.AddGateway(index, p) })
	return nil
}

// planAddrs says which wanted addresses are missing and which present ones
// exclude one of those. As in the reference bridge plugin a missing IPv4
// address is excluded by any other, an IPv6 one by an overlapping subnet only,
// link-local aside. Unlike there, wanted addresses do not exclude each other.
func planAddrs(have []netlink.Address, want []netip.Prefix) (missing []netip.Prefix, inTheWay []conflict) {
	for _, w := range want {
		if !netlink.Holds(have, w) && !slices.Contains(missing, w) {
			missing = append(missing, w)
		}
	}
	for _, a := range have {
		if slices.Contains(want, a.Prefix) {
			continue
		}
		if i := slices.IndexFunc(missing, func(w netip.Prefix) bool { return excludes(a, w) }); i >= 0 {
			inTheWay = append(inTheWay, conflict{a, missing[i]})
		}
	}
	return missing, inTheWay
}

func excludes(a netlink.Address, w netip.Prefix) bool {
	p := a.Prefix
	if p.IsSingleIP() && a.Protocol == netlink.ProtoLibnet && p.Addr() != w.Addr() { // of a service
		return false
	}
	if p.Addr().Is4() {
		return w.Addr().Is4()
	}
	return !p.Addr().IsLinkLocalUnicast() && p.Overlaps(w)
}

// ensureSubnets makes the routes to subnets whose gateway is none of their own
// addresses; to the others the kernel makes them with the address.
func (h *Links) ensureSubnets(d *netlink.Device, b Bridge, fresh bool, u *netlink.Undo) error {
	for _, s := range b.Subnets {
		if !fresh {
			has, err := hasSubnet(h.conn, d.Index, s)
			if err != nil {
				return err
			}
			if has {
				continue
			}
		}
		if err := addRoute(h.conn, d.Index, Route{Dst: s}); err != nil {
			return err
		}
		u.Push(func() error { return removeRoute(h.conn, d.Index, s) })
	}
	return nil
}

func hasSubnet(c *netlink.Conn, index int, s netip.Prefix) (bool, error) {
	rs, err := c.Routes(netlink.Family(s.Addr()), index, unix.RT_TABLE_MAIN)
	return slices.ContainsFunc(rs, func(r netlink.Route) bool { return r.Dst == s && !r.Gateway.IsValid() }), err
}

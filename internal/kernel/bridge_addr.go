package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// ensureAddrs makes the device, the bridge br itself or its VLAN interface,
// hold the wanted addresses. fresh says it was just made and has none, which
// saves the look.
func (h *Links) ensureAddrs(d, br *device, b Bridge, fresh bool, u *undo) error {
	if len(b.Gateways) == 0 {
		return nil
	}
	var have []address
	if !fresh {
		var err error
		if have, err = h.conn.addrs(d.index, addrFamily(b.Gateways)); err != nil {
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
		err := h.conn.addGateway(d.index, p)
		if errors.Is(err, ErrExists) {
			continue // another process added it meanwhile
		}
		if err != nil {
			return err
		}
		u.push(func() error { return h.conn.removeAddr(d.index, p) })
	}
	return nil
}

// conflict is an address the bridge has that excludes one it should have.
type conflict struct {
	have address
	want netip.Prefix
}

// clearWay removes the addresses that exclude wanted ones, or says why they
// stay. What another attachment needs excludes nothing. The host's own
// addresses are never removed, nor, unasked, those of a bridge with ports: they
// may be of a network that only another state directory knows.
func (h *Links) clearWay(d, br *device, b Bridge, all []conflict, u *undo) error {
	if len(all) == 0 {
		return nil
	}
	var have []netip.Prefix
	for _, c := range all {
		have = append(have, c.have.prefix)
	}
	needed, err := b.needed(have)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(c conflict) bool { return slices.Contains(needed, c.have.prefix) })
	for _, c := range all {
		forced := b.ForceAddress
		if !forced && b.ours(br) && c.have.protocol == protoLibnet {
			ports, err := h.conn.devices(br.index)
			if err != nil {
				return err
			}
			forced = len(ports) == 0
		}
		if why := c.stays(forced); why != "" {
			return fmt.Errorf("%w: %s already has an IP address different from %s: %s%s",
				ErrAddressConflict, d.name, c.want, c.have.prefix, why)
		}
	}
	for _, c := range all {
		if err := h.removeGateway(d.index, c.have.prefix, u); err != nil {
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
	case c.have.protocol != protoLibnet:
		return ", which libnet did not put there and never removes: use another bridge, or remove the address yourself"
	case !forced:
		return ", which libnet put there for another network or configuration: use another bridge, or set forceAddress to replace it"
	}
	return ""
}

// removeGateway removes an address that addGateway made.
func (h *Links) removeGateway(index int, p netip.Prefix, u *undo) error {
	if p.Addr().Is4() { // or the other addresses of the subnet go with the first one
		if err := h.conn.setLink(index, 0, 0, setIPv4(setting{ipv4PromoteSecondaries, 1})); err != nil {
			return fmt.Errorf("promote_secondaries of interface %d: %w", index, err)
		}
	}
	if err := h.conn.removeAddr(index, p); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	u.push(func() error { return h.conn.addGateway(index, p) })
	return nil
}

// planAddrs says which wanted addresses are missing and which present ones
// exclude one of those. As in the reference bridge plugin a missing IPv4
// address is excluded by any other, an IPv6 one by an overlapping subnet only,
// link-local aside. Unlike there, wanted addresses do not exclude each other.
func planAddrs(have []address, want []netip.Prefix) (missing []netip.Prefix, inTheWay []conflict) {
	for _, w := range want {
		if !holds(have, w) && !slices.Contains(missing, w) {
			missing = append(missing, w)
		}
	}
	for _, a := range have {
		if slices.Contains(want, a.prefix) {
			continue
		}
		if i := slices.IndexFunc(missing, func(w netip.Prefix) bool { return excludes(a, w) }); i >= 0 {
			inTheWay = append(inTheWay, conflict{a, missing[i]})
		}
	}
	return missing, inTheWay
}

func excludes(a address, w netip.Prefix) bool {
	p := a.prefix
	if p.Addr().Is4() {
		return w.Addr().Is4()
	}
	return !p.Addr().IsLinkLocalUnicast() && p.Overlaps(w)
}

// ensureSubnets makes the routes to subnets whose gateway is none of their own
// addresses; to the others the kernel makes them with the address.
func (h *Links) ensureSubnets(d *device, b Bridge, fresh bool, u *undo) error {
	for _, s := range b.Subnets {
		if !fresh {
			has, err := hasSubnet(h.conn, d.index, s)
			if err != nil {
				return err
			}
			if has {
				continue
			}
		}
		if err := addRoute(h.conn, d.index, Route{Dst: s}); err != nil {
			return err
		}
		u.push(func() error { return removeRoute(h.conn, d.index, s) })
	}
	return nil
}

func hasSubnet(c *conn, index int, s netip.Prefix) (bool, error) {
	rs, err := c.routes(family(s.Addr()), index, unix.RT_TABLE_MAIN)
	return slices.ContainsFunc(rs, func(r route) bool { return r.dst == s && !r.gateway.IsValid() }), err
}

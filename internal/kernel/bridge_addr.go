package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// ensureAddrs makes the device hold the wanted addresses. fresh says it was
// just made and has none, which saves the look.
func (h *Handle) ensureAddrs(d *device, b Bridge, fresh bool, u *undo) error {
	if len(b.Gateways) == 0 {
		return nil
	}
	var have []address
	if !fresh {
		var err error
		if have, err = h.addrs(d.index, addrFamily(b.Gateways)); err != nil {
			return err
		}
	}
	missing, replace := planAddrs(have, b.Gateways)
	if len(replace) > 0 && !b.ForceAddress {
		return fmt.Errorf("%w: %s already has an IP address different from %s: %s",
			ErrAddressConflict, d.name, replace[0].want, replace[0].have)
	}
	for _, c := range replace {
		p := c.have
		if err := h.removeAddr(d.index, p); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
		u.push(func() error { return h.addAddr(d.index, p, false) })
	}
	for _, p := range missing {
		err := h.addAddr(d.index, p, false)
		if errors.Is(err, ErrExists) {
			continue // another process added it meanwhile
		}
		if err != nil {
			return err
		}
		u.push(func() error { return h.removeAddr(d.index, p) })
	}
	return nil
}

// conflict is an address the bridge has that excludes one it should have.
type conflict struct{ have, want netip.Prefix }

// planAddrs says which wanted addresses are missing and which present ones
// exclude one of those. As in the reference bridge plugin a missing IPv4
// address is excluded by any other, an IPv6 one by an overlapping subnet only,
// link-local aside. Unlike there, wanted addresses do not exclude each other.
func planAddrs(have []address, want []netip.Prefix) (missing []netip.Prefix, replace []conflict) {
	for _, w := range want {
		if !holds(have, w) && !slices.Contains(missing, w) {
			missing = append(missing, w)
		}
	}
	for _, a := range have {
		if slices.Contains(want, a.prefix) {
			continue
		}
		if i := slices.IndexFunc(missing, a.excludes); i >= 0 {
			replace = append(replace, conflict{a.prefix, missing[i]})
		}
	}
	return missing, replace
}

func (a address) excludes(w netip.Prefix) bool {
	p := a.prefix
	if p.Addr().Is4() {
		return w.Addr().Is4()
	}
	return !p.Addr().IsLinkLocalUnicast() && p.Overlaps(w)
}

package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// DropAddrs removes a bridge's addresses that lie in one of within and in none
// of keep, and returns them. A bridge that is missing, or has not the alias,
// has none.
func (h *Handle) DropAddrs(ctx context.Context, name, alias string, within, keep []netip.Prefix) (dropped []netip.Prefix, err error) {
	d, err := h.bridge(name)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotBridge) || err == nil && d.alias != alias {
		return nil, nil
	}
	if err := errors.Join(ctx.Err(), err); err != nil {
		return nil, err
	}
	have, err := h.addrs(d.index, addrFamily(within))
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", name, err)
	}
	var errs []error
	for _, a := range have {
		if !anyContains(within, a.prefix.Addr()) || anyContains(keep, a.prefix.Addr()) {
			continue
		}
		if err := h.removeAddr(d.index, a.prefix); err != nil {
			errs = append(errs, fmt.Errorf("bridge %s: %w", name, err))
			continue
		}
		dropped = append(dropped, a.prefix)
	}
	return dropped, errors.Join(errs...)
}

func anyContains(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

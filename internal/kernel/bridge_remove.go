package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// RemoveBridge removes the bridge and the VLAN interfaces above it. With a
// non-empty alias, one whose alias does not start so is not ours and is left alone,
// which is success. A bridge with other ports is ErrInUse, and nothing
// is removed. Missing is success.
func (h *Links) RemoveBridge(ctx context.Context, name, alias string) error {
	if err := errors.Join(ctx.Err(), checkName("bridge", name)); err != nil {
		return err
	}
	d, err := bridge(h.conn, name)
	notOurs := alias != "" && (errors.Is(err, ErrNotBridge) || err == nil && !strings.HasPrefix(d.alias, alias) && !unfinished(d))
	if notOurs || errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = h.removeBridge(d)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("remove bridge %s: %w", name, err)
	}
	return nil
}

func (h *Links) removeBridge(br *device) error {
	ports, err := h.conn.devices(br.index)
	if err != nil {
		return err
	}
	for _, p := range ports {
		vlan, err := h.isVLANPort(br, p)
		if err != nil {
			return err
		}
		if !vlan {
			return fmt.Errorf("%w: port %s", ErrInUse, p.name)
		}
	}
	for _, p := range ports {
		if err := h.conn.deleteLink(p.index); err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("VLAN interface of port %s: %w", p.name, err)
		}
	}
	return h.conn.deleteLink(br.index)
}

// isVLANPort says that the other end of a port is in this namespace and called
// "<bridge>.<vlan>", as ensureVLANDevice makes it.
func (h *Links) isVLANPort(br, p *device) (bool, error) {
	if p.kind != "veth" || p.peerNS >= 0 || p.peer == 0 {
		return false, nil
	}
	d, err := h.conn.deviceByIndex(p.peer)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return d.peer == p.index && strings.HasPrefix(d.name, br.name+"."), nil
}

// DropAddrs removes a bridge's addresses that lie in one of within and in none
// of keep, and returns them. A bridge that is missing, or has not the alias,
// has none.
func (h *Links) DropAddrs(ctx context.Context, name, alias string, within, keep []netip.Prefix) (dropped []netip.Prefix, err error) {
	d, err := bridge(h.conn, name)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotBridge) || err == nil && d.alias != alias {
		return nil, nil
	}
	if err := errors.Join(ctx.Err(), err); err != nil {
		return nil, err
	}
	have, err := h.conn.addrs(d.index, addrFamily(within))
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", name, err)
	}
	var errs []error
	for _, a := range have {
		if !anyContains(within, a.prefix.Addr()) || anyContains(keep, a.prefix.Addr()) {
			continue
		}
		if err := h.conn.removeAddr(d.index, a.prefix); err != nil {
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

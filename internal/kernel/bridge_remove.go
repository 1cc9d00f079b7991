package kernel

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// RemoveBridge removes the bridge and the VLAN interfaces above it. With a
// non-empty alias, one whose alias does not start so is not ours and is left alone,
// which is success. A bridge with other ports is ErrInUse, and nothing
// is removed. Missing is success.
func (h *Handle) RemoveBridge(ctx context.Context, name, alias string) error {
	if err := errors.Join(ctx.Err(), checkName("bridge", name)); err != nil {
		return err
	}
	d, err := h.bridge(name)
	notOurs := alias != "" && (errors.Is(err, ErrNotBridge) || err == nil && !strings.HasPrefix(d.alias, alias) && !d.unfinished())
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

func (h *Handle) removeBridge(br *device) error {
	ports, err := h.devices(br.index)
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
		if err := h.deleteLink(p.index); err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("VLAN interface of port %s: %w", p.name, err)
		}
	}
	return h.deleteLink(br.index)
}

// isVLANPort says that the other end of a port is in this namespace and called
// "<bridge>.<vlan>", as ensureVLANDevice makes it.
func (h *Handle) isVLANPort(br, p *device) (bool, error) {
	if p.kind != "veth" || p.peerNS >= 0 || p.peer == 0 {
		return false, nil
	}
	d, err := h.deviceByIndex(p.peer)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return d.peer == p.index && strings.HasPrefix(d.name, br.name+"."), nil
}

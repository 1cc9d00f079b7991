package kernel

import (
	"context"
	"errors"
	"fmt"
)

// isTunnel says that a device is ours: it has the alias, or none yet, as when
// whoever made it was killed. The name is derived: nobody else makes one.
func isTunnel(d *device, alias string) bool {
	return d.kind == "vxlan" && (d.alias == alias || d.alias == "")
}

// HasTunnel says whether the device is there; one of another kind or alias is
// not ours, and ErrExists.
func (h *Tunnels) HasTunnel(name, alias string) (bool, error) {
	d, err := h.conn.device(name)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err == nil && !isTunnel(d, alias):
		return false, fmt.Errorf("tunnel %s: %w: a %s link with alias %q", name, ErrExists, d.kind, d.alias)
	}
	return err == nil, err
}

// RemoveTunnel removes the device, and with it its routes and entries. One of
// another kind or alias is not ours and is left alone, which is success, and so
// is a missing one.
func (h *Tunnels) RemoveTunnel(ctx context.Context, name, alias string) error {
	if err := errors.Join(ctx.Err(), checkName("tunnel", name)); err != nil {
		return err
	}
	d, err := h.conn.device(name)
	if err == nil && isTunnel(d, alias) {
		err = h.conn.deleteLink(d.index)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("remove tunnel %s: %w", name, err)
	}
	return nil
}

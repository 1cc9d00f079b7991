package tunnel

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// isTunnel says that a device is ours: it has the alias, or none yet, as when
// its maker was killed. The name is derived: no other program makes one.
func isTunnel(d *netlink.Device, alias string) bool {
	kind := d.Kind == "vxlan"
	if strings.HasPrefix(d.Name, SecurePrefix) {
		kind = isSecure(d)
	}
	return kind && (d.Alias == alias || d.Alias == "")
}

// HasTunnel says whether the device is there; one of another kind or alias is
// not ours, and ErrExists. A device of wireguard-go is not there before a plugin has given it
// its alias: until then it has no key, and leads nowhere.
func (h *Basis) HasTunnel(name, alias string) (bool, error) {
	d, err := h.conn.Device(name)
	switch {
	case errors.Is(err, netlink.ErrNotFound):
		return false, nil
	case err == nil && !isTunnel(d, alias):
		return false, fmt.Errorf("tunnel %s: %w: a %s link with alias %q", name, netlink.ErrExists, d.Kind, d.Alias)
	}
	return err == nil && !isBare(d), err
}

// isBare says that a device is one that wireguard-go has just made.
func isBare(d *netlink.Device) bool { return d.Kind == "tun" && d.Alias == "" }

// RemoveTunnel removes the device, and with it its routes and entries; of WireGuard then the
// unreachable routes, too. One of another kind or alias is not ours and is left alone, which
// is success, and so is a missing one.
func (h *Tunnels) RemoveTunnel(ctx context.Context, name, alias string) error {
	if err := errors.Join(ctx.Err(), netlink.CheckName("tunnel", name)); err != nil {
		return err
	}
	if err := h.removeDevice(name, alias); err != nil {
		return fmt.Errorf("remove tunnel %s: %w", name, err)
	}
	return nil
}

func (h *Tunnels) removeDevice(name, alias string) error {
	d, err := h.conn.Device(name)
	if err == nil && !isTunnel(d, alias) {
		return nil
	}
	if err == nil && !isBare(d) { // else wireguard-go would make it again, and an ADD may need it now
		err = h.conn.DeleteLink(d.Index)
	}
	if err != nil && !errors.Is(err, netlink.ErrNotFound) {
		return err
	}
	return h.removeUnreachable(name)
}

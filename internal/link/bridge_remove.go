package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// RemoveBridge removes the bridge and the VLAN interfaces above it. With a
// non-empty alias, one whose alias does not start so is not ours and is left alone,
// which is success. A bridge with other ports is ErrInUse, and nothing
// is removed. Missing is success.
func (h *Links) RemoveBridge(ctx context.Context, name, alias string) error {
	if err := errors.Join(ctx.Err(), netlink.CheckName("bridge", name)); err != nil {
		return err
	}
	d, err := bridge(h.conn, name)
	notOurs := alias != "" && (errors.Is(err, ErrNotBridge) || err == nil && !strings.HasPrefix(d.Alias, alias) && !unfinished(d))
	if notOurs || errors.Is(err, netlink.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = h.removeBridge(d)
	}
	if err != nil && !errors.Is(err, netlink.ErrNotFound) {
		return fmt.Errorf("remove bridge %s: %w", name, err)
	}
	return nil
}

func (h *Links) removeBridge(br *netlink.Device) error {
	ports, err := h.conn.Devices(br.Index)
	if err != nil {
		return err
	}
	for _, p := range ports {
		vlan, err := h.isVLANPort(br, p)
		if err != nil {
			return err
		}
		if !vlan {
			return fmt.Errorf("%w: port %s", ErrInUse, p.Name)
		}
	}
	for _, p := range ports {
		if err := h.conn.DeleteLink(p.Index); err != nil && !errors.Is(err, netlink.ErrNotFound) {
			return fmt.Errorf("VLAN interface of port %s: %w", p.Name, err)
		}
	}
	return h.conn.DeleteLink(br.Index)
}

// isVLANPort says that the other end of a port is in this namespace and called
// "<bridge>.<vlan>", as ensureVLANDevice makes it.
func (h *Links) isVLANPort(br, p *netlink.Device) (bool, error) {
	if p.Kind != "veth" || p.PeerNS >= 0 || p.Peer == 0 {
		return false, nil
	}
	d, err := h.conn.DeviceByIndex(p.Peer)
	if errors.Is(err, netlink.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return d.Peer == p.Index && strings.HasPrefix(d.Name, br.Name+"."), nil
}

// DropAddrs removes a bridge's addresses that lie in one of within and in none
// of keep, and returns them. A bridge that is missing, or has not the alias,
// has none.
func (h *Links) DropAddrs(ctx context.Context, name, alias string, within, keep []netip.Prefix) (dropped []netip.Prefix, err error) {
	d, err := bridge(h.conn, name)
	if errors.Is(err, netlink.ErrNotFound) || errors.Is(err, ErrNotBridge) || err == nil && d.Alias != alias {
		return nil, nil
	}
	if err := errors.Join(ctx.Err(), err); err != nil {
		return nil, err
	}
	have, err := h.conn.Addrs(d.Index, netlink.AddrFamily(within))
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", name, err)
	}
	var errs []error
	for _, a := range have {
		if !anyContains(within, a.Prefix.Addr()) || anyContains(keep, a.Prefix.Addr()) {
			continue
		}
		if err := h.conn.RemoveAddr(d.Index, a.Prefix); err != nil {
			errs = append(errs, fmt.Errorf("bridge %s: %w", name, err))
			continue
		}
		dropped = append(dropped, a.Prefix)
	}
	return dropped, errors.Join(errs...)
}

// RetireGateways removes addresses that libnet gave to what holds the gateways of a bridge: those
// that are none of b.Gateways, and that b.Needed says no use of. An attachment may come meanwhile:
// it says that it does before it looks for its gateway, so what is needed by then is put back.
func (h *Links) RetireGateways(ctx context.Context, b Bridge) error {
	name := b.Name
	if b.VLAN > 0 {
		name = b.vlanName()
	}
	d, err := h.conn.Device(name)
	if errors.Is(err, netlink.ErrNotFound) {
		return nil
	}
	if err := errors.Join(ctx.Err(), err); err != nil {
		return err
	}
	have, err := h.conn.Addrs(d.Index, unix.AF_UNSPEC)
	var going []netip.Prefix
	for _, a := range have {
		if a.Protocol == netlink.ProtoLibnet && !a.Prefix.IsSingleIP() && !slices.Contains(b.Gateways, a.Prefix) {
			going = append(going, a.Prefix)
		}
	}
	if len(going) == 0 || err != nil {
		return err
	}
	var errs []error
	needed, err := b.needed(going)
	going = slices.DeleteFunc(going, func(p netip.Prefix) bool {
		if err != nil || slices.Contains(needed, p) {
			return true
		}
		errs = append(errs, h.removeGateway(d.Index, p, new(netlink.Undo)))
		return false
	})
	if len(going) == 0 {
		return err
	}
	needed, err = b.needed(going)
	for _, p := range going {
		if err != nil || slices.Contains(needed, p) {
			errs = append(errs, ignoreExists(h.conn.AddGateway(d.Index, p)))
		}
	}
	return errors.Join(append(errs, err)...)
}

func ignoreExists(err error) error {
	if errors.Is(err, netlink.ErrExists) {
		return nil
	}
	return err
}

func anyContains(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

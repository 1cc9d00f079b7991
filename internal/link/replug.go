package link

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Plug makes the host end of an attachment a port of its bridge again, and as
// Attach made it: with a bridge that is deleted its ports stay, without a master.
// It reports false for a host end that is a port already, of this bridge or
// another. Of l the container's end is not looked at. The error wraps ErrNotFound
// if there is no host end, ErrExists if it is another owner's.
func (h *Links) Plug(ctx context.Context, l Link) (plugged bool, err error) {
	if err := errors.Join(ctx.Err(), netlink.CheckName("host interface", l.HostName), netlink.CheckName("bridge", l.Bridge)); err != nil {
		return false, err
	}
	plugged, err = h.replug(l)
	if err != nil {
		return false, fmt.Errorf("plug %s into %s: %w", l.HostName, l.Bridge, err)
	}
	return plugged, nil
}

func (h *Links) replug(l Link) (bool, error) {
	host, err := h.conn.Device(l.HostName)
	if err != nil {
		return false, err
	}
	if host.Kind != "veth" || host.Alias != l.Owner {
		return false, fmt.Errorf("alias %q: %w", host.Alias, netlink.ErrExists)
	}
	if host.Master != 0 {
		return false, nil
	}
	br := l.State.device
	if br == nil {
		if br, err = bridge(h.conn, l.Bridge); err != nil {
			return false, fmt.Errorf("bridge %s: %w", l.Bridge, err)
		}
	}
	// Down until it has its flags: nothing may pass by a port that is to be isolated.
	if err := h.conn.SetLink(host.Index, 0, unix.IFF_UP); err != nil {
		return false, err
	}
	if err := h.conn.SetLink(host.Index, 0, 0, netlink.AttrUint32(unix.IFLA_MASTER, uint32(br.Index))); err != nil {
		return false, err
	}
	_, err = h.plug(br, host, port{
		name: l.HostName, hairpin: l.Hairpin, isolated: l.Isolated,
		vlan: l.VLAN, trunk: l.Trunk, preserve: l.PreserveDefaultVLAN,
	})
	if err != nil {
		return false, errors.Join(err, h.conn.SetLink(host.Index, 0, 0, netlink.AttrUint32(unix.IFLA_MASTER, 0)))
	}
	return true, nil
}

// noMaster asks for links without a master only (Linux 6.1; an earlier kernel
// then lists none).
const noMaster = -1

// Strays returns the veths whose alias starts with prefix and that are ports of
// no bridge. Its cost grows with the number of links without a master, not with
// that of ports. It needs Linux 6.1; before, it finds none.
func (h *Links) Strays(ctx context.Context, prefix string) ([]Owned, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ds, err := h.conn.Devices(noMaster)
	if err != nil {
		return nil, fmt.Errorf("list links without a master: %w", err)
	}
	var all []Owned
	for _, d := range ds {
		if d.Kind == "veth" && d.Master == 0 && strings.HasPrefix(d.Alias, prefix) {
			all = append(all, Owned{Owner: d.Alias, Name: d.Name, Index: d.Index})
		}
	}
	return all, nil
}

// SetHairpin has the bridge send frames back by the port that leads to IfName in
// the namespace at path: where br_netfilter has DNAT done inside the bridge, a
// container reaches itself by a published port of the host that way alone. It is
// no error that there is no such port of a bridge; a promiscuous bridge is left as
// it is, as it would give back everything twice.
func (h *Links) SetHairpin(path, ifName string) error {
	d, err := h.hostEnd(path, ifName)
	if errors.Is(err, netlink.ErrNotFound) || err == nil && (!d.Port || d.Hairpin) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the bridge port of %s: %w", ifName, err)
	}
	br, err := h.conn.DeviceByIndex(d.Master)
	if err == nil && br.Flags&unix.IFF_PROMISC == 0 {
		err = h.conn.SetLink(d.Index, 0, 0, netlink.Nest(unix.IFLA_LINKINFO,
			netlink.Attr(nl.IFLA_INFO_SLAVE_KIND, []byte("bridge")), netlink.Nest(nl.IFLA_INFO_SLAVE_DATA, netlink.AttrBool(nl.IFLA_BRPORT_MODE, true))))
	}
	if err != nil {
		return fmt.Errorf("set hairpin of bridge port %s: %w", d.Name, err)
	}
	return nil
}

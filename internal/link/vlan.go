package link

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// noVLANs says what the kernel lacks when it refuses bridge VLANs.
func noVLANs() error {
	return fmt.Errorf("%w: kernel lacks bridge VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)", netlink.ErrUnsupported)
}

func checkVLAN(id int) error {
	if id < 1 || id > 4094 {
		return fmt.Errorf("VLAN %d is not in 1 to 4094", id)
	}
	return nil
}

func (b *Bridge) vlanName() string { return fmt.Sprintf("%s.%d", b.Name, b.VLAN) }

// filterVLANs turns VLAN filtering on. A kernel without it refuses, an older
// one ignores it, so the bridge is read again.
func (h *Links) filterVLANs(d *netlink.Device, created bool, u *netlink.Undo) error {
	set := func(on bool) error {
		return h.conn.SetLink(d.Index, 0, 0, netlink.Nest(unix.IFLA_LINKINFO,
			netlink.Attr(nl.IFLA_INFO_KIND, []byte("bridge")),
			netlink.Nest(nl.IFLA_INFO_DATA, netlink.AttrBool(nl.IFLA_BR_VLAN_FILTERING, on))))
	}
	if !created {
		err := set(true)
		if errors.Is(err, netlink.ErrUnsupported) {
			return noVLANs()
		}
		if err != nil {
			return fmt.Errorf("set VLAN filtering: %w", err)
		}
		u.Push(func() error { return set(false) })
		again, err := h.conn.DeviceByIndex(d.Index)
		if err != nil {
			return err
		}
		d.VLANFiltering, d.DefaultPVID = again.VLANFiltering, again.DefaultPVID
	}
	if !d.VLANFiltering {
		return noVLANs()
	}
	return nil
}

// ensureVLANDevice finds or makes the interface that holds the gateways of a
// VLAN: a veth of which the other end is a bridge port in that VLAN. It
// reports true when it made it.
func (h *Links) ensureVLANDevice(br *netlink.Device, b Bridge, u *netlink.Undo) (*netlink.Device, bool, error) {
	name := b.vlanName()
	d, err := h.conn.Device(name)
	if err == nil && b.needsIPv6() {
		_, err := h.host.Sysctls.SetIPv6(name, true, host.Sysctl{Key: "disable_ipv6", Value: "0"})
		return d, false, err
	}
	if !errors.Is(err, netlink.ErrNotFound) {
		return d, false, err
	}
	p := pair{
		host: "veth" + hex.EncodeToString(netlink.RandomMAC()[2:]), hostMAC: netlink.RandomMAC(),
		peer: name, peerMAC: netlink.RandomMAC(), peerNS: -1, mtu: br.MTU, master: br.Index,
	}
	end, err := createPair(h.conn, p)
	if err != nil {
		return nil, false, fmt.Errorf("create VLAN interface %s: %w", name, err)
	}
	u.Push(func() error { return h.conn.DeleteLinkByName(p.host) })
	if _, err := h.plug(br, end, port{name: p.host, vlan: b.VLAN, preserve: b.PreserveDefaultVLAN}); err != nil {
		return nil, false, err
	}
	if err := h.host.Sysctls.OwnIPv6(name, b.IPv6, b.needsIPv6()); err != nil {
		return nil, false, err
	}
	if d, err = h.conn.Device(name); err == nil {
		err = h.conn.SetLink(d.Index, unix.IFF_UP, unix.IFF_UP)
	}
	if err != nil {
		return nil, false, fmt.Errorf("set VLAN interface %s up: %w", name, err)
	}
	return d, true, nil
}

// setPortVLANs puts a port into its VLANs as the reference bridge plugin does:
// vlan is the untagged one, trunk are tagged; a trunk without vlan has 1
// untagged. Unless preserve is set, the port leaves the bridge's default VLAN,
// which is all a new port is in.
func setPortVLANs(c *netlink.Conn, br *netlink.Device, index int, p port) error {
	if p.vlan == 0 && len(p.trunk) == 0 {
		return nil
	}
	if !p.preserve && br.DefaultPVID != 0 {
		r := VLANRange{br.DefaultPVID, br.DefaultPVID}
		if err := portVLAN(c, unix.RTM_DELLINK, index, r, 0); err != nil {
			return err
		}
	}
	const access = nl.BRIDGE_VLAN_INFO_PVID | nl.BRIDGE_VLAN_INFO_UNTAGGED
	untagged := uint16(p.vlan)
	if untagged > 0 {
		if err := portVLAN(c, unix.RTM_SETLINK, index, VLANRange{untagged, untagged}, access); err != nil {
			return err
		}
	}
	for _, r := range p.trunk {
		if err := portVLAN(c, unix.RTM_SETLINK, index, r, 0); err != nil {
			return err
		}
	}
	if untagged == 0 {
		return portVLAN(c, unix.RTM_SETLINK, index, VLANRange{1, 1}, access)
	}
	return nil
}

// portVLAN adds (RTM_SETLINK) or removes (RTM_DELLINK) a range of VLANs on a port.
func portVLAN(c *netlink.Conn, typ, index int, r VLANRange, flags uint16) error {
	info := func(id, flags uint16) *nl.RtAttr {
		v := append(nl.Uint16Attr(flags), nl.Uint16Attr(id)...)
		return netlink.Attr(nl.IFLA_BRIDGE_VLAN_INFO, v)
	}
	spec := netlink.Nest(unix.IFLA_AF_SPEC, netlink.Attr(nl.IFLA_BRIDGE_FLAGS, nl.Uint16Attr(nl.BRIDGE_FLAGS_MASTER)))
	if r.Min == r.Max {
		spec.AddChild(info(r.Min, flags))
	} else {
		spec.AddChild(info(r.Min, flags|nl.BRIDGE_VLAN_INFO_RANGE_BEGIN))
		spec.AddChild(info(r.Max, flags|nl.BRIDGE_VLAN_INFO_RANGE_END))
	}
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(index)
	err := c.Change(netlink.Request(typ, 0, msg, spec))
	if errors.Is(err, netlink.ErrUnsupported) {
		return noVLANs()
	}
	if err != nil {
		return fmt.Errorf("VLAN %d-%d on port: %w", r.Min, r.Max, err)
	}
	return nil
}

// verifyVLANs compares the port's VLANs. The kernel has no filter for this
// list, so only attachments that use VLANs pay for it.
func verifyVLANs(c *netlink.Conn, at string, index int, l Link, out *netlink.Diff) {
	if l.VLAN == 0 && len(l.Trunk) == 0 {
		return
	}
	have, err := portVLANs(c, index)
	if err != nil {
		out.Add("%s: %w", at, err)
		return
	}
	untagged := uint16(l.VLAN)
	if untagged == 0 {
		untagged = 1
	}
	const access = nl.BRIDGE_VLAN_INFO_PVID | nl.BRIDGE_VLAN_INFO_UNTAGGED
	if flags, ok := have[untagged]; !ok || flags&access != access {
		out.Add("%s: VLAN %d is not its untagged one", at, untagged)
	}
	for _, r := range l.Trunk {
		for id := int(r.Min); id <= int(r.Max); id++ {
			if _, ok := have[uint16(id)]; !ok {
				out.Add("%s: VLAN %d is missing", at, id)
			}
		}
	}
}

// portVLANs returns the flags of each VLAN the port is in.
func portVLANs(c *netlink.Conn, index int) (map[uint16]uint16, error) {
	msgs, err := c.Dump(func() *nl.NetlinkRequest {
		return netlink.Request(unix.RTM_GETLINK, 0, nl.NewIfInfomsg(unix.AF_BRIDGE), netlink.AttrUint32(unix.IFLA_EXT_MASK, nl.RTEXT_FILTER_BRVLAN))
	}, unix.RTM_NEWLINK)
	if err != nil {
		return nil, fmt.Errorf("list VLANs: %w", err)
	}
	ids := map[uint16]uint16{}
	for _, b := range msgs {
		if len(b) < unix.SizeofIfInfomsg || int(nl.DeserializeIfInfomsg(b).Index) != index {
			continue
		}
		err := netlink.EachAttr(b[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) error {
			if typ != unix.IFLA_AF_SPEC {
				return nil
			}
			return netlink.EachAttr(v, func(typ uint16, v []byte) error {
				if typ == nl.IFLA_BRIDGE_VLAN_INFO && len(v) == nl.SizeofBridgeVlanInfo {
					ids[uint16(netlink.Number(v[2:]))] = uint16(netlink.Number(v[:2]))
				}
				return nil
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

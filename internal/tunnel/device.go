package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// deviceDiff says what of a device is not as wanted and cannot be changed.
func (t *Tunnel) deviceDiff(d *netlink.Device, lower int) netlink.Diff {
	var out netlink.Diff
	at := "tunnel " + t.Name
	if t.Secure != nil {
		if !isSecure(d) {
			out.Add("%s is a %s link, want wireguard, or tun of wireguard-go", at, d.Kind)
		}
		return out
	}
	if d.VXLAN == nil {
		out.Add("%s is a %s link, want vxlan", at, d.Kind)
		return out
	}
	x := *d.VXLAN
	if x.VNI != t.VNI {
		out.Add("%s: VNI is %d, want %d", at, x.VNI, t.VNI)
	}
	if x.Port != t.Port {
		out.Add("%s: UDP port is %d, want %d", at, x.Port, t.Port)
	}
	if x.Local != t.Local {
		out.Add("%s: local address is %s, want %s", at, x.Local, t.Local)
	}
	if x.Lower != lower {
		out.Add("%s: device of the underlay has index %d, want %d (0: any)", at, x.Lower, lower)
	}
	if x.Learning {
		out.Add("%s learns addresses", at)
	}
	if d.MAC.String() != t.MAC.String() {
		out.Add("%s: MAC is %s, want %s", at, d.MAC, t.MAC)
	}
	return out
}

// createVXLAN makes the device, down. It reports false when another process
// made it first.
func (h *Tunnels) createVXLAN(t Tunnel, lower int, u *netlink.Undo) (*netlink.Device, bool, error) {
	local := nl.IFLA_VXLAN_LOCAL
	if t.Local.Is6() {
		local = nl.IFLA_VXLAN_LOCAL6
	}
	data := netlink.Nest(nl.IFLA_INFO_DATA,
		netlink.AttrUint32(nl.IFLA_VXLAN_ID, uint32(t.VNI)),
		netlink.Attr(local, t.Local.AsSlice()),
		netlink.Attr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, t.Port)),
		netlink.AttrBool(nl.IFLA_VXLAN_LEARNING, false))
	if lower != 0 {
		data.AddChild(netlink.AttrUint32(nl.IFLA_VXLAN_LINK, uint32(lower)))
	}
	err := h.conn.Change(netlink.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		nl.NewIfInfomsg(unix.AF_UNSPEC),
		netlink.AttrString(unix.IFLA_IFNAME, t.Name),
		netlink.Attr(unix.IFLA_ADDRESS, t.MAC[:]),
		netlink.Nest(unix.IFLA_LINKINFO, netlink.Attr(nl.IFLA_INFO_KIND, []byte("vxlan")), data)))
	if err != nil && !errors.Is(err, netlink.ErrExists) {
		return nil, false, fmt.Errorf("create: %w", err)
	}
	d, getErr := h.conn.Device(t.Name)
	if err != nil { // by name or by VNI
		if errors.Is(getErr, netlink.ErrNotFound) {
			return nil, false, fmt.Errorf("%w: VNI %d, UDP port %d: %w", ErrVNIInUse, t.VNI, t.Port, err)
		}
		return d, false, getErr
	}
	u.Push(func() error { return h.conn.DeleteLinkByName(t.Name) })
	return d, true, getErr
}

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// deviceDiff says what of a device is not as wanted and cannot be changed.
func (t *Tunnel) deviceDiff(d *device, lower int) diff {
	var out diff
	at := "tunnel " + t.Name
	if d.vxlan == nil {
		out.add("%s is a %s link, want vxlan", at, d.kind)
		return out
	}
	x := *d.vxlan
	if x.vni != t.VNI {
		out.add("%s: VNI is %d, want %d", at, x.vni, t.VNI)
	}
	if x.port != t.Port {
		out.add("%s: UDP port is %d, want %d", at, x.port, t.Port)
	}
	if x.local != t.Local {
		out.add("%s: local address is %s, want %s", at, x.local, t.Local)
	}
	if x.lower != lower {
		out.add("%s: device underneath has index %d, want %d (0: any)", at, x.lower, lower)
	}
	if x.learning {
		out.add("%s learns addresses", at)
	}
	if d.mac.String() != t.MAC.String() {
		out.add("%s: MAC is %s, want %s", at, d.mac, t.MAC)
	}
	return out
}

// createVXLAN makes the device, down. It reports false when another process
// made it first.
func (h *Tunnels) createVXLAN(t Tunnel, lower int, u *undo) (*device, bool, error) {
	local := nl.IFLA_VXLAN_LOCAL
	if t.Local.Is6() {
		local = nl.IFLA_VXLAN_LOCAL6
	}
	data := nest(nl.IFLA_INFO_DATA,
		attrUint32(nl.IFLA_VXLAN_ID, uint32(t.VNI)),
		attr(local, t.Local.AsSlice()),
		attr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, t.Port)),
		attrBool(nl.IFLA_VXLAN_LEARNING, false))
	if lower != 0 {
		data.AddChild(attrUint32(nl.IFLA_VXLAN_LINK, uint32(lower)))
	}
	err := h.conn.change(request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		nl.NewIfInfomsg(unix.AF_UNSPEC),
		attrString(unix.IFLA_IFNAME, t.Name),
		attr(unix.IFLA_ADDRESS, t.MAC[:]),
		nest(unix.IFLA_LINKINFO, attr(nl.IFLA_INFO_KIND, []byte("vxlan")), data)))
	if err != nil && !errors.Is(err, ErrExists) {
		return nil, false, fmt.Errorf("create: %w", err)
	}
	d, getErr := h.conn.device(t.Name)
	if err != nil { // by name or by VNI
		if errors.Is(getErr, ErrNotFound) {
			return nil, false, fmt.Errorf("%w: VNI %d, UDP port %d: %w", ErrVNIInUse, t.VNI, t.Port, err)
		}
		return d, false, getErr
	}
	u.push(func() error { return h.conn.deleteLinkByName(t.Name) })
	return d, true, getErr
}

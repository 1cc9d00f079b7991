package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// vxlan is what we read of a VXLAN device.
type vxlan struct {
	vni, lower int
	port       uint16
	local      netip.Addr
	learning   bool
	// apart: it shares its UDP port only with devices that receive in the same
	// way, not with a plain one.
	apart bool
}

// vxlanGPE is IFLA_VXLAN_GPE of linux/if_link.h, which netlink lacks.
const vxlanGPE = 27

func parseVXLAN(data []byte) (*vxlan, error) {
	x := &vxlan{}
	err := eachAttr(data, func(typ uint16, v []byte) error {
		switch typ {
		case nl.IFLA_VXLAN_ID:
			x.vni = number(v)
		case nl.IFLA_VXLAN_LINK:
			x.lower = number(v)
		case nl.IFLA_VXLAN_PORT:
			x.port = binary.BigEndian.Uint16(v)
		case nl.IFLA_VXLAN_LOCAL, nl.IFLA_VXLAN_LOCAL6:
			x.local, _ = netip.AddrFromSlice(v)
		case nl.IFLA_VXLAN_LEARNING:
			x.learning = v[0] != 0
		case nl.IFLA_VXLAN_FLOWBASED, nl.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, nl.IFLA_VXLAN_REMCSUM_RX: // flags
			x.apart = x.apart || v[0] != 0
		case nl.IFLA_VXLAN_GBP, vxlanGPE: // there or not
			x.apart = true
		}
		return nil
	})
	return x, err
}

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
func (h *Handle) createVXLAN(t Tunnel, lower int, u *undo) (*device, bool, error) {
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
	err := h.change(request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		nl.NewIfInfomsg(unix.AF_UNSPEC),
		attrString(unix.IFLA_IFNAME, t.Name),
		attr(unix.IFLA_ADDRESS, t.MAC[:]),
		nest(unix.IFLA_LINKINFO, attr(nl.IFLA_INFO_KIND, []byte("vxlan")), data)))
	if err != nil && !errors.Is(err, ErrExists) {
		return nil, false, fmt.Errorf("create: %w", err)
	}
	d, getErr := h.device(t.Name)
	if err != nil { // by name or by VNI
		if errors.Is(getErr, ErrNotFound) {
			return nil, false, fmt.Errorf("%w: VNI %d, UDP port %d: %w", ErrVNIInUse, t.VNI, t.Port, err)
		}
		return d, false, getErr
	}
	u.push(func() error { return h.deleteLinkByName(t.Name) })
	return d, true, getErr
}

// localAddrs returns the host's addresses of a family and where they are.
func (c *conn) localAddrs(fam int) (map[netip.Addr]int, error) {
	msgs, err := c.dump(func() *nl.NetlinkRequest {
		return request(unix.RTM_GETADDR, 0, nl.NewIfAddrmsg(fam))
	}, unix.RTM_NEWADDR)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	all := make(map[netip.Addr]int, len(msgs))
	for _, b := range msgs {
		a, index, err := parseAddr(b)
		if err != nil {
			return nil, err
		}
		all[a.prefix.Addr()] = index
	}
	return all, nil
}

// LocalAddrs says which of some addresses are the host's: those of the calling thread's network namespace.
func LocalAddrs(of []netip.Addr) ([]netip.Addr, error) {
	if len(of) == 0 {
		return nil, nil
	}
	c, err := openConnOver(newRooms(localSize))
	if err != nil {
		return nil, err
	}
	defer c.close()
	fam := family(of[0])
	if slices.ContainsFunc(of, func(a netip.Addr) bool { return family(a) != fam }) {
		fam = unix.AF_UNSPEC
	}
	own, err := c.localAddrs(fam)
	var all []netip.Addr
	for _, a := range of {
		if _, ok := own[a]; ok {
			all = append(all, a)
		}
	}
	return all, err
}

// localSize holds what the kernel sends at once to a socket that has received
// nothing yet (NLMSG_GOODSIZE).
const localSize = 8 << 10

// IsLocal says whether an address is the host's: of the calling thread's
// network namespace. It asks by binding a socket, which is much cheaper than
// LocalAddrs; an address that duplicate address detection is not done with is
// none yet.
func IsLocal(a netip.Addr) bool {
	fd, err := unix.Socket(family(a), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // it is not known
	}
	defer func() { _ = unix.Close(fd) }()
	return !errors.Is(unix.Bind(fd, sockaddr(a, 0)), unix.EADDRNOTAVAIL)
}

func sockaddr(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
}

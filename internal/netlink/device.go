package netlink

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// skipStats is RTEXT_FILTER_SKIP_STATS (kernel 4.4): counters are summed over
// all CPUs and cost more than all the rest of the answer.
const skipStats = 1 << 3

// LoIndex is the index of lo, the first link of every namespace.
const LoIndex = 1

const (
	OperUp         = 6 // IF_OPER_UP (RFC 2863)
	PortDisabled   = 0 // BR_STATE_DISABLED (linux/if_bridge.h)
	PortForwarding = 3 // BR_STATE_FORWARDING
)

// Device is what we read of a link.
type Device struct {
	Index, MTU, Master int
	Name, Alias, Kind  string
	Group              int
	Flags              uint32
	MAC                net.HardwareAddr
	Oper               byte
	Peer, PeerNS       int // of a veth: the other end's index, its nsid or -1
	V4                 IPv4Conf
	V6                 IPv6State
	// as a bridge
	IDMAC         net.HardwareAddr // of its bridge ID: zero before the first port
	VLANFiltering bool
	DefaultPVID   uint16
	VXLAN         *VXLAN // as a VXLAN device; else nil
	// as a bridge port
	Port              bool
	PortState         byte
	Hairpin, Isolated bool
}

// Up says that the link is set up, whether or not it has a carrier.
func (d *Device) Up() bool { return d.Flags&unix.IFF_UP != 0 }

// Device reads the link called name; the error wraps ErrNotFound.
func (c *Conn) Device(name string) (*Device, error) {
	return c.ReadDevice(nl.NewIfInfomsg(unix.AF_UNSPEC), AttrString(unix.IFLA_IFNAME, name))
}

// DeviceByIndex reads the link of that index; the error wraps ErrNotFound.
func (c *Conn) DeviceByIndex(index int) (*Device, error) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return c.ReadDevice(msg)
}

// ReadDevice reads the link that a message and attributes name; the error wraps
// ErrNotFound.
func (c *Conn) ReadDevice(data ...nl.NetlinkRequestData) (*Device, error) {
	req := Request(unix.RTM_GETLINK, 0, append(data, AttrUint32(unix.IFLA_EXT_MASK, skipStats))...)
	b, err := c.Get(req, unix.RTM_NEWLINK)
	if err != nil {
		return nil, err
	}
	return ParseDevice(b)
}

// Devices lists the links; with a master above 0 only its ports, with noMaster
// those that have none.
func (c *Conn) Devices(master int) ([]*Device, error) {
	var filter nl.NetlinkRequestData
	if master != 0 {
		filter = AttrUint32(unix.IFLA_MASTER, uint32(int32(master)))
	}
	return c.devices(filter, func(d *Device) bool { return master <= 0 || d.Master == master })
}

// DevicesOf lists the links of a kind, as "bridge".
func (c *Conn) DevicesOf(kind string) ([]*Device, error) {
	return c.devices(Nest(unix.IFLA_LINKINFO, AttrString(nl.IFLA_INFO_KIND, kind)), func(d *Device) bool { return d.Kind == kind })
}

// devices lists the links that the kernel finds by filter, nil for all, and is lets
// through, as some kernels take no filter.
func (c *Conn) devices(filter nl.NetlinkRequestData, is func(*Device) bool) ([]*Device, error) {
	msgs, err := c.Dump(func() *nl.NetlinkRequest {
		req := Request(unix.RTM_GETLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), AttrUint32(unix.IFLA_EXT_MASK, skipStats))
		if filter != nil {
			req.AddData(filter)
		}
		return req
	}, unix.RTM_NEWLINK)
	if err != nil {
		return nil, err
	}
	var ds []*Device
	for _, b := range msgs {
		d, err := ParseDevice(b)
		if err != nil {
			return nil, err
		}
		if is(d) {
			ds = append(ds, d)
		}
	}
	return ds, nil
}

// ParseDevice reads a RTM_NEWLINK or RTM_DELLINK.
func ParseDevice(b []byte) (*Device, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return nil, ErrShort
	}
	msg := nl.DeserializeIfInfomsg(b)
	d := &Device{Index: int(msg.Index), Flags: msg.Flags, PeerNS: -1}
	err := EachAttr(b[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) error {
		switch typ {
		case unix.IFLA_IFNAME:
			d.Name = Text(v)
		case unix.IFLA_IFALIAS:
			d.Alias = Text(v)
		case unix.IFLA_MTU:
			d.MTU = Number(v)
		case unix.IFLA_GROUP:
			d.Group = Number(v)
		case unix.IFLA_MASTER:
			d.Master = Number(v)
		case unix.IFLA_ADDRESS:
			d.MAC = bytes.Clone(v)
		case unix.IFLA_OPERSTATE:
			d.Oper = v[0]
		case unix.IFLA_LINK:
			d.Peer = Number(v)
		case unix.IFLA_LINK_NETNSID:
			d.PeerNS = Number(v)
		case unix.IFLA_LINKINFO:
			return d.parseInfo(v)
		case unix.IFLA_AF_SPEC:
			if msg.Family == unix.AF_UNSPEC { // a bridge's event has its VLANs there
				return d.parseSettings(v)
			}
		}
		return nil
	})
	return d, err
}

func (d *Device) parseInfo(b []byte) error {
	var data, slave []byte
	var slaveKind string
	err := EachAttr(b, func(typ uint16, v []byte) error {
		switch typ {
		case nl.IFLA_INFO_KIND:
			d.Kind = Text(v)
		case nl.IFLA_INFO_DATA:
			data = v
		case nl.IFLA_INFO_SLAVE_KIND:
			slaveKind = Text(v)
		case nl.IFLA_INFO_SLAVE_DATA:
			slave = v
		}
		return nil
	})
	if err == nil && d.Kind == "bridge" {
		err = EachAttr(data, func(typ uint16, v []byte) error {
			switch typ {
			case nl.IFLA_BR_VLAN_FILTERING:
				d.VLANFiltering = v[0] != 0
			case nl.IFLA_BR_BRIDGE_ID: // priority and MAC
				d.IDMAC = bytes.Clone(v[min(2, len(v)):])
			case nl.IFLA_BR_VLAN_DEFAULT_PVID:
				d.DefaultPVID = uint16(Number(v))
			}
			return nil
		})
	}
	if err == nil && d.Kind == "vxlan" {
		d.VXLAN, err = parseVXLAN(data)
	}
	if err == nil && slaveKind == "bridge" {
		d.Port = true
		err = EachAttr(slave, func(typ uint16, v []byte) error {
			switch typ {
			case nl.IFLA_BRPORT_STATE:
				d.PortState = v[0]
			case nl.IFLA_BRPORT_MODE:
				d.Hairpin = v[0] != 0
			case nl.IFLA_BRPORT_ISOLATED:
				d.Isolated = v[0] != 0
			}
			return nil
		})
	}
	return err
}

// SetLink changes an existing link: the flags in mask become those in set, and
// attrs apply. The kernel does IFLA_AF_SPEC after the flags, all else before.
func (c *Conn) SetLink(index int, set, mask uint32, attrs ...*nl.RtAttr) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = int32(index), set, mask
	req := Request(unix.RTM_NEWLINK, 0, msg)
	for _, a := range attrs {
		req.AddData(a)
	}
	return c.Change(req)
}

// DeleteLinkByName removes the link called name; it is for the undo of a
// creation, after which no other program can have taken the name.
func (c *Conn) DeleteLinkByName(name string) error {
	return c.Change(Request(unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), AttrString(unix.IFLA_IFNAME, name)))
}

// DeleteGroup removes all links of a group, and waits until the kernel has let go of them.
// ErrNotFound: there is none.
func (c *Conn) DeleteGroup(group uint32) error {
	return c.Change(Request(unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), AttrUint32(unix.IFLA_GROUP, group)))
}

// RandomMAC makes a locally administered unicast address. Every link gets its
// MAC in the creating message: then neither the bridge nor udev changes it.
func RandomMAC() net.HardwareAddr {
	b := binary.NativeEndian.AppendUint64(nil, rand.Uint64())
	b[0] = b[0]&^1 | 2
	return net.HardwareAddr(b[:6])
}

// CheckName refuses what the kernel would refuse or read as something else.
func CheckName(what, name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\x00") {
		return fmt.Errorf("%s name %q is not an interface name of 1 to %d bytes", what, name, unix.IFNAMSIZ-1)
	}
	return nil
}

package kernel

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

// loIndex is the index of lo, the first link of every namespace.
const loIndex = 1

const (
	operUp         = 6 // IF_OPER_UP (RFC 2863)
	portDisabled   = 0 // BR_STATE_DISABLED (linux/if_bridge.h)
	portForwarding = 3 // BR_STATE_FORWARDING
)

// device is what we read of a link.
type device struct {
	index, mtu, master int
	name, alias, kind  string
	group              int
	flags              uint32
	mac                net.HardwareAddr
	oper               byte
	peer, peerNS       int // of a veth: the other end's index, its nsid or -1
	v4                 ipv4Conf
	v6                 ipv6State
	// as a bridge
	idMAC         net.HardwareAddr // of its bridge ID: zero before the first port
	vlanFiltering bool
	defaultPVID   uint16
	vxlan         *vxlan // as a VXLAN device; else nil
	// as a bridge port
	port              bool
	portState         byte
	hairpin, isolated bool
}

func (d *device) up() bool { return d.flags&unix.IFF_UP != 0 }

// device reads the link called name; the error wraps ErrNotFound.
func (c *conn) device(name string) (*device, error) {
	return c.readDevice(nl.NewIfInfomsg(unix.AF_UNSPEC), attrString(unix.IFLA_IFNAME, name))
}

func (c *conn) deviceByIndex(index int) (*device, error) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return c.readDevice(msg)
}

func (c *conn) readDevice(data ...nl.NetlinkRequestData) (*device, error) {
	req := request(unix.RTM_GETLINK, 0, append(data, attrUint32(unix.IFLA_EXT_MASK, skipStats))...)
	b, err := c.get(req, unix.RTM_NEWLINK)
	if err != nil {
		return nil, err
	}
	return parseDevice(b)
}

// devices lists the links; with a master above 0 only its ports, with noMaster
// those that have none.
func (c *conn) devices(master int) ([]*device, error) {
	msgs, err := c.dump(func() *nl.NetlinkRequest {
		req := request(unix.RTM_GETLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), attrUint32(unix.IFLA_EXT_MASK, skipStats))
		if master != 0 {
			req.AddData(attrUint32(unix.IFLA_MASTER, uint32(int32(master))))
		}
		return req
	}, unix.RTM_NEWLINK)
	if err != nil {
		return nil, err
	}
	var ds []*device
	for _, b := range msgs {
		d, err := parseDevice(b)
		if err != nil {
			return nil, err
		}
		if master <= 0 || d.master == master {
			ds = append(ds, d)
		}
	}
	return ds, nil
}

func parseDevice(b []byte) (*device, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return nil, errShort
	}
	msg := nl.DeserializeIfInfomsg(b)
	d := &device{index: int(msg.Index), flags: msg.Flags, peerNS: -1}
	err := eachAttr(b[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) error {
		switch typ {
		case unix.IFLA_IFNAME:
			d.name = text(v)
		case unix.IFLA_IFALIAS:
			d.alias = text(v)
		case unix.IFLA_MTU:
			d.mtu = number(v)
		case unix.IFLA_GROUP:
			d.group = number(v)
		case unix.IFLA_MASTER:
			d.master = number(v)
		case unix.IFLA_ADDRESS:
			d.mac = bytes.Clone(v)
		case unix.IFLA_OPERSTATE:
			d.oper = v[0]
		case unix.IFLA_LINK:
			d.peer = number(v)
		case unix.IFLA_LINK_NETNSID:
			d.peerNS = number(v)
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

func (d *device) parseInfo(b []byte) error {
	var data, slave []byte
	var slaveKind string
	err := eachAttr(b, func(typ uint16, v []byte) error {
		switch typ {
		case nl.IFLA_INFO_KIND:
			d.kind = text(v)
		case nl.IFLA_INFO_DATA:
			data = v
		case nl.IFLA_INFO_SLAVE_KIND:
			slaveKind = text(v)
		case nl.IFLA_INFO_SLAVE_DATA:
			slave = v
		}
		return nil
	})
	if err == nil && d.kind == "bridge" {
		err = eachAttr(data, func(typ uint16, v []byte) error {
			switch typ {
			case nl.IFLA_BR_VLAN_FILTERING:
				d.vlanFiltering = v[0] != 0
			case nl.IFLA_BR_BRIDGE_ID: // priority and MAC
				d.idMAC = bytes.Clone(v[min(2, len(v)):])
			case nl.IFLA_BR_VLAN_DEFAULT_PVID:
				d.defaultPVID = uint16(number(v))
			}
			return nil
		})
	}
	if err == nil && d.kind == "vxlan" {
		d.vxlan, err = parseVXLAN(data)
	}
	if err == nil && slaveKind == "bridge" {
		d.port = true
		err = eachAttr(slave, func(typ uint16, v []byte) error {
			switch typ {
			case nl.IFLA_BRPORT_STATE:
				d.portState = v[0]
			case nl.IFLA_BRPORT_MODE:
				d.hairpin = v[0] != 0
			case nl.IFLA_BRPORT_ISOLATED:
				d.isolated = v[0] != 0
			}
			return nil
		})
	}
	return err
}

// setLink changes an existing link: the flags in mask become those in set, and
// attrs apply. The kernel does IFLA_AF_SPEC after the flags, all else before.
func (c *conn) setLink(index int, set, mask uint32, attrs ...*nl.RtAttr) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = int32(index), set, mask
	req := request(unix.RTM_NEWLINK, 0, msg)
	for _, a := range attrs {
		req.AddData(a)
	}
	return c.change(req)
}

func (c *conn) deleteLink(index int) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return c.change(request(unix.RTM_DELLINK, 0, msg))
}

// deleteLinkByName removes the link called name; it is for the undo of a
// creation, after which nobody else can have taken the name.
func (c *conn) deleteLinkByName(name string) error {
	return c.change(request(unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), attrString(unix.IFLA_IFNAME, name)))
}

// randomMAC makes a locally administered unicast address. Every link gets its
// MAC in the creating message: then neither the bridge nor udev changes it.
func randomMAC() net.HardwareAddr {
	b := binary.NativeEndian.AppendUint64(nil, rand.Uint64())
	b[0] = b[0]&^1 | 2
	return net.HardwareAddr(b[:6])
}

// checkName refuses what the kernel would refuse or read as something else.
func checkName(what, name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\x00") {
		return fmt.Errorf("%s name %q is not an interface name of 1 to %d bytes", what, name, unix.IFNAMSIZ-1)
	}
	return nil
}

package netlink

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
)

// VXLAN is what we read of a VXLAN device.
type VXLAN struct {
	VNI, Lower int
	Port       uint16
	Local      netip.Addr
	Learning   bool
	// apart: it shares its UDP port only with devices that receive in the same
	// way, not with a plain one.
	Apart bool
}

// vxlanGPE is IFLA_VXLAN_GPE of linux/if_link.h, which netlink lacks.
const vxlanGPE = 27

func parseVXLAN(data []byte) (*VXLAN, error) {
	x := &VXLAN{}
	err := EachAttr(data, func(typ uint16, v []byte) error {
		switch typ {
		case nl.IFLA_VXLAN_ID:
			x.VNI = Number(v)
		case nl.IFLA_VXLAN_LINK:
			x.Lower = Number(v)
		case nl.IFLA_VXLAN_PORT:
			x.Port = binary.BigEndian.Uint16(v)
		case nl.IFLA_VXLAN_LOCAL, nl.IFLA_VXLAN_LOCAL6:
			x.Local, _ = netip.AddrFromSlice(v)
		case nl.IFLA_VXLAN_LEARNING:
			x.Learning = v[0] != 0
		case nl.IFLA_VXLAN_FLOWBASED, nl.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, nl.IFLA_VXLAN_REMCSUM_RX: // flags
			x.Apart = x.Apart || v[0] != 0
		case nl.IFLA_VXLAN_GBP, vxlanGPE: // there or not
			x.Apart = true
		}
		return nil
	})
	return x, err
}

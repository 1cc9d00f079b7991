package kernel

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
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

package netlink

import (
	"encoding/binary"
)

// Ndmsg is struct ndmsg of linux/neighbour.h.
type Ndmsg struct {
	Family uint8
	Index  int
	State  uint16
	Flags  uint8
}

// Len is for nl.NetlinkRequestData.
func (m Ndmsg) Len() int { return NdmsgSize }

// Serialize is for nl.NetlinkRequestData.
func (m Ndmsg) Serialize() []byte {
	b := make([]byte, NdmsgSize)
	b[0], b[10] = m.Family, m.Flags
	binary.NativeEndian.PutUint32(b[4:], uint32(m.Index))
	binary.NativeEndian.PutUint16(b[8:], m.State)
	return b
}

const NdmsgSize = 12

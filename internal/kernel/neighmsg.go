package kernel

import (
	"encoding/binary"
)

// ndmsg is struct ndmsg of linux/neighbour.h.
type ndmsg struct {
	family uint8
	index  int
	state  uint16
	flags  uint8
}

// Len is for nl.NetlinkRequestData.
func (m ndmsg) Len() int { return ndmsgSize }

// Serialize is for nl.NetlinkRequestData.
func (m ndmsg) Serialize() []byte {
	b := make([]byte, ndmsgSize)
	b[0], b[10] = m.family, m.flags
	binary.NativeEndian.PutUint32(b[4:], uint32(m.index))
	binary.NativeEndian.PutUint16(b[8:], m.state)
	return b
}

const ndmsgSize = 12

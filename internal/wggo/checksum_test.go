package wggo

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// Of all packets that differ in two bytes, one has a checksum of 0, and gets all ones.
func TestMendSum(t *testing.T) {
	t.Parallel()
	mended := 0
	for x := range 1 << 16 {
		p := make([]byte, ipv6Header+udpHeader+3)
		p[0], p[ipv6Next], p[ipv6Addrs], p[len(p)-1] = 0x60, 17, 0xfd, 7
		p[ipv6Header+5] = udpHeader + 3
		binary.BigEndian.PutUint16(p[ipv6Header+udpHeader:], uint16(x))
		before := bytes.Clone(p)
		if mendSum(p); bytes.Equal(p, before) {
			continue
		}
		mended++
		if got := binary.BigEndian.Uint16(p[ipv6Header+udpSum:]); got != 0xffff {
			t.Errorf("checksum is %#x", got)
		}
	}
	if mended != 1 {
		t.Errorf("%d packets are mended, want 1", mended)
	}
	for _, short := range [][]byte{nil, {0x60}, make([]byte, ipv6Header+udpHeader-1)} {
		mendSum(short)
	}
}

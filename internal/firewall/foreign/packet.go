package foreign

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// passer is what is known of all packets that come from a bridge, or go to it.
type passer struct {
	name   string
	index  uint32
	from   bool         // the bridge is where they come from
	subnet netip.Prefix // of the bridge's side
}

// passers returns the packets of an interface, by its addresses; those of a missing
// interface have no more than its name.
func passers(name string) []passer {
	all := []passer{}
	var addrs []net.Addr
	index := uint32(0)
	if i, err := net.InterfaceByName(name); err == nil {
		index = uint32(i.Index)
		addrs, _ = i.Addrs()
	}
	subnets := []netip.Prefix{{}}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			subnets = append(subnets, p.Masked())
		}
	}
	for _, s := range subnets {
		all = append(all, passer{name, index, true, s}, passer{name, index, false, s})
	}
	return all
}

// value returns the bytes that a field of all the packets has, and how many bits of
// them are known; 0: none.
func (p passer) value(field string) ([]byte, int) {
	switch field {
	case "iifname", "oifname":
		if p.from == (field == "iifname") {
			return append([]byte(p.name), make([]byte, unix.IFNAMSIZ-len(p.name))...), unix.IFNAMSIZ * 8
		}
	case "iif", "oif":
		if p.from == (field == "iif") && p.index != 0 {
			return binary.NativeEndian.AppendUint32(nil, p.index), 32
		}
	case "saddr4", "daddr4", "saddr6", "daddr6":
		if p.subnet.IsValid() && p.from == (field[0] == 's') && p.subnet.Addr().Is4() == (field[5] == '4') {
			return p.subnet.Addr().AsSlice(), p.subnet.Bits()
		}
	case "nfproto":
		switch {
		case !p.subnet.IsValid():
		case p.subnet.Addr().Is4():
			return []byte{unix.NFPROTO_IPV4}, 8
		default:
			return []byte{unix.NFPROTO_IPV6}, 8
		}
	}
	return nil, 0
}

// span returns the smallest and the largest value that the field of these packets has;
// nil: it is not known.
func (p passer) span(field string) (first, last []byte) {
	have, known := p.value(field)
	if known == 0 {
		return nil, nil
	}
	first, last = bytes.Clone(have), bytes.Clone(have)
	for i := known; i < len(have)*8; i++ {
		first[i/8] &^= 0x80 >> (i % 8)
		last[i/8] |= 0x80 >> (i % 8)
	}
	return first, last
}

// equal says that the field of all packets begins with want, as far as mask goes.
func (p passer) equal(field string, want []byte, mask int) bool {
	have, known := p.value(field)
	bits := len(want) * 8
	if mask > 0 {
		bits = min(bits, mask)
	}
	if known == 0 || bits > known || len(want) > len(have) {
		return false
	}
	for i := range bits {
		if (have[i/8]^want[i/8])&(0x80>>(i%8)) != 0 {
			return false
		}
	}
	return bits > 0
}

// apart says that no packet's field begins with want, as far as mask goes.
func (p passer) apart(field string, want []byte, mask int) bool {
	have, known := p.value(field)
	bits := min(len(want), len(have)) * 8
	if mask > 0 {
		bits = min(bits, mask)
	}
	for i := range min(bits, known) {
		if (have[i/8]^want[i/8])&(0x80>>(i%8)) != 0 {
			return true
		}
	}
	return false
}

func metaField(data []byte) string {
	if nfnl.Find(data, unix.NFTA_META_DREG) == nil {
		return ""
	}
	return map[uint32]string{
		unix.NFT_META_IIF: "iif", unix.NFT_META_OIF: "oif", unix.NFT_META_IIFNAME: "iifname", unix.NFT_META_OIFNAME: "oifname",
		unix.NFT_META_NFPROTO: "nfproto",
	}[nfnl.Uint32(nfnl.Find(data, unix.NFTA_META_KEY))]
}

// payloadField names an address, of which the first bytes may be all that is loaded.
func payloadField(data []byte) string {
	size := nfnl.Uint32(nfnl.Find(data, unix.NFTA_PAYLOAD_LEN))
	if nfnl.Uint32(nfnl.Find(data, unix.NFTA_PAYLOAD_BASE)) != unix.NFT_PAYLOAD_NETWORK_HEADER {
		return ""
	}
	switch at := nfnl.Uint32(nfnl.Find(data, unix.NFTA_PAYLOAD_OFFSET)); {
	case at == 12 && size <= 4:
		return "saddr4"
	case at == 16 && size <= 4:
		return "daddr4"
	case at == 8 && size <= 16 && size != 1:
		return "saddr6"
	case at == 24 && size <= 16:
		return "daddr6"
	}
	return ""
}

// maskBits is the length of a netmask.
func maskBits(mask []byte) int {
	ones, _ := net.IPMask(mask).Size()
	return ones
}

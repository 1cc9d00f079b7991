package firewall

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Data types as nft numbers them (datatype.h of nftables), so that it can list
// our sets, and how many bits of a concatenated type each takes.
const (
	typeNFProto = 2
	typeIPv4    = 7
	typeIPv6    = 8
	typeEther   = 9
	typeInet    = 12 // inet_proto
	typeService = 13 // inet_service
	typeIfname  = 41
	typeVerdict = unix.NFT_DATA_VERDICT

	typeBits = 6
)

// field is a part of a packet that sets are keyed by, or of what maps give.
type field struct {
	datatype uint32
	size     uint32
	from     place
	at       uint32 // offset, or which of what nf_tables knows of the packet
}

// place is where a field is.
type place uint8

const (
	nowhere place = iota
	inMeta
	inLink
	inNetwork
	inTransport
)

// The fields our sets use.
var (
	saddr4      = field{typeIPv4, 4, inNetwork, 12}
	daddr4      = field{typeIPv4, 4, inNetwork, 16}
	saddr6      = field{typeIPv6, 16, inNetwork, 8}
	daddr6      = field{typeIPv6, 16, inNetwork, 24}
	etherSource = field{typeEther, 6, inLink, 6}
	dport       = field{typeService, 2, inTransport, 2}
	protocol    = field{typeInet, 1, inMeta, unix.NFT_META_L4PROTO}
	nfproto     = field{typeNFProto, 1, inMeta, unix.NFT_META_NFPROTO}
	iifname     = field{typeIfname, unix.IFNAMSIZ, inMeta, unix.NFT_META_IIFNAME}
	oifname     = field{typeIfname, unix.IFNAMSIZ, inMeta, unix.NFT_META_OIFNAME}
	// verdictField is what a map to chains gives: an element's data is the name
	// of the chain to go to.
	verdictField = field{typeVerdict, 0, nowhere, 0}
)

// load returns what loads the field into registers from reg on.
func (f field) load(reg uint32) expr {
	switch f.from {
	case inLink:
		return payload(unix.NFT_PAYLOAD_LL_HEADER, f.at, f.size, reg)
	case inNetwork:
		return payload(unix.NFT_PAYLOAD_NETWORK_HEADER, f.at, f.size, reg)
	case inTransport:
		return payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, f.at, f.size, reg)
	}
	return meta(f.at, reg)
}

// padded is the size the field takes in a key: registers have four bytes.
func (f field) padded() uint32 { return (f.size + 3) &^ 3 }

// format returns b, the field's bytes in a key, in the words of nft.
func (f field) format(b []byte) string {
	switch f.datatype {
	case typeIfname:
		return string(bytes.TrimRight(b, "\x00"))
	case typeEther:
		return net.HardwareAddr(b).String()
	case typeService:
		return fmt.Sprint(binary.BigEndian.Uint16(b))
	case typeInet:
		return Protocol(b[0]).String()
	case typeNFProto:
		return map[byte]string{unix.NFPROTO_IPV4: "ipv4", unix.NFPROTO_IPV6: "ipv6"}[b[0]]
	}
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}

// tuple is several fields, one after the other, each padded to registers; one
// alone is not padded.
type tuple []field

// datatype returns the number and the size of the tuple's type.
func (t tuple) datatype() (number, size uint32) {
	for _, f := range t {
		number = number<<typeBits | f.datatype
		size += f.padded()
	}
	if len(t) == 1 {
		size = t[0].size
	}
	return number, size
}

// of returns the tuple with these values, one for each field.
func (t tuple) of(values ...[]byte) []byte {
	_, size := t.datatype()
	b := make([]byte, size)
	at := uint32(0)
	for i, f := range t {
		copy(b[at:at+f.size], values[i])
		at += f.padded()
	}
	return b
}

// split is the inverse of of; false for bytes of another tuple.
func (t tuple) split(b []byte) ([][]byte, bool) {
	if _, size := t.datatype(); uint32(len(b)) < size {
		return nil, false
	}
	var values [][]byte
	at := uint32(0)
	for _, f := range t {
		values = append(values, b[at:at+f.size])
		at += f.padded()
	}
	return values, true
}

// format returns the tuple from b to end in the words of nft; end may be nil.
func (t tuple) format(b, end []byte) string {
	values, ok := t.split(b)
	ends, ranged := t.split(end)
	if !ok {
		return fmt.Sprintf("%x", b)
	}
	var parts []string
	for i, f := range t {
		s := f.format(values[i])
		if ranged && !bytes.Equal(values[i], ends[i]) {
			s += "-" + f.format(ends[i])
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " . ")
}

// load returns what loads the tuple into the key's registers.
func (t tuple) load() []expr {
	var all []expr
	reg := uint32(regKey)
	for _, f := range t {
		all = append(all, f.load(reg))
		reg += f.padded() / 4
	}
	return all
}

// elem is an element of a set, with the owner that is its comment.
type elem struct {
	set   *set
	key   []byte
	end   []byte // of an interval set: the key of the other end
	data  []byte // of a map: what it gives
	owner string
}

// String returns the element in the words of nft, without its owner.
func (e elem) String() string {
	s := e.set.key.format(e.key, e.end)
	switch {
	case e.set.leadsToChains():
		s += " : goto " + string(e.data)
	case len(e.data) > 0:
		s += " : " + e.set.data.format(e.data, nil)
	}
	return fmt.Sprintf("%s { %s }", e.set, s)
}

// leadsToChains says that s is a map to chains.
func (s *set) leadsToChains() bool { return len(s.data) == 1 && s.data[0].datatype == typeVerdict }

func (s *set) String() string {
	return familyName(s.family) + " " + TableName + " " + s.name
}

func (t table) String() string { return familyName(t.family) + " " + TableName }

func familyName(family uint8) string {
	switch family {
	case unix.NFPROTO_BRIDGE:
		return "bridge"
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	}
	return "inet"
}

package ruleset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Data types as nft numbers them (datatype.h of nftables), so that it can list
// our sets, and how many bits of a concatenated type each takes.
const (
	typeNFProto = 2
	typeInteger = 4 // nft has a name for it by an expression only, see UserData
	typeIPv4    = 7
	typeIPv6    = 8
	typeEther   = 9
	typeInet    = 12 // inet_proto
	typeService = 13 // inet_service
	typeMark    = 19
	TypeIfname  = 41
	typeVerdict = unix.NFT_DATA_VERDICT

	typeBits = 6
)

// Field is a part of a packet that sets are keyed by, or of what maps give.
type Field struct {
	Datatype uint32
	Size     uint32
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
	SAddr4      = Field{typeIPv4, 4, inNetwork, 12}
	DAddr4      = Field{typeIPv4, 4, inNetwork, 16}
	SAddr6      = Field{typeIPv6, 16, inNetwork, 8}
	DAddr6      = Field{typeIPv6, 16, inNetwork, 24}
	EtherSource = Field{typeEther, 6, inLink, 6}
	DPort       = Field{typeService, 2, inTransport, 2}
	SPort       = Field{typeService, 2, inTransport, 0}
	L4Proto     = Field{typeInet, 1, inMeta, unix.NFT_META_L4PROTO}
	NFProto     = Field{typeNFProto, 1, inMeta, unix.NFT_META_NFPROTO}
	IIFName     = Field{TypeIfname, unix.IFNAMSIZ, inMeta, unix.NFT_META_IIFNAME}
	OIFName     = Field{TypeIfname, unix.IFNAMSIZ, inMeta, unix.NFT_META_OIFNAME}
	// Bucket is a number that a rule draws, Mark a packet's or a connection's, and EtherAddr a MAC
	// address that a map gives.
	Bucket    = Field{typeInteger, 4, nowhere, 0}
	Mark      = Field{typeMark, 4, nowhere, 0}
	EtherAddr = Field{typeEther, 6, nowhere, 0}
	// verdictField is what a map to chains gives: an element's data is the name
	// of the chain to go to.
	verdictField = Field{typeVerdict, 0, nowhere, 0}
)

// load returns what loads the field into registers from reg on.
func (f Field) load(reg uint32) Expr {
	switch f.from {
	case inLink:
		return Payload(unix.NFT_PAYLOAD_LL_HEADER, f.at, f.Size, reg)
	case inNetwork:
		return Payload(unix.NFT_PAYLOAD_NETWORK_HEADER, f.at, f.Size, reg)
	case inTransport:
		return Payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, f.at, f.Size, reg)
	}
	return Meta(f.at, reg)
}

// Load returns what loads the field into registers from reg on, an NFT_REG32_*.
func (f Field) Load(reg uint32) Expr { return f.load(reg) }

// Padded is the size the field takes in a key, in bytes.
func (f Field) Padded() uint32 { return f.padded() }

// padded is the size the field takes in a key: registers have four bytes.
func (f Field) padded() uint32 { return (f.Size + 3) &^ 3 }

// format returns b, the field's bytes in a key, in the words of nft.
func (f Field) format(b []byte) string {
	switch f.Datatype {
	case TypeIfname:
		return string(bytes.TrimRight(b, "\x00"))
	case typeEther:
		return net.HardwareAddr(b).String()
	case typeService:
		return fmt.Sprint(binary.BigEndian.Uint16(b))
	case typeInet:
		return firewall.Protocol(b[0]).String()
	case typeNFProto:
		return map[byte]string{unix.NFPROTO_IPV4: "ipv4", unix.NFPROTO_IPV6: "ipv6"}[b[0]]
	}
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}

// Tuple is several fields, one after the other, each padded to registers; one
// alone is not padded.
type Tuple []Field

// Datatype returns the number and the size of the tuple's type.
func (t Tuple) Datatype() (number, size uint32) {
	for _, f := range t {
		number = number<<typeBits | f.Datatype
		size += f.padded()
	}
	if len(t) == 1 {
		size = t[0].Size
	}
	return number, size
}

// Of returns the tuple with these values, one for each field.
func (t Tuple) Of(values ...[]byte) []byte {
	_, size := t.Datatype()
	b := make([]byte, size)
	at := uint32(0)
	for i, f := range t {
		copy(b[at:at+f.Size], values[i])
		at += f.padded()
	}
	return b
}

// Split is the inverse of of; false for bytes of another tuple.
func (t Tuple) Split(b []byte) ([][]byte, bool) {
	if _, size := t.Datatype(); uint32(len(b)) < size {
		return nil, false
	}
	var values [][]byte
	at := uint32(0)
	for _, f := range t {
		values = append(values, b[at:at+f.Size])
		at += f.padded()
	}
	return values, true
}

// format returns the tuple from b to end in the words of nft; end may be nil.
func (t Tuple) format(b, end []byte) string {
	values, ok := t.Split(b)
	ends, ranged := t.Split(end)
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
func (t Tuple) load() []Expr {
	var all []Expr
	reg := uint32(RegKey)
	for _, f := range t {
		all = append(all, f.load(reg))
		reg += f.padded() / 4
	}
	return all
}

// Elem is an element of a set, with the owner that is its comment.
type Elem struct {
	Set   *Set
	Key   []byte
	End   []byte // of an interval set: the key of the other end
	Data  []byte // of a map: what it gives
	Owner string
}

// String returns the element in the words of nft, without its owner.
func (e Elem) String() string {
	s := e.Set.Key.format(e.Key, e.End)
	switch {
	case e.Set.LeadsToChains():
		s += " : goto " + string(e.Data)
	case len(e.Data) > 0:
		s += " : " + e.Set.Data.format(e.Data, nil)
	}
	return fmt.Sprintf("%s { %s }", e.Set, s)
}

// LeadsToChains says that s is a map to chains.
func (s *Set) LeadsToChains() bool { return len(s.Data) == 1 && s.Data[0].Datatype == typeVerdict }

// String is "inet libnet closed".
func (s *Set) String() string {
	return FamilyName(s.Family) + " " + firewall.TableName + " " + s.Name
}

// String is "inet libnet".
func (t Table) String() string { return FamilyName(t.Family) + " " + firewall.TableName }

// FamilyName returns the name that nft has for a family, NFPROTO_*.
func FamilyName(family uint8) string {
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

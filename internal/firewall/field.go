package firewall

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Data types as nft numbers them (datatype.h of nftables), so that it can list
// our sets, and how many bits of a concatenated type each takes.
const (
	typeIPv4   = 7
	typeIPv6   = 8
	typeEther  = 9
	typeIfname = 41

	typeBits = 6
)

// field is a part of a packet that sets are keyed by.
type field struct {
	datatype uint32
	size     uint32
	base     expr.PayloadBase // of a field of the packet's headers
	offset   uint32
	meta     expr.MetaKey // of an interface name
}

// The fields our sets use.
var (
	saddr4      = field{typeIPv4, 4, expr.PayloadBaseNetworkHeader, 12, 0}
	saddr6      = field{typeIPv6, 16, expr.PayloadBaseNetworkHeader, 8, 0}
	etherSource = field{typeEther, 6, expr.PayloadBaseLLHeader, 6, 0}
	iifname     = field{typeIfname, unix.IFNAMSIZ, 0, 0, expr.MetaKeyIIFNAME}
	oifname     = field{typeIfname, unix.IFNAMSIZ, 0, 0, expr.MetaKeyOIFNAME}
)

// padded is the size the field takes in a key: registers have four bytes.
func (f field) padded() uint32 { return (f.size + 3) &^ 3 }

func (f field) load(reg uint32) expr.Any {
	if f.datatype == typeIfname {
		return &expr.Meta{Key: f.meta, Register: reg}
	}
	return &expr.Payload{DestRegister: reg, Base: f.base, Offset: f.offset, Len: f.size}
}

// format returns b, the field's bytes in a key, in the words of nft.
func (f field) format(b []byte) string {
	switch f.datatype {
	case typeIfname:
		return string(bytes.TrimRight(b, "\x00"))
	case typeEther:
		return net.HardwareAddr(b).String()
	}
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}

// keyType returns the number and the size of the set's key type.
func (s *set) keyType() (datatype, size uint32) {
	for _, f := range s.fields {
		datatype = datatype<<typeBits | f.datatype
		size += f.padded()
	}
	if len(s.fields) == 1 {
		size = s.fields[0].size
	}
	return datatype, size
}

// key returns the key made of values, one for each field of the set.
func (s *set) key(values ...[]byte) []byte {
	_, size := s.keyType()
	key := make([]byte, size)
	at := uint32(0)
	for i, f := range s.fields {
		copy(key[at:at+f.size], values[i])
		at += f.padded()
	}
	return key
}

func (s *set) String() string {
	return familyName(s.family) + " " + tableName + " " + s.name
}

// elem is an element of a set, with the owner that is its comment.
type elem struct {
	set   *set
	key   []byte
	owner string
}

// String returns the element in the words of nft, without its owner.
func (e elem) String() string {
	var parts []string
	at := uint32(0)
	for _, f := range e.set.fields {
		if at+f.size > uint32(len(e.key)) {
			break // not a key of this set
		}
		parts = append(parts, f.format(e.key[at:at+f.size]))
		at += f.padded()
	}
	return fmt.Sprintf("%s { %s }", e.set, strings.Join(parts, " . "))
}

func familyName(family uint8) string {
	if family == unix.NFPROTO_BRIDGE {
		return "bridge"
	}
	return "inet"
}

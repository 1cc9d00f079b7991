package nfnl

import (
	"encoding/binary"
	"strings"

	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Attrs is a list of attributes being written (linux/netlink.h, struct nlattr).
// Numbers are in network byte order, as netfilter has them.
type Attrs []byte

// errShort is an attribute or message that is longer than what holds it.
var errShort error = &sentinel.Error{Text: "netlink: truncated"}

const (
	attrHeader = 4
	// nested is NLA_F_NESTED; typeMask is NLA_TYPE_MASK.
	nested   = 1 << 15
	typeMask = 1<<14 - 1
)

func align(n int) int { return (n + 3) &^ 3 }

// Bytes adds an attribute with these bytes.
func (a *Attrs) Bytes(typ uint16, b []byte) {
	*a = binary.NativeEndian.AppendUint16(*a, uint16(attrHeader+len(b)))
	*a = binary.NativeEndian.AppendUint16(*a, typ)
	*a = append(*a, b...)
	a.pad()
}

// String adds s with a final NUL.
func (a *Attrs) String(typ uint16, s string) {
	*a = binary.NativeEndian.AppendUint16(*a, uint16(attrHeader+len(s)+1))
	*a = binary.NativeEndian.AppendUint16(*a, typ)
	*a = append(append(*a, s...), 0)
	a.pad()
}

// Uint8 adds a byte.
func (a *Attrs) Uint8(typ uint16, v uint8) { a.Bytes(typ, []byte{v}) }

// Uint16 adds a number of two bytes.
func (a *Attrs) Uint16(typ uint16, v uint16) {
	a.Bytes(typ, binary.BigEndian.AppendUint16(nil, v))
}

// Uint32 adds a number of four bytes.
func (a *Attrs) Uint32(typ uint16, v uint32) {
	a.Bytes(typ, binary.BigEndian.AppendUint32(nil, v))
}

// Nest adds what put writes as the inside of an attribute, 65 535 bytes at most.
func (a *Attrs) Nest(typ uint16, put func(*Attrs)) {
	start := len(*a)
	*a = binary.NativeEndian.AppendUint16(*a, 0)
	*a = binary.NativeEndian.AppendUint16(*a, typ|nested)
	put(a)
	binary.NativeEndian.PutUint16((*a)[start:], uint16(len(*a)-start))
}

func (a *Attrs) pad() {
	for len(*a)%4 != 0 {
		*a = append(*a, 0)
	}
}

// Each calls fn for every attribute in b, with its type less its flags.
func Each(b []byte, fn func(typ uint16, value []byte) error) error {
	for len(b) >= attrHeader {
		size := int(binary.NativeEndian.Uint16(b))
		if size < attrHeader || size > len(b) {
			return errShort
		}
		if err := fn(binary.NativeEndian.Uint16(b[2:])&typeMask, b[attrHeader:size]); err != nil {
			return err
		}
		b = b[min(align(size), len(b)):]
	}
	return nil
}

// Find returns the value of the first attribute of a type, nil if there is none.
func Find(b []byte, want uint16) []byte {
	var found []byte
	_ = Each(b, func(typ uint16, value []byte) error {
		if typ == want && found == nil {
			found = value
		}
		return nil
	})
	return found
}

// Uint32 reads what Attrs.Uint32 wrote; 0 for anything else.
func Uint32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// Uint64 reads a number of eight bytes; of fewer, the number that these are.
func Uint64(b []byte) (n uint64) {
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	return n
}

// Text reads an attribute that Attrs.String wrote; empty if there is none.
func Text(b []byte, typ uint16) string {
	return strings.TrimRight(string(Find(b, typ)), "\x00")
}

package netlink

import (
	"encoding/binary"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/sentinel"
)

// nlaTypeMask takes the nested and byte-order flags off an attribute's type.
const nlaTypeMask = 0x3fff

// Asked for before there are goroutines: nl finds it out at the first use,
// without a lock.
var _ = nl.NativeEndian()

// Attr makes an attribute.
func Attr(typ int, data []byte) *nl.RtAttr { return nl.NewRtAttr(typ, data) }

// AttrString makes an attribute of a string, with a zero at its end.
func AttrString(typ int, s string) *nl.RtAttr { return Attr(typ, nl.ZeroTerminated(s)) }

// AttrUint32 makes an attribute of 32 bits in the host's byte order.
func AttrUint32(typ int, v uint32) *nl.RtAttr { return Attr(typ, nl.Uint32Attr(v)) }

// AttrBool makes an attribute of one byte, 0 or 1.
func AttrBool(typ int, v bool) *nl.RtAttr {
	if v {
		return Attr(typ, []byte{1})
	}
	return Attr(typ, []byte{0})
}

// Nest makes an attribute of attributes.
func Nest(typ int, children ...*nl.RtAttr) *nl.RtAttr {
	a := Attr(typ, nil)
	for _, c := range children {
		a.AddChild(c)
	}
	return a
}

// EachAttr calls fn for each attribute that has a value.
func EachAttr(b []byte, fn func(typ uint16, v []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return ErrShort
		}
		if v := b[unix.SizeofRtAttr:n]; len(v) > 0 {
			if err := fn(binary.NativeEndian.Uint16(b[2:])&nlaTypeMask, v); err != nil {
				return err
			}
		}
		b = b[min(len(b), (n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
	}
	return nil
}

// ErrShort is a message that ends early; the kernel sends none.
var ErrShort error = &sentinel.Error{Text: "malformed netlink message"}

func Text(v []byte) string { return strings.TrimRight(string(v), "\x00") }

// Number reads an integer of 8, 16 or 32 bits.
func Number(v []byte) int {
	switch {
	case len(v) >= 4:
		return int(int32(binary.NativeEndian.Uint32(v)))
	case len(v) >= 2:
		return int(binary.NativeEndian.Uint16(v))
	case len(v) == 1:
		return int(v[0])
	}
	return 0
}

package ruleset

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// FormatComment returns a comment as user data, which is a list of type, length, value.
// Type 0 is the comment, with NUL.
func FormatComment(s string) []byte {
	b := append([]byte{0, byte(len(s) + 1)}, s...)
	return append(b, 0)
}

// ParseComment returns the comment in user data; empty if there is none.
func ParseComment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == 0 {
			return string(bytes.TrimRight(b[2:2+int(b[1])], "\x00"))
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

// nftaSetElemKeyEnd is NFTA_SET_ELEM_KEY_END, which golang.org/x/sys/unix lacks.
const nftaSetElemKeyEnd = 10

// Encode writes an element as one of a list; whole, or only what finds it.
func (e Elem) Encode(a *nfnl.Attrs, whole bool) {
	a.Nest(unix.NFTA_SET_ELEM_KEY, value(e.Key))
	if e.End != nil {
		a.Nest(nftaSetElemKeyEnd, value(e.End))
	}
	if !whole {
		return
	}
	switch {
	case e.Set.LeadsToChains():
		a.Nest(unix.NFTA_SET_ELEM_DATA, verdictValue(unix.NFT_GOTO, string(e.Data)))
	case e.Data != nil:
		a.Nest(unix.NFTA_SET_ELEM_DATA, value(e.Data))
	}
	if e.Owner != "" {
		a.Bytes(unix.NFTA_SET_ELEM_USERDATA, FormatComment(e.Owner))
	}
}

// DecodeElems calls fn for each element in an answer. It may keep the element.
func DecodeElems(s *Set, attrs []byte, fn func(Elem)) error {
	list := nfnl.Find(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	return nfnl.Each(list, func(_ uint16, item []byte) error {
		e := Elem{Set: s}
		data := func(b []byte) []byte { return bytes.Clone(nfnl.Find(b, unix.NFTA_DATA_VALUE)) }
		err := nfnl.Each(item, func(typ uint16, b []byte) error {
			switch typ {
			case unix.NFTA_SET_ELEM_KEY:
				e.Key = data(b)
			case nftaSetElemKeyEnd:
				e.End = data(b)
			case unix.NFTA_SET_ELEM_DATA:
				if e.Data = data(b); s.LeadsToChains() {
					e.Data = []byte(nfnl.Text(nfnl.Find(b, unix.NFTA_DATA_VERDICT), unix.NFTA_VERDICT_CHAIN))
				}
			case unix.NFTA_SET_ELEM_USERDATA:
				e.Owner = ParseComment(b)
			}
			return nil
		})
		fn(e)
		return err
	})
}

// nft(8) has no name for the type of a number that is drawn, or of a VNI. Without more it lists such
// a set by another type, and refuses its own list: the rule looks up what it knows as an integer.
// With user data of the expressions it says "typeof ip daddr . … . numgen random mod 64", and reads
// that back.

// Numbers of nft's user data: NFTNL_UDATA_SET_* and, inside of them, what an expression is, and
// what is known of it.
const (
	udataKeyTypeof  = 3
	udataDataTypeof = 4
	udataExpr       = 0
	udataOf         = 1

	exprPayload = 7
	exprMeta    = 9
	exprConcat  = 13
	exprNumgen  = 23
)

// Numbers of nft's descriptions of protocols; 0 is none, and then the place follows.
const (
	protoTransport = 11
	protoIPv4      = 12
	protoIPv6      = 13
)

// hostByteOrder is user data for nft, which lists names as "" without it:
// NFTNL_UDATA_SET_KEYBYTEORDER, four bytes, BYTEORDER_HOST_ENDIAN.
var hostByteOrder = []byte{0, 4, 1, 0, 0, 0}

// UserData is what nft has to know of a set to list it so that it can read the list; nil: nothing.
func (s *Set) UserData() []byte {
	switch {
	case s.ofUnderlay(), s.Key[len(s.Key)-1] == Bucket:
		data := udata(udataKeyTypeof, typeOf(s.Key))
		if s.Data != nil {
			data = append(data, udata(udataDataTypeof, typeOf(s.Data))...)
		}
		return data
	case len(s.Key) == 1 && s.Key[0].Datatype == TypeIfname:
		return hostByteOrder
	}
	return nil
}

func typeOf(fields Tuple) []byte {
	var parts []byte
	for i, f := range fields {
		parts = append(parts, udata(byte(i), f.typeOf())...)
	}
	return expression(exprConcat, parts)
}

func (f Field) typeOf() []byte {
	const bits = 8
	payload := func(of ...uint32) []byte { return expression(exprPayload, known(of...)) }
	switch f {
	case Bucket: // of whatever range: the type is the same
		return expression(exprNumgen, known(unix.NFT_NG_RANDOM, 64, 0))
	case SAddr4:
		return payload(protoIPv4, 11)
	case DAddr4:
		return payload(protoIPv4, 12)
	case SAddr6:
		return payload(protoIPv6, 8)
	case DAddr6:
		return payload(protoIPv6, 9)
	case DPort:
		return payload(protoTransport, 2)
	case vni:
		return payload(0, 0, 3, f.at*bits, f.Size*bits)
	}
	return expression(exprMeta, known(f.at))
}

func expression(kind uint32, of []byte) []byte {
	return slices.Concat(udata(udataExpr, Host32(kind)), udata(udataOf, of))
}

// known is what is known of an expression, in nft's order.
func known(all ...uint32) (b []byte) {
	for i, v := range all {
		b = append(b, udata(byte(i), Host32(v))...)
	}
	return b
}

// udata is one piece of user data: its kind, its length, and its content.
func udata(kind byte, content []byte) []byte {
	return append([]byte{kind, byte(len(content))}, content...)
}

package ruleset

import (
	"bytes"

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

package firewall

import (
	"bytes"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// formatComment returns a comment as user data, which is a list of type, length, value.
// Type 0 is the comment, with NUL.
func formatComment(s string) []byte {
	b := append([]byte{0, byte(len(s) + 1)}, s...)
	return append(b, 0)
}

// parseComment returns the comment in user data; empty if there is none.
func parseComment(b []byte) string {
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

// encode writes an element as one of a list; whole, or only what finds it.
func (e elem) encode(a *nfnl.Attrs, whole bool) {
	a.Nest(unix.NFTA_SET_ELEM_KEY, value(e.key))
	if e.end != nil {
		a.Nest(nftaSetElemKeyEnd, value(e.end))
	}
	if !whole {
		return
	}
	switch {
	case e.set.leadsToChains():
		a.Nest(unix.NFTA_SET_ELEM_DATA, verdictValue(unix.NFT_GOTO, string(e.data)))
	case e.data != nil:
		a.Nest(unix.NFTA_SET_ELEM_DATA, value(e.data))
	}
	a.Bytes(unix.NFTA_SET_ELEM_USERDATA, formatComment(e.owner))
}

// decodeElems calls fn for each element in an answer. What it gets is its own.
func decodeElems(s *set, attrs []byte, fn func(elem)) error {
	list := nfnl.Find(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	return nfnl.Each(list, func(_ uint16, item []byte) error {
		e := elem{set: s}
		data := func(b []byte) []byte { return bytes.Clone(nfnl.Find(b, unix.NFTA_DATA_VALUE)) }
		err := nfnl.Each(item, func(typ uint16, b []byte) error {
			switch typ {
			case unix.NFTA_SET_ELEM_KEY:
				e.key = data(b)
			case nftaSetElemKeyEnd:
				e.end = data(b)
			case unix.NFTA_SET_ELEM_DATA:
				if e.data = data(b); s.leadsToChains() {
					e.data = []byte(nfnl.Text(nfnl.Find(b, unix.NFTA_DATA_VERDICT), unix.NFTA_VERDICT_CHAIN))
				}
			case unix.NFTA_SET_ELEM_USERDATA:
				e.owner = parseComment(b)
			}
			return nil
		})
		fn(e)
		return err
	})
}

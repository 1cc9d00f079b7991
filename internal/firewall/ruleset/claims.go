package ruleset

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Claim is a range of ports of the host that belongs to one owner.
type Claim struct {
	Sets *FamilySets
	firewall.PortSpan
	Owner string
}

// ports returns ports at the addresses of r.
func (r addrRange) ports(p firewall.Protocol, lo, hi uint16) firewall.PortSpan {
	first, _ := netip.AddrFromSlice(r.first)
	last, _ := netip.AddrFromSlice(r.last)
	return firewall.PortSpan{Protocol: p, First: first, Last: last, Lo: lo, Hi: hi}
}

// Gives says that two elements with the same key are the same in all else.
func (e Elem) Gives(o Elem) bool { return bytes.Equal(e.Data, o.Data) && bytes.Equal(e.End, o.End) }

// Same says that two elements have the same key.
func (e Elem) Same(o Elem) bool { return e.Set == o.Set && bytes.Equal(e.Key, o.Key) }

// Claim returns what an element of a set of ports claims; false if it is none.
func (e Elem) Claim() (Claim, bool) {
	for _, f := range BothFamilies() {
		c := Claim{Sets: f, Owner: e.Owner}
		var first, last [][]byte // of address, protocol and port
		v, ok := e.Set.Key.Split(e.Key)
		if !ok {
			return Claim{}, false
		}
		end := v
		if e.Set.Interval {
			if end, ok = e.Set.Key.Split(e.End); !ok {
				return Claim{}, false
			}
		}
		switch e.Set {
		case &f.AnyPort:
			every := (&publication{target: f.zero()}).every()
			first, last = append([][]byte{every.first}, v...), append([][]byte{every.last}, v...)
		case &f.Port, &f.Gate:
			first, last = v, end
		case &f.From, &f.Span:
			first, last = v[1:], end[1:]
		default:
			continue
		}
		at := withLocalhost4(addrRange{first[0], last[0]})
		c.PortSpan = at.ports(firewall.Protocol(first[1][0]), binary.BigEndian.Uint16(first[2]), binary.BigEndian.Uint16(last[2]))
		return c, true
	}
	return Claim{}, false
}

// withLocalhost4 puts 127.0.0.0/8 to a range that leaves it out: an owner that
// publishes a port of any address without hairpin has it there, too.
func withLocalhost4(r addrRange) addrRange {
	if bytes.Equal(r.last, notLocalhost4[0].last) {
		r.last = []byte{127, 255, 255, 255}
	}
	if bytes.Equal(r.first, notLocalhost4[1].first) {
		r.first = []byte{127, 0, 0, 0}
	}
	return r
}

// OfAnyPort returns the element of a port of any address; whose it is, and what it
// gives, is left out.
func (f *FamilySets) OfAnyPort(p firewall.Protocol, n uint16) Elem {
	return Elem{Set: &f.AnyPort, Key: f.AnyPort.Key.Of([]byte{byte(p)}, port(n))}
}

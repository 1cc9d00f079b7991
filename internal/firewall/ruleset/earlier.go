package ruleset

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Renamed returns the name of today of a set whose key has changed; "" for any other name. With
// the old name the DEL of an earlier release would delete by a key of the wrong
// length, which the kernel refuses; a set that does not exist it passes over.
func Renamed(before string) string {
	if before == "" {
		return ""
	}
	kind, family := before[:len(before)-1], before[len(before)-1:]
	if family != "4" && family != "6" {
		return ""
	}
	switch kind {
	case "masq":
		return "masquerade" + family
	case "source":
		return "snat" + family
	case "masqall":
		return "masqueradeall" + family
	case "besidemasqall":
		return "besidemasqueradeall" + family
	}
	return ""
}

// ClosingSets are the sets that keep packets out by what is in them.
var ClosingSets = []*Set{&Internal, &NoICC, &Apart, &Closed, &NoHost, &Tunnels, &Sealed4, &Sealed6, &Far4, &Far6, &Beyond4, &Beyond6, &Guarded}

// TupleOf is the inverse of tuple.datatype. The fields do not say where they
// are in a packet.
func TupleOf(number uint32) (Tuple, bool) {
	if number == typeVerdict {
		return Tuple{verdictField}, true
	}
	sizes := map[uint32]uint32{typeNFProto: 1, typeInteger: 4, typeIPv4: 4, typeIPv6: 16, typeEther: 6, typeInet: 1, typeService: 2, TypeIfname: unix.IFNAMSIZ}
	var t Tuple
	for ; number != 0; number >>= typeBits {
		datatype := number & (1<<typeBits - 1)
		if sizes[datatype] == 0 {
			return nil, false
		}
		t = append(Tuple{{datatype, sizes[datatype], nowhere, 0}}, t...)
	}
	return t, len(t) > 0
}

// As returns the element of another release as one of s: fields go to those of
// their type, in order. An interface that the old key lacks is the one by which
// the address in it is reached. False if a field is left over or missing.
func (e Elem) As(s *Set, homes map[string][]byte) (Elem, bool) {
	key, ok := e.Set.Key.turn(e.Key, s.Key, homes)
	if !ok || len(e.Set.Data) != len(s.Data) {
		return Elem{}, false
	}
	for i, f := range s.Data {
		if f.Datatype != e.Set.Data[i].Datatype {
			return Elem{}, false
		}
	}
	out := Elem{Set: s, Key: key, Data: e.Data, Owner: e.Owner}
	if s.Interval {
		end := e.End
		if end == nil {
			end = e.Key
		}
		if out.End, ok = e.Set.Key.turn(end, s.Key, homes); !ok {
			return Elem{}, false
		}
	}
	return out, s.Interval || e.End == nil
}

// turn writes a key of t as one of another tuple.
func (t Tuple) turn(key []byte, to Tuple, homes map[string][]byte) ([]byte, bool) {
	values, ok := t.Split(key)
	if !ok {
		return nil, false
	}
	left := maps.Collect(slices.All(values))
	var out [][]byte
	for _, f := range to {
		at := -1
		for i := range t {
			was := t[i].Datatype
			if was == typeIPv4 && f.Datatype == typeInteger { // a VNI was said to be an address
				was = typeInteger
			}
			if _, free := left[i]; free && was == f.Datatype {
				at = i
				break
			}
		}
		if at >= 0 {
			out = append(out, left[at])
			delete(left, at)
			continue
		}
		home, known := t.home(values, homes)
		if f.Datatype != TypeIfname || !known {
			return nil, false
		}
		out = append(out, home)
	}
	return to.Of(out...), len(left) == 0
}

// home returns the interface by which an address among values is reached.
func (t Tuple) home(values [][]byte, homes map[string][]byte) (name []byte, known bool) {
	for i, f := range t {
		if f.Datatype == typeIPv4 || f.Datatype == typeIPv6 {
			if name, known = homes[string(values[i])]; known {
				return name, true
			}
		}
	}
	return nil, false
}

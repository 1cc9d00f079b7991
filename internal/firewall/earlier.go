package firewall

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// renamed are the sets whose key has changed, by the name they had before. With
// the old name the DEL of an earlier release would delete by a key of the wrong
// length, which the kernel refuses; a set that does not exist it passes over.
var renamed = func() map[string]string {
	all := map[string]string{}
	for before, now := range map[string]string{
		"masq": "masquerade", "source": "snat", "masqall": "masqueradeall", "besidemasqall": "besidemasqueradeall",
	} {
		all[before+"4"], all[before+"6"] = now+"4", now+"6"
	}
	return all
}()

// closing are the sets that keep packets out by what is in them.
var closing = []*set{&internal, &noicc, &apart, &closed, &noHost, &tunnels, &guarded}

// tupleOf is the inverse of tuple.datatype. The fields do not say where they
// are in a packet.
func tupleOf(number uint32) (tuple, bool) {
	if number == typeVerdict {
		return tuple{verdictField}, true
	}
	sizes := map[uint32]uint32{typeNFProto: 1, typeIPv4: 4, typeIPv6: 16, typeEther: 6, typeInet: 1, typeService: 2, typeIfname: unix.IFNAMSIZ}
	var t tuple
	for ; number != 0; number >>= typeBits {
		datatype := number & (1<<typeBits - 1)
		if sizes[datatype] == 0 {
			return nil, false
		}
		t = append(tuple{{datatype, sizes[datatype], nowhere, 0}}, t...)
	}
	return t, len(t) > 0
}

// as returns the element of another release as one of s: fields go to those of
// their type, in order. An interface that the old key lacks is the one by which
// the address in it is reached. False if a field is left over or missing.
func (e elem) as(s *set, homes map[string][]byte) (elem, bool) {
	key, ok := e.set.key.turn(e.key, s.key, homes)
	if !ok || len(e.set.data) != len(s.data) {
		return elem{}, false
	}
	for i, f := range s.data {
		if f.datatype != e.set.data[i].datatype {
			return elem{}, false
		}
	}
	out := elem{set: s, key: key, data: e.data, owner: e.owner}
	if s.interval {
		end := e.end
		if end == nil {
			end = e.key
		}
		if out.end, ok = e.set.key.turn(end, s.key, homes); !ok {
			return elem{}, false
		}
	}
	return out, s.interval || e.end == nil
}

// turn writes a key of t as one of another tuple.
func (t tuple) turn(key []byte, to tuple, homes map[string][]byte) ([]byte, bool) {
	values, ok := t.split(key)
	if !ok {
		return nil, false
	}
	left := maps.Collect(slices.All(values))
	var out [][]byte
	for _, f := range to {
		at := -1
		for i := range t {
			if _, free := left[i]; free && t[i].datatype == f.datatype {
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
		if f.datatype != typeIfname || !known {
			return nil, false
		}
		out = append(out, home)
	}
	return to.of(out...), len(left) == 0
}

// home returns the interface by which an address among values is reached.
func (t tuple) home(values [][]byte, homes map[string][]byte) (name []byte, known bool) {
	for i, f := range t {
		if f.datatype == typeIPv4 || f.datatype == typeIPv6 {
			if name, known = homes[string(values[i])]; known {
				return name, true
			}
		}
	}
	return nil, false
}

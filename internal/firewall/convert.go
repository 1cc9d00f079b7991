package firewall

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Here the sets of another release become those of this one.

// heldSet is a set as it stands in a table.
type heldSet struct {
	name                     string
	flags, key, keyLen, data uint32
	dataLen                  uint32
}

// sets returns the sets of our table of a family.
func (c *conn) sets(family uint8) ([]heldSet, error) {
	var all []heldSet
	err := c.dump(unix.NFT_MSG_GETSET, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_TABLE, TableName)
	}, func(attrs []byte) error {
		number := func(typ uint16) uint32 { return nfnl.Uint32(nfnl.Find(attrs, typ)) }
		all = append(all, heldSet{
			nfnl.Text(attrs, unix.NFTA_SET_NAME), number(unix.NFTA_SET_FLAGS),
			number(unix.NFTA_SET_KEY_TYPE), number(unix.NFTA_SET_KEY_LEN),
			number(unix.NFTA_SET_DATA_TYPE), number(unix.NFTA_SET_DATA_LEN),
		})
		return nil
	})
	return all, err
}

// setFlags are those by which sets differ; the kernel adds others.
const setFlags = unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP

func (h heldSet) is(s *set) bool {
	key, keyLen := s.key.datatype()
	if h.name != s.name || h.key != key || h.keyLen != keyLen || h.flags&setFlags != s.flags()&setFlags {
		return false
	}
	if s.data == nil {
		return true
	}
	data, dataLen := s.data.datatype()
	return h.data == data && (s.leadsToChains() || h.dataLen == dataLen)
}

func (h heldSet) stays(t table) bool { return slices.ContainsFunc(t.sets, h.is) }

// convert returns the elements of sets that do not stay, as elements of t.
func (c *conn) convert(t table, sets []heldSet) ([]elem, error) {
	var all []elem
	var homes map[string][]byte
	for _, h := range sets {
		i := slices.IndexFunc(t.sets, func(s *set) bool { return s.name == h.name || s.name == renamed[h.name] })
		if i < 0 || h.stays(t) || t.sets[i] == &strict || t.sets[i] == &owners {
			continue
		}
		before, ok := h.before(t.family)
		if !ok {
			continue // Repair puts those back of which there are records
		}
		elems, err := c.elems(before)
		if err != nil {
			return nil, err
		}
		if homes == nil && len(elems) > 0 {
			if homes, err = c.homes(sets, t.family); err != nil {
				return nil, err
			}
		}
		for _, e := range elems {
			turned, ok := e.as(t.sets[i], homes)
			if ok {
				all = append(all, turned)
			} else if slices.Contains(closing, t.sets[i]) { // without it a network would be open
				return nil, fmt.Errorf("element %s: %w", e, ErrOtherRelease)
			}
		}
	}
	return dedupe(all), nil
}

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

// before is the set as an earlier release had it; false if a part of it is not
// known.
func (h heldSet) before(family uint8) (*set, bool) {
	key, ok := tupleOf(h.key)
	if !ok {
		return nil, false
	}
	s := &set{family, h.name, key, nil, h.flags&unix.NFT_SET_INTERVAL != 0}
	if h.flags&unix.NFT_SET_MAP != 0 {
		if s.data, ok = tupleOf(h.data); !ok {
			return nil, false
		}
	}
	return s, true
}

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

// homes says by which interface the containers' addresses are reached, by the
// elements of home, as any release had them: tunnels left out.
func (c *conn) homes(sets []heldSet, family uint8) (map[string][]byte, error) {
	all := map[string][]byte{}
	vx, err := c.elems(&tunnels)
	if err != nil {
		return nil, err
	}
	for _, h := range sets {
		before, ok := h.before(family)
		if !ok || h.name != ipv4().home.name && h.name != ipv6().home.name {
			continue
		}
		elems, err := c.elems(before)
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			v, ok := before.key.split(e.key)
			if !ok || len(v) != 2 || slices.ContainsFunc(vx, func(t elem) bool { return bytes.Equal(t.key, v[1]) }) {
				continue
			}
			all[string(v[0])] = v[1]
		}
	}
	return all, nil
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

package nft

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// heldSet is a set as it stands in a table.
type heldSet struct {
	name                     string
	flags, key, keyLen, data uint32
	dataLen                  uint32
}

// sets returns the sets of our table of a family, but those that go with a rule.
func (c *conn) sets(family uint8) ([]heldSet, error) {
	var all []heldSet
	err := c.dump(unix.NFT_MSG_GETSET, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_TABLE, firewall.TableName)
	}, func(attrs []byte) error {
		number := func(typ uint16) uint32 { return nfnl.Uint32(nfnl.Find(attrs, typ)) }
		if number(unix.NFTA_SET_FLAGS)&unix.NFT_SET_ANONYMOUS != 0 { // of conditions
			return nil
		}
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

func (h heldSet) is(s *ruleset.Set) bool {
	key, keyLen := s.Key.Datatype()
	if h.name != s.Name || h.key != key || h.keyLen != keyLen || h.flags&setFlags != flagsOf(s)&setFlags {
		return false
	}
	if s.Data == nil {
		return true
	}
	data, dataLen := s.Data.Datatype()
	return h.data == data && (s.LeadsToChains() || h.dataLen == dataLen)
}

func (h heldSet) stays(t ruleset.Table) bool { return slices.ContainsFunc(t.Sets, h.is) }

// convert returns the elements of sets that do not stay, as elements of t.
func (c *conn) convert(t ruleset.Table, sets []heldSet) ([]ruleset.Elem, error) {
	var all []ruleset.Elem
	var homes map[string][]byte
	for _, h := range sets {
		i := slices.IndexFunc(t.Sets, func(s *ruleset.Set) bool { return s.Name == h.name || s.Name == ruleset.Renamed(h.name) })
		if i < 0 || h.stays(t) || t.Sets[i] == &ruleset.Strict || t.Sets[i] == &ruleset.Owners {
			continue
		}
		before, ok := h.before(t.Family)
		if !ok {
			continue // Repair puts those back of which there are records
		}
		elems, err := c.elems(before)
		if err != nil {
			return nil, err
		}
		if homes == nil && len(elems) > 0 {
			if homes, err = c.homes(sets, t.Family); err != nil {
				return nil, err
			}
		}
		for _, e := range elems {
			turned, ok := e.As(t.Sets[i], homes)
			if ok {
				all = append(all, turned)
			} else if slices.Contains(ruleset.ClosingSets, t.Sets[i]) { // without it a network would be open
				return nil, fmt.Errorf("element %s: %w", e, firewall.ErrOtherRelease)
			}
		}
	}
	return ruleset.Dedupe(all), nil
}

// before is the set as an earlier release had it; false if a part of it is not
// known.
func (h heldSet) before(family uint8) (*ruleset.Set, bool) {
	key, ok := ruleset.TupleOf(h.key)
	if !ok {
		return nil, false
	}
	s := &ruleset.Set{Family: family, Name: h.name, Key: key, Data: nil, Interval: h.flags&unix.NFT_SET_INTERVAL != 0}
	if h.flags&unix.NFT_SET_MAP != 0 {
		if s.Data, ok = ruleset.TupleOf(h.data); !ok {
			return nil, false
		}
	}
	return s, true
}

// homes says by which interface the containers' addresses are reached, by the
// elements of home, as any release had them: tunnels left out.
func (c *conn) homes(sets []heldSet, family uint8) (map[string][]byte, error) {
	all := map[string][]byte{}
	vx, err := c.elems(&ruleset.Tunnels)
	if err != nil {
		return nil, err
	}
	for _, h := range sets {
		before, ok := h.before(family)
		if !ok || h.name != ruleset.IPv4().Home.Name && h.name != ruleset.IPv6().Home.Name {
			continue
		}
		elems, err := c.elems(before)
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			v, ok := before.Key.Split(e.Key)
			if !ok || len(v) != 2 || slices.ContainsFunc(vx, func(t ruleset.Elem) bool { return bytes.Equal(t.Key, v[1]) }) {
				continue
			}
			all[string(v[0])] = v[1]
		}
	}
	return all, nil
}

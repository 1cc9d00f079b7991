package foreign

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// heldSet is another owner's set, or map to verdicts, as far as it is looked at.
type heldSet struct {
	ranges []setRange
	all    *setRange // what a map has for all else; nil: nothing
	why    string    // it could not be read
}

// setRange is the keys of an element, from first to last.
type setRange struct {
	first, last []byte
	does, chain string
}

// Flags of linux/netfilter/nf_tables.h that golang.org/x/sys/unix lacks.
const (
	nftSetConcat        = 0x80
	nftSetElemCatchall  = 2
	nftaSetElemKeyEnd   = 10
	nftaSetElemInterval = unix.NFT_SET_ELEM_INTERVAL_END
)

// lookup says whether what was loaded of all packets is in a set, and takes the verdict
// that a map has for it; or, inverted, that nothing of it is there.
func (v *reader) lookup(data []byte) bool {
	key, name := v.loaded(), nfnl.Text(data, unix.NFTA_LOOKUP_SET)
	if len(key) == 0 {
		return false
	}
	s := v.c.set(v.fam, v.t, v.table, name)
	if s.why != "" {
		return v.unknown(fmt.Sprintf("set %s: %s", name, s.why))
	}
	if v.mask > 0 || v.bits {
		return v.unknown(fmt.Sprintf("it looks for a part of an address in set %s", name))
	}
	r, some, ok := s.holding(key)
	if !ok {
		return v.unknown(fmt.Sprintf("set %s: its keys are not understood", name))
	}
	switch {
	case nfnl.Uint32(nfnl.Find(data, unix.NFTA_LOOKUP_FLAGS))&unix.NFT_LOOKUP_F_INV != 0:
		return !some
	case r == nil:
		return false
	case r.does != "":
		v.does, v.chain = r.does, r.chain
	}
	return true
}

// part is the smallest and the largest value that a field of a key has.
type part struct{ first, last []byte }

// loaded returns the key that the packets have; nil where not all of it is known.
func (v *reader) loaded() []part {
	var key []part
	for _, f := range v.fields {
		first, last := v.p.span(f)
		if first == nil {
			return nil
		}
		if len(v.fields) > 1 {
			first, last = pad(first), pad(last)
		}
		key = append(key, part{first, last})
	}
	return key
}

// pad fills a field up to the registers of four bytes that it takes.
func pad(b []byte) []byte { return append(b, make([]byte, (4-len(b)%4)%4)...) }

// holding returns the element that has all of a key; nil: none. Some says that an
// element has a part of it; ok is false if its keys are read in another way than here.
func (s *heldSet) holding(key []part) (r *setRange, some, ok bool) {
	for i := range s.ranges {
		all, any, ok := s.ranges[i].meets(key)
		if !ok {
			return nil, false, false
		}
		if all {
			return &s.ranges[i], true, true
		}
		some = some || any
	}
	if !some && s.all != nil {
		return s.all, true, true
	}
	return nil, some, true
}

// meets says whether an element has all of a key, and any of it.
func (r setRange) meets(key []part) (all, any, ok bool) {
	all, any, at := true, true, 0
	for _, k := range key {
		end := at + len(k.first)
		if end > len(r.first) || end > len(r.last) {
			return false, false, false
		}
		first, last := r.first[at:end], r.last[at:end]
		all = all && bytes.Compare(first, k.first) <= 0 && bytes.Compare(k.last, last) <= 0
		any = any && bytes.Compare(first, k.last) <= 0 && bytes.Compare(k.first, last) <= 0
		at = end
	}
	return all, any, at == len(r.first)
}

// set reads a set once.
func (c *conn) set(fam family, t *tableRules, table, name string) *heldSet {
	if s := t.sets[name]; s != nil {
		return s
	}
	s := c.readSet(fam, table, name)
	t.sets[name] = s
	return s
}

func (c *conn) readSet(fam family, table, name string) *heldSet {
	flags := uint32(0)
	ask := func(a *nfnl.Attrs) { a.String(unix.NFTA_SET_TABLE, table); a.String(unix.NFTA_SET_NAME, name) }
	err := c.nl.Dump(nfnl.Message{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: unix.NFT_MSG_GETSET, Family: fam.number, Put: ask}, func(a nfnl.Answer) error {
		if nfnl.Text(a.Attrs, unix.NFTA_SET_NAME) == name {
			flags = nfnl.Uint32(nfnl.Find(a.Attrs, unix.NFTA_SET_FLAGS))
		}
		return nil
	})
	if err != nil {
		return &heldSet{why: err.Error()}
	}
	s := &heldSet{}
	var ends []bool
	err = c.list(unix.NFT_MSG_GETSETELEM, fam, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		a.String(unix.NFTA_SET_ELEM_LIST_SET, name)
	}, func(attrs []byte) error {
		return nfnl.Each(nfnl.Find(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS), func(_ uint16, e []byte) error {
			key := func(typ uint16) []byte { return bytes.Clone(nfnl.Find(nfnl.Find(e, typ), unix.NFTA_DATA_VALUE)) }
			r := setRange{first: key(unix.NFTA_SET_ELEM_KEY), last: key(nftaSetElemKeyEnd)}
			r.does, r.chain = decision(nfnl.Find(e, unix.NFTA_SET_ELEM_DATA))
			if r.last == nil {
				r.last = r.first
			}
			how := nfnl.Uint32(nfnl.Find(e, unix.NFTA_SET_ELEM_FLAGS))
			if how&nftSetElemCatchall != 0 {
				s.all = &r
				return nil
			}
			s.ranges, ends = append(s.ranges, r), append(ends, how&nftaSetElemInterval != 0)
			return nil
		})
	})
	if err != nil {
		s.why = err.Error()
	}
	if flags&unix.NFT_SET_INTERVAL != 0 && flags&nftSetConcat == 0 {
		s.ranges = intervals(s.ranges, ends)
		s.join()
	}
	return s
}

// intervals puts ranges together of elements that are each the beginning of one, or
// behind the end of one.
func intervals(marks []setRange, ends []bool) []setRange {
	order := make([]int, len(marks))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if by := bytes.Compare(marks[a].first, marks[b].first); by != 0 {
			return by
		}
		if ends[a] == ends[b] {
			return 0
		}
		if ends[a] {
			return -1
		}
		return 1
	})
	var all []setRange
	open := false
	for _, i := range order {
		if open {
			all[len(all)-1].last = before(marks[i].first)
		}
		if open = !ends[i]; open {
			r := marks[i]
			r.last = bytes.Repeat([]byte{0xff}, len(r.first))
			all = append(all, r)
		}
	}
	return all
}

// before is the number before b, which is above 0.
func before(b []byte) []byte {
	b = bytes.Clone(b)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return b
}

// join makes one range of those that follow each other and do the same.
func (s *heldSet) join() {
	slices.SortFunc(s.ranges, func(a, b setRange) int { return bytes.Compare(a.first, b.first) })
	var all []setRange
	for _, r := range s.ranges {
		n := len(all) - 1
		if n >= 0 && len(r.first) == len(all[n].last) && !isZero(r.first) && bytes.Equal(before(r.first), all[n].last) && r.does == all[n].does && r.chain == all[n].chain {
			all[n].last = r.last
			continue
		}
		all = append(all, r)
	}
	s.ranges = all
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

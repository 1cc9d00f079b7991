package transaction

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// DropTable adds the deletion of the table of a family, with all that is in it.
func (b *Batch) DropTable(family uint8) {
	b.Add(unix.NFT_MSG_DELTABLE, 0, family, func(a *nfnl.Attrs) { a.String(unix.NFTA_TABLE_NAME, b.table) })
}

// WriteTable adds a table that is not there, and by which StandsAs knows it.
func (b *Batch) WriteTable(t ruleset.Table) {
	b.WriteRules(t, b.AddSet)
	b.AddChain(t.Family, ruleset.Chain{Name: ReleaseOf(b.table, t)})
}

// WriteRules adds a table that is not there. Each of its sets is added by addSet, with a number that
// no other set of the batch has.
func (b *Batch) WriteRules(t ruleset.Table, addSet func(s *ruleset.Set, id uint32)) {
	b.AddTable(t.Family)
	for i, s := range t.Sets {
		addSet(s, uint32(i+1))
	}
	for _, c := range t.Chains {
		b.AddChain(t.Family, c)
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			b.AddRule(t.Family, c.Name, r)
		}
	}
}

// hostByteOrder is user data for nft, which lists names as "" without it:
// NFTNL_UDATA_SET_KEYBYTEORDER, four bytes, BYTEORDER_HOST_ENDIAN.
var hostByteOrder = []byte{0, 4, 1, 0, 0, 0}

// hostByteOrderData is the same of what a map gives: NFTNL_UDATA_SET_DATABYTEORDER.
var hostByteOrderData = []byte{1, 4, 1, 0, 0, 0}

// typeClassID is what nft calls the type of a packet's priority (TYPE_CLASSID).
const typeClassID = 23

// Of linux/netfilter/nf_tables.h, which golang.org/x/sys/unix lacks.
const (
	setConcat      = 0x80 // NFT_SET_CONCAT
	setDescConcat  = 2    // NFTA_SET_DESC_CONCAT
	setFieldLength = 1    // NFTA_SET_FIELD_LEN
	tableDormant   = 1    // NFT_TABLE_F_DORMANT: no packet meets the rules
)

// AddSet adds a set that is not there. id is one that no other set of the batch has.
func (b *Batch) AddSet(s *ruleset.Set, id uint32) {
	datatype, size := s.Key.Datatype()
	b.Add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_TABLE, b.table)
		a.String(unix.NFTA_SET_NAME, s.Name)
		a.Uint32(unix.NFTA_SET_KEY_TYPE, datatype)
		a.Uint32(unix.NFTA_SET_KEY_LEN, size)
		a.Uint32(unix.NFTA_SET_ID, id)
		flags := uint32(0)
		if s.Data != nil {
			datatype, size := s.Data.Datatype()
			flags |= unix.NFT_SET_MAP
			a.Uint32(unix.NFTA_SET_DATA_TYPE, datatype)
			a.Uint32(unix.NFTA_SET_DATA_LEN, size)
		}
		if s.Interval {
			flags |= unix.NFT_SET_INTERVAL | setConcat
			a.Nest(unix.NFTA_SET_DESC, func(a *nfnl.Attrs) {
				a.Nest(setDescConcat, func(a *nfnl.Attrs) {
					for _, f := range s.Key {
						a.Nest(unix.NFTA_LIST_ELEM, func(a *nfnl.Attrs) { a.Uint32(setFieldLength, f.Size) })
					}
				})
			})
		}
		a.Uint32(unix.NFTA_SET_FLAGS, flags)
		switch {
		case datatype == ruleset.TypeIfname:
			a.Bytes(unix.NFTA_SET_USERDATA, hostByteOrder)
		case len(s.Data) == 1 && s.Data[0].Datatype == typeClassID:
			a.Bytes(unix.NFTA_SET_USERDATA, hostByteOrderData)
		}
	})
}

// StandsAs says whether the table name is there in the family of t, and whether it is as one of the
// releases writes it: by the names of their chains without rules, as ReleaseOf gives one, and by the
// number of rules in the others. Without any, the number of rules alone tells.
func StandsAs(nl *nfnl.Conn, name string, t ruleset.Table, releases ...string) (whole, there bool, err error) {
	requests := []nfnl.Message{GetTable(name, t.Family)}
	for _, release := range releases {
		requests = append(requests, GetChain(name, t.Family, release))
	}
	first := len(requests)
	for _, c := range t.Chains {
		requests = append(requests, GetChain(name, t.Family, c.Name))
	}
	whole = true
	err = Ask(nl, requests, func(i int, attrs []byte) error {
		switch {
		case i == 0:
			there = attrs != nil
			flags := nfnl.Uint32(nfnl.Find(attrs, unix.NFTA_TABLE_FLAGS))
			whole = whole && there && flags&tableDormant == 0
		case attrs == nil:
			whole = false
		case i >= first:
			c := t.Chains[i-first]
			whole = whole && int(nfnl.Uint32(nfnl.Find(attrs, unix.NFTA_CHAIN_USE))) == len(c.Rules)+c.Jumps
		}
		return nil
	})
	return whole, there, err
}

// EachElem calls fn with each element of a set of the table name.
func EachElem(nl *nfnl.Conn, name string, s *ruleset.Set, fn func(ruleset.Elem)) error {
	return dumpSet(nl, name, s, func(attrs []byte) error { return ruleset.DecodeElems(s, attrs, fn) })
}

func dumpSet(nl *nfnl.Conn, name string, s *ruleset.Set, fn func(attrs []byte) error) error {
	return nl.Dump(Message(unix.NFT_MSG_GETSETELEM, 0, s.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_ELEM_LIST_TABLE, name)
		a.String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	}), func(a nfnl.Answer) error { return fn(a.Attrs) })
}

// Listing is elements as the kernel listed them. To decode them takes four times as long as to list them.
type Listing []listed

type listed struct {
	set     *ruleset.Set
	answers [][]byte
}

// listTries bounds how often a set is listed that is changed meanwhile.
const listTries = 3

// List lists all elements of the sets of tables that have a name; a set that is not there has none.
// Its cost grows with their number. The error is unix.ERESTART if the rules change all the time.
func List(nl *nfnl.Conn, name string, tables []ruleset.Table) (all Listing, err error) {
	for _, t := range tables {
		for _, s := range t.Sets {
			l := listed{set: s}
			for try := 0; try == 0 || errors.Is(err, unix.ERESTART) && try < listTries; try++ {
				l.answers = nil
				err = dumpSet(nl, name, s, func(attrs []byte) error {
					l.answers = append(l.answers, bytes.Clone(attrs))
					return nil
				})
			}
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return nil, err
			}
			all = append(all, l)
		}
	}
	return all, nil
}

// Elems returns the elements, each once.
func (l Listing) Elems() (all []ruleset.Elem, err error) {
	for _, s := range l {
		for _, attrs := range s.answers {
			if err := ruleset.DecodeElems(s.set, attrs, func(e ruleset.Elem) { all = append(all, e) }); err != nil {
				return nil, err
			}
		}
	}
	return ruleset.Dedupe(all), nil
}

// Elems returns what List lists.
func Elems(nl *nfnl.Conn, name string, tables []ruleset.Table) ([]ruleset.Elem, error) {
	l, err := List(nl, name, tables)
	if err != nil {
		return nil, err
	}
	return l.Elems()
}

// ReleaseOf names the chain that tells which release wrote the table, by WriteTable. It makes all rules.
func ReleaseOf(name string, t ruleset.Table) string {
	b := New(name, 0)
	b.WriteRules(t, b.AddSet)
	return b.Release()
}

// Release is a name for a release that writes what b says.
func (b *Batch) Release() string {
	h := fnv.New64a()
	_, _ = h.Write(b.Bytes())
	return fmt.Sprintf("written-%016x", h.Sum64())
}

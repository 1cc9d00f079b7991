package nft

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// batch gathers the messages of one transaction.
type batch struct {
	buf nfnl.Buffer
	any bool
	// elems wait for more of the same message, set and flags to come.
	elems []ruleset.Elem
	typ   uint8
	bytes int
}

// maxList bounds a list of elements: the length of an attribute has 16 bits.
const maxList = 32 << 10

func newBatch(generation uint32) *batch {
	b := &batch{}
	b.buf.Add(edge(unix.NFNL_MSG_BATCH_BEGIN, func(a *nfnl.Attrs) {
		if generation != 0 {
			a.Uint32(unix.NFNL_BATCH_GENID, generation)
		}
	}))
	return b
}

// edge returns the begin or the end of a batch.
func edge(typ uint8, put func(*nfnl.Attrs)) nfnl.Message {
	return nfnl.Message{Edge: true, Type: typ, Resource: unix.NFNL_SUBSYS_NFTABLES, Put: put}
}

// message returns a message of nf_tables.
func message(typ uint8, flags uint16, family uint8, put func(*nfnl.Attrs)) nfnl.Message {
	return nfnl.Message{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: typ, Flags: flags, Family: family, Put: put}
}

func (b *batch) add(typ uint8, flags uint16, family uint8, put func(*nfnl.Attrs)) {
	b.flush()
	b.any = true
	b.buf.Add(message(typ, flags, family, put))
}

// ensure adds a table that is not there. The kernel takes one transaction at a
// time, so two processes that do this at once leave the rules there once.
func (b *batch) ensure(t ruleset.Table) {
	b.write(t)
	b.addChain(t.Family, t.Written())
}

// write adds what makes t stand as it is written in rules.go, where nothing of
// it is of another type. Elements stay.
func (b *batch) write(t ruleset.Table) {
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, t.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_TABLE_NAME, firewall.TableName)
	})
	for i, s := range t.Sets {
		b.addSet(s, uint32(i+1))
	}
	for _, c := range t.Chains {
		b.addChain(t.Family, c)
		if c.Name == ruleset.MarksChain {
			continue // others' rules
		}
		b.delRules(t.Family, c.Name)
		for _, r := range c.Rules {
			b.addRule(t.Family, c.Name, r)
		}
	}
}

// wake has packets meet the rules of a table that is there, if it is dormant.
func (b *batch) wake(t ruleset.Table) {
	b.add(unix.NFT_MSG_NEWTABLE, 0, t.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_TABLE_NAME, firewall.TableName)
		a.Uint32(unix.NFTA_TABLE_FLAGS, 0)
	})
}

// hostByteOrder is user data for nft, which lists names as "" without it:
// NFTNL_UDATA_SET_KEYBYTEORDER, four bytes, BYTEORDER_HOST_ENDIAN.
var hostByteOrder = []byte{0, 4, 1, 0, 0, 0}

// nftSetConcat is NFT_SET_CONCAT, of linux/netfilter/nf_tables.h; the others
// that golang.org/x/sys/unix lacks are NFTA_SET_DESC_CONCAT and NFTA_SET_FIELD_LEN.
const (
	nftSetConcat      = 0x80
	nftaSetDescConcat = 2
	nftaSetFieldLen   = 1
)

// addSet needs an id that no other set of the batch has.
func (b *batch) addSet(s *ruleset.Set, id uint32) {
	datatype, size := s.Key.Datatype()
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_TABLE, firewall.TableName)
		a.String(unix.NFTA_SET_NAME, s.Name)
		a.Uint32(unix.NFTA_SET_FLAGS, flagsOf(s))
		a.Uint32(unix.NFTA_SET_KEY_TYPE, datatype)
		a.Uint32(unix.NFTA_SET_KEY_LEN, size)
		a.Uint32(unix.NFTA_SET_ID, id)
		if s.Data != nil {
			datatype, size := s.Data.Datatype()
			a.Uint32(unix.NFTA_SET_DATA_TYPE, datatype)
			a.Uint32(unix.NFTA_SET_DATA_LEN, size)
		}
		if s.Interval {
			a.Nest(unix.NFTA_SET_DESC, describe(s))
		}
		if datatype == ruleset.TypeIfname {
			a.Bytes(unix.NFTA_SET_USERDATA, hostByteOrder)
		}
	})
}

// flagsOf returns the kernel's flags of a set.
func flagsOf(s *ruleset.Set) (flags uint32) {
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL | nftSetConcat
	}
	if s.Data != nil {
		flags |= unix.NFT_SET_MAP
	}
	return flags
}

// describe lists the lengths of the fields.
func describe(s *ruleset.Set) func(*nfnl.Attrs) {
	return func(a *nfnl.Attrs) {
		a.Nest(nftaSetDescConcat, func(a *nfnl.Attrs) {
			for _, f := range s.Key {
				a.Nest(unix.NFTA_LIST_ELEM, func(a *nfnl.Attrs) { a.Uint32(nftaSetFieldLen, f.Size) })
			}
		})
	}
}

func (b *batch) addChain(family uint8, c ruleset.Chain) {
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_CHAIN_TABLE, firewall.TableName)
		a.String(unix.NFTA_CHAIN_NAME, c.Name)
		if c.Kind == "" {
			return
		}
		a.Nest(unix.NFTA_CHAIN_HOOK, func(a *nfnl.Attrs) {
			a.Uint32(unix.NFTA_HOOK_HOOKNUM, c.Hook)
			a.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.Priority))
		})
		a.Uint32(unix.NFTA_CHAIN_POLICY, ruleset.VerdictAccept)
		a.String(unix.NFTA_CHAIN_TYPE, c.Kind)
	})
}

// delChain adds the deletion of a chain that nothing leads to any more.
func (b *batch) delChain(family uint8, name string) {
	b.delRules(family, name)
	b.add(unix.NFT_MSG_DELCHAIN, 0, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_CHAIN_TABLE, firewall.TableName)
		a.String(unix.NFTA_CHAIN_NAME, name)
	})
}

func (b *batch) delSet(family uint8, name string) {
	b.add(unix.NFT_MSG_DELSET, 0, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_TABLE, firewall.TableName)
		a.String(unix.NFTA_SET_NAME, name)
	})
}

// delRules adds the deletion of all rules of a chain.
func (b *batch) delRules(family uint8, chain string) {
	b.add(unix.NFT_MSG_DELRULE, 0, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, firewall.TableName)
		a.String(unix.NFTA_RULE_CHAIN, chain)
	})
}

func (b *batch) addRule(family uint8, chain string, r ruleset.Rule) {
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, firewall.TableName)
		a.String(unix.NFTA_RULE_CHAIN, chain)
		a.Nest(unix.NFTA_RULE_EXPRESSIONS, func(a *nfnl.Attrs) {
			for _, x := range r.Does() {
				x.Encode(a)
			}
		})
		a.Bytes(unix.NFTA_RULE_USERDATA, ruleset.FormatComment(r.Why))
	})
}

// delRule adds the deletion of a rule by the number the kernel gave it.
func (b *batch) delRule(family uint8, chain string, handle uint64) {
	b.add(unix.NFT_MSG_DELRULE, 0, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, firewall.TableName)
		a.String(unix.NFTA_RULE_CHAIN, chain)
		a.Bytes(unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, handle))
	})
}

// put adds e; if its key is there, nothing changes, not even its owner.
func (b *batch) put(e ruleset.Elem) { b.gather(unix.NFT_MSG_NEWSETELEM, e) }

// takeOver puts e in the place of another owner's element, or of one that
// gives something else. The first put is for the case that the other one
// deletes it first. Packets see the result only.
func (b *batch) takeOver(e ruleset.Elem) {
	if e.Data == nil { // of a map it would be refused
		b.put(e)
	}
	b.del(e)
	b.put(e)
}

// del adds the deletion of e; one that is not there fails the transaction.
func (b *batch) del(e ruleset.Elem) { b.gather(unix.NFT_MSG_DELSETELEM, e) }

// gather sends elements of one set in one message as far as they follow each other.
func (b *batch) gather(typ uint8, e ruleset.Elem) {
	const overhead = 64
	size := len(e.Key) + len(e.End) + len(e.Data) + len(e.Owner) + overhead
	if len(b.elems) > 0 && (b.typ != typ || b.elems[0].Set != e.Set || b.bytes+size > maxList) {
		b.flush()
	}
	b.typ, b.any = typ, true
	b.elems = append(b.elems, e)
	b.bytes += size
}

func (b *batch) flush() {
	if len(b.elems) == 0 {
		return
	}
	elems, flags := b.elems, uint16(0)
	if b.typ == unix.NFT_MSG_NEWSETELEM {
		flags = unix.NLM_F_CREATE
	}
	b.buf.Add(message(b.typ, flags, elems[0].Set.Family, func(a *nfnl.Attrs) {
		encodeElems(a, b.typ == unix.NFT_MSG_NEWSETELEM, elems...)
	}))
	b.elems, b.bytes = nil, 0
}

// drop adds the deletion of t with its elements, but see conn.drop. The transaction is EBUSY if
// others have chains or sets in the table, ENOENT if it lacks a chain or set of ours.
func (b *batch) drop(t ruleset.Table) {
	for _, c := range slices.Backward(t.Chains) { // those that jump come after those jumped to
		b.add(unix.NFT_MSG_DELCHAIN, 0, t.Family, func(a *nfnl.Attrs) {
			a.String(unix.NFTA_CHAIN_TABLE, firewall.TableName)
			a.String(unix.NFTA_CHAIN_NAME, c.Name)
		})
	}
	for _, s := range t.Sets {
		b.delSet(t.Family, s.Name)
	}
	b.add(unix.NFT_MSG_DELTABLE, unix.NLM_F_NONREC, t.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_TABLE_NAME, firewall.TableName)
	})
}

// encodeElems writes a list of elements of one set; whole ones, or only what
// finds them.
func encodeElems(a *nfnl.Attrs, whole bool, elems ...ruleset.Elem) {
	a.String(unix.NFTA_SET_ELEM_LIST_TABLE, firewall.TableName)
	a.String(unix.NFTA_SET_ELEM_LIST_SET, elems[0].Set.Name)
	a.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(a *nfnl.Attrs) {
		for _, e := range elems {
			a.Nest(unix.NFTA_LIST_ELEM, func(a *nfnl.Attrs) { e.Encode(a, whole) })
		}
	})
}

package nft

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// batch is a transaction on our tables.
type batch struct{ *transaction.Batch }

func newBatch(generation uint32) *batch {
	return &batch{transaction.New(firewall.TableName, generation)}
}

// ensure adds a table that is not there. The kernel takes one transaction at a
// time, so two processes that do this at once leave the rules there once.
func (b *batch) ensure(t ruleset.Table) {
	b.write(t)
	b.AddChain(t.Family, t.Written())
}

// write adds what makes t stand as it is written in rules.go, where nothing of
// it is of another type. Elements stay.
func (b *batch) write(t ruleset.Table) {
	b.AddTable(t.Family)
	for i, s := range t.Sets {
		b.addSet(s, uint32(i+1))
	}
	for _, c := range t.Chains {
		b.AddChain(t.Family, c)
		if c.Name == ruleset.MarksChain {
			continue // others' rules
		}
		b.delRules(t.Family, c.Name)
		for _, r := range c.Rules {
			b.AddRule(t.Family, c.Name, r)
		}
	}
}

// wake has packets meet the rules of a table that is there, if it is dormant.
func (b *batch) wake(t ruleset.Table) {
	b.Add(unix.NFT_MSG_NEWTABLE, 0, t.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_TABLE_NAME, firewall.TableName)
		a.Uint32(unix.NFTA_TABLE_FLAGS, 0)
	})
}

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
	b.Add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.Family, func(a *nfnl.Attrs) {
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
		if data := s.UserData(); data != nil {
			a.Bytes(unix.NFTA_SET_USERDATA, data)
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

// delChain adds the deletion of a chain that nothing leads to any more.
func (b *batch) delChain(family uint8, name string) {
	b.delRules(family, name)
	b.Add(unix.NFT_MSG_DELCHAIN, 0, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_CHAIN_TABLE, firewall.TableName)
		a.String(unix.NFTA_CHAIN_NAME, name)
	})
}

func (b *batch) delSet(family uint8, name string) {
	b.Add(unix.NFT_MSG_DELSET, 0, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_TABLE, firewall.TableName)
		a.String(unix.NFTA_SET_NAME, name)
	})
}

// delRules adds the deletion of all rules of a chain.
func (b *batch) delRules(family uint8, chain string) {
	b.Add(unix.NFT_MSG_DELRULE, 0, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, firewall.TableName)
		a.String(unix.NFTA_RULE_CHAIN, chain)
	})
}

// delRule adds the deletion of a rule by the number the kernel gave it.
func (b *batch) delRule(family uint8, chain string, handle uint64) {
	b.Add(unix.NFT_MSG_DELRULE, 0, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, firewall.TableName)
		a.String(unix.NFTA_RULE_CHAIN, chain)
		a.Bytes(unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, handle))
	})
}

// takeOver puts e in the place of another owner's element, or of one that
// gives something else. The first put is for the case that the other one
// deletes it first. Packets see the result only.
func (b *batch) takeOver(e ruleset.Elem) {
	if e.Data == nil { // of a map it would be refused
		b.Put(e)
	}
	b.Del(e)
	b.Put(e)
}

// drop adds the deletion of t with its elements, but see conn.drop. The transaction is EBUSY if
// others have chains or sets in the table, ENOENT if it lacks a chain or set of ours.
func (b *batch) drop(t ruleset.Table) {
	for _, c := range slices.Backward(t.Chains) { // those that jump come after those jumped to
		b.Add(unix.NFT_MSG_DELCHAIN, 0, t.Family, func(a *nfnl.Attrs) {
			a.String(unix.NFTA_CHAIN_TABLE, firewall.TableName)
			a.String(unix.NFTA_CHAIN_NAME, c.Name)
		})
	}
	for _, s := range t.Sets {
		b.delSet(t.Family, s.Name)
	}
	b.Add(unix.NFT_MSG_DELTABLE, unix.NLM_F_NONREC, t.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_TABLE_NAME, firewall.TableName)
	})
}

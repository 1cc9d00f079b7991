package firewall

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// batch gathers the messages of one transaction, and the first error in them.
type batch struct {
	msgs []netlink.Message
	err  error
}

func (b *batch) add(typ uint16, flags netlink.HeaderFlags, family uint8, put func(*netlink.AttributeEncoder)) {
	m, err := message(typ, flags, family, put)
	if b.err == nil {
		b.err = err
	}
	b.msgs = append(b.msgs, m)
}

// ensure adds what makes t stand as it is written in base.go, whatever was
// there of it. Elements stay. The kernel takes one transaction at a time, so
// two who do this at once leave the rules there once.
func (b *batch) ensure(t table) {
	b.add(unix.NFT_MSG_NEWTABLE, netlink.Create, t.family, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, tableName)
	})
	for i, s := range t.sets {
		b.addSet(s, uint32(i+1))
	}
	for _, c := range t.chains {
		b.addChain(t.family, c)
		b.add(unix.NFT_MSG_DELRULE, 0, t.family, func(ae *netlink.AttributeEncoder) { // all rules of the chain
			ae.String(unix.NFTA_RULE_TABLE, tableName)
			ae.String(unix.NFTA_RULE_CHAIN, c.name)
		})
		for _, r := range c.rules {
			b.addRule(t.family, c.name, r)
		}
	}
}

// hostByteOrder is user data for nft, which lists names as "" without it:
// NFTNL_UDATA_SET_KEYBYTEORDER, four bytes, BYTEORDER_HOST_ENDIAN.
var hostByteOrder = binary.NativeEndian.AppendUint32([]byte{0, 4}, 1)

// addSet needs an id that no other set of the batch has.
func (b *batch) addSet(s *set, id uint32) {
	datatype, size := s.keyType()
	b.add(unix.NFT_MSG_NEWSET, netlink.Create, s.family, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_SET_TABLE, tableName)
		ae.String(unix.NFTA_SET_NAME, s.name)
		ae.Uint32(unix.NFTA_SET_KEY_TYPE, datatype)
		ae.Uint32(unix.NFTA_SET_KEY_LEN, size)
		ae.Uint32(unix.NFTA_SET_ID, id)
		if datatype == typeIfname {
			ae.Bytes(unix.NFTA_SET_USERDATA, hostByteOrder)
		}
	})
}

func (b *batch) addChain(family uint8, c chain) {
	b.add(unix.NFT_MSG_NEWCHAIN, netlink.Create, family, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_CHAIN_TABLE, tableName)
		ae.String(unix.NFTA_CHAIN_NAME, c.name)
		ae.Nested(unix.NFTA_CHAIN_HOOK, func(hook *netlink.AttributeEncoder) error {
			hook.Uint32(unix.NFTA_HOOK_HOOKNUM, c.hook)
			hook.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
			return nil
		})
		ae.Uint32(unix.NFTA_CHAIN_POLICY, nfAccept)
		ae.String(unix.NFTA_CHAIN_TYPE, c.kind)
	})
}

func (b *batch) addRule(family uint8, chain string, r rule) {
	b.add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, family, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_RULE_TABLE, tableName)
		ae.String(unix.NFTA_RULE_CHAIN, chain)
		ae.Nested(unix.NFTA_RULE_EXPRESSIONS, func(list *netlink.AttributeEncoder) error {
			for _, x := range r.exprs {
				list.Do(netlink.Nested|unix.NFTA_LIST_ELEM, func() ([]byte, error) { return expr.Marshal(family, x) })
			}
			return nil
		})
		ae.Bytes(unix.NFTA_RULE_USERDATA, formatComment(r.why))
	})
}

// put adds e; if its key is there, nothing changes, not even its owner.
func (b *batch) put(e elem) {
	b.add(unix.NFT_MSG_NEWSETELEM, netlink.Create, e.set.family, func(ae *netlink.AttributeEncoder) { e.encode(ae, true) })
}

// takeOver puts e in the place of another owner's element. The first put is
// for the case that the other one deletes it first. Packets see the result only.
func (b *batch) takeOver(e elem) {
	b.put(e)
	b.del(e)
	b.put(e)
}

// del adds the deletion of e; one that is not there fails the transaction.
func (b *batch) del(e elem) {
	b.add(unix.NFT_MSG_DELSETELEM, 0, e.set.family, func(ae *netlink.AttributeEncoder) { e.encode(ae, false) })
}

// drop adds the deletion of t if no set of it has an element: if one has, the
// transaction is EBUSY; if the table is not there, ENOENT.
func (b *batch) drop(t table) {
	for _, c := range t.chains {
		b.add(unix.NFT_MSG_DELCHAIN, 0, t.family, func(ae *netlink.AttributeEncoder) {
			ae.String(unix.NFTA_CHAIN_TABLE, tableName)
			ae.String(unix.NFTA_CHAIN_NAME, c.name)
		})
	}
	for _, s := range t.sets {
		b.add(unix.NFT_MSG_DELSET, unix.NLM_F_NONREC, t.family, func(ae *netlink.AttributeEncoder) {
			ae.String(unix.NFTA_SET_TABLE, tableName)
			ae.String(unix.NFTA_SET_NAME, s.name)
		})
	}
	b.add(unix.NFT_MSG_DELTABLE, unix.NLM_F_NONREC, t.family, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, tableName)
	})
}

// encode writes e as a list of one element.
func (e elem) encode(ae *netlink.AttributeEncoder, withOwner bool) {
	ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
	ae.String(unix.NFTA_SET_ELEM_LIST_SET, e.set.name)
	ae.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
		list.Nested(unix.NFTA_LIST_ELEM, func(item *netlink.AttributeEncoder) error {
			item.Nested(unix.NFTA_SET_ELEM_KEY, func(data *netlink.AttributeEncoder) error {
				data.Bytes(unix.NFTA_DATA_VALUE, e.key)
				return nil
			})
			if withOwner {
				item.Bytes(unix.NFTA_SET_ELEM_USERDATA, formatComment(e.owner))
			}
			return nil
		})
		return nil
	})
}

package firewall

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The nf_tables messages we need, over netlink.
//
// Tried and dropped: the Conn of google/nftables, of which we keep the
// expressions. It cannot get a single element, cannot delete a set on the
// condition that it is empty, cannot tie a batch to a generation, asks for an
// answer to every message, and waits for ever where the kernel refuses a batch
// as a whole with a single one.

// message returns one request: header, nfgenmsg and the attributes put writes.
func message(typ uint16, flags netlink.HeaderFlags, family uint8, put func(*netlink.AttributeEncoder)) (netlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	put(ae)
	attrs, err := ae.Encode()
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...),
	}, err
}

// edge returns the begin or the end of a batch.
func edge(typ netlink.HeaderType, attrs []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request},
		Data:   append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}, attrs...),
	}
}

// commit sends b as one transaction: all of it holds, or nothing. If
// generation is not 0 and not the rules' any more, that is ERESTART. A
// transaction that fails otherwise, or that deletes something, has the kernel
// wait for the readers of the rules (RCU), some 10 ms: the first at once, the
// second when the next netfilter socket of the namespace is closed.
func (c *conn) commit(generation uint32, b *batch) error {
	if b.err != nil || len(b.msgs) == 0 {
		return b.err
	}
	var attrs []byte
	if generation != 0 {
		attrs = binary.NativeEndian.AppendUint16(attrs, 8)
		attrs = binary.NativeEndian.AppendUint16(attrs, unix.NFNL_BATCH_GENID)
		attrs = binary.BigEndian.AppendUint32(attrs, generation)
	}
	// Only the last message asks for an answer: it is the only one on success,
	// and on failure what went wrong before it comes first.
	b.msgs[len(b.msgs)-1].Header.Flags |= netlink.Acknowledge
	msgs := append([]netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN, attrs)}, b.msgs...)
	msgs = append(msgs, edge(unix.NFNL_MSG_BATCH_END, nil))
	if _, err := c.nl.SendMessages(msgs); err != nil {
		return err
	}
	_, err := c.nl.Receive()
	return err
}

// get asks for one object, or with flag Dump for all that match, and returns
// the attributes of each answer. ENOENT is an answer; a dump that others
// changed meanwhile is ERESTART.
func (c *conn) get(typ uint16, flags netlink.HeaderFlags, family uint8, put func(*netlink.AttributeEncoder)) ([][]byte, error) {
	req, err := message(typ, flags, family, put)
	if err != nil {
		return nil, err
	}
	answers, err := c.nl.Execute(req)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, m := range answers {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return nil, unix.ERESTART
		}
		if len(m.Data) >= 4 {
			all = append(all, m.Data[4:])
		}
	}
	return all, nil
}

// generation returns the number of the last transaction, of anybody. It is
// ErrUnsupported when there is no nf_tables.
func (c *conn) generation() (uint32, error) {
	answers, err := c.get(unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, func(*netlink.AttributeEncoder) {})
	if errors.Is(err, unix.EINVAL) { // nfnetlink does not know this subsystem
		return 0, fmt.Errorf("nf_tables: %w", ErrUnsupported)
	}
	if err != nil {
		return 0, err
	}
	var n uint32
	err = each(answers, func(ad *netlink.AttributeDecoder) error {
		if ad.Type() == unix.NFTA_GEN_ID {
			n = ad.Uint32()
		}
		return nil
	})
	return n, err
}

// holds returns whether an object of ours is there.
func (c *conn) holds(typ uint16, family uint8, put func(*netlink.AttributeEncoder)) (bool, error) {
	_, err := c.get(typ, 0, family, put)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

func (c *conn) holdsTable(family uint8) (bool, error) {
	return c.holds(unix.NFT_MSG_GETTABLE, family, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, tableName)
	})
}

// holder returns who holds the element at e's key, and whether anybody does.
func (c *conn) holder(e elem) (owner string, found bool, err error) {
	answers, err := c.get(unix.NFT_MSG_GETSETELEM, 0, e.set.family, func(ae *netlink.AttributeEncoder) { e.encode(ae, false) })
	if errors.Is(err, unix.ENOENT) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	all, err := decodeElems(e.set, answers)
	if err != nil || len(all) == 0 {
		return "", false, err
	}
	return all[0].owner, true, nil
}

// elems returns all elements of s; a set that is not there has none.
func (c *conn) elems(s *set) ([]elem, error) {
	answers, err := c.get(unix.NFT_MSG_GETSETELEM, netlink.Dump, s.family, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
		ae.String(unix.NFTA_SET_ELEM_LIST_SET, s.name)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeElems(s, answers)
}

// ruleCount returns how many rules a chain has, -1 if it is not there.
func (c *conn) ruleCount(family uint8, chain string) (int, error) {
	answers, err := c.get(unix.NFT_MSG_GETCHAIN, 0, family, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_CHAIN_TABLE, tableName)
		ae.String(unix.NFTA_CHAIN_NAME, chain)
	})
	if errors.Is(err, unix.ENOENT) {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	n := 0
	err = each(answers, func(ad *netlink.AttributeDecoder) error {
		if ad.Type() == unix.NFTA_CHAIN_USE {
			n = int(ad.Uint32())
		}
		return nil
	})
	return n, err
}

// rules returns the comments of a chain's rules, in order.
func (c *conn) rules(family uint8, chain string) ([]string, error) {
	answers, err := c.get(unix.NFT_MSG_GETRULE, netlink.Dump, family, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_RULE_TABLE, tableName)
		ae.String(unix.NFTA_RULE_CHAIN, chain)
	})
	if err != nil {
		return nil, err
	}
	var all []string
	for _, a := range answers {
		why := ""
		err := each([][]byte{a}, func(ad *netlink.AttributeDecoder) error {
			if ad.Type() == unix.NFTA_RULE_USERDATA {
				why = parseComment(ad.Bytes())
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		all = append(all, why)
	}
	return all, nil
}

func decodeElems(s *set, answers [][]byte) ([]elem, error) {
	var all []elem
	err := each(answers, func(ad *netlink.AttributeDecoder) error {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		ad.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				e := elem{set: s}
				list.Nested(e.decode)
				all = append(all, e)
			}
			return nil
		})
		return nil
	})
	return all, err
}

func (e *elem) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			ad.Nested(func(data *netlink.AttributeDecoder) error {
				for data.Next() {
					e.key = data.Bytes()
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_USERDATA:
			e.owner = parseComment(ad.Bytes())
		}
	}
	return nil
}

// each calls fn for every attribute of every answer.
func each(answers [][]byte, fn func(*netlink.AttributeDecoder) error) error {
	for _, a := range answers {
		ad, err := netlink.NewAttributeDecoder(a)
		if err != nil {
			return err
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if err := fn(ad); err != nil {
				return err
			}
		}
		if err := ad.Err(); err != nil {
			return err
		}
	}
	return nil
}

// User data is a list of type, length, value. Type 0 is the comment, with NUL.
func formatComment(s string) []byte {
	b := append([]byte{0, byte(len(s) + 1)}, s...)
	return append(b, 0)
}

func parseComment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == 0 {
			return string(bytes.TrimRight(b[2:2+int(b[1])], "\x00"))
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

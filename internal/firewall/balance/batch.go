package balance

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// batch gathers the messages of one transaction.
type batch struct {
	buf nfnl.Buffer
	any bool
	// elems wait for more of the same message and set to come.
	elems []Elem
	typ   uint8
	bytes int
}

// maxList bounds a list of elements: the length of an attribute has 16 bits.
const maxList = 32 << 10

func newBatch(generation uint32) *batch {
	b := &batch{}
	b.buf.Add(nfnl.Message{Edge: true, Type: unix.NFNL_MSG_BATCH_BEGIN, Resource: unix.NFNL_SUBSYS_NFTABLES, Put: func(a *nfnl.Attrs) {
		if generation != 0 {
			a.Uint32(unix.NFNL_BATCH_GENID, generation)
		}
	}})
	return b
}

func message(typ uint8, flags uint16, family uint8, put func(*nfnl.Attrs)) nfnl.Message {
	return nfnl.Message{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: typ, Flags: flags, Family: family, Put: put}
}

func (b *batch) add(typ uint8, flags uint16, family uint8, put func(*nfnl.Attrs)) {
	b.flush()
	b.any = true
	b.buf.Add(message(typ, flags, family, put))
}

func (b *batch) dropTable(family uint8) {
	b.add(unix.NFT_MSG_DELTABLE, 0, family, func(a *nfnl.Attrs) { a.String(unix.NFTA_TABLE_NAME, TableName) })
}

// writeTable adds a table that is not there.
func (b *batch) writeTable(t ruleset.Table) {
	b.writeRules(t)
	b.addChain(t.Family, ruleset.Chain{Name: releaseOf(t)})
}

func (b *batch) writeRules(t ruleset.Table) {
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, t.Family, func(a *nfnl.Attrs) { a.String(unix.NFTA_TABLE_NAME, TableName) })
	for i, s := range t.Sets {
		b.addSet(s, uint32(i+1))
	}
	for _, c := range t.Chains {
		b.addChain(t.Family, c)
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			b.addRule(t.Family, c.Name, r)
		}
	}
}

// nftaSetExpr is NFTA_SET_EXPR: what each element of a set has (Linux 5.7).
const nftaSetExpr = 17

func (b *batch) addSet(s *ruleset.Set, id uint32) {
	datatype, size := s.Key.Datatype()
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_TABLE, TableName)
		a.String(unix.NFTA_SET_NAME, s.Name)
		a.Uint32(unix.NFTA_SET_KEY_TYPE, datatype)
		a.Uint32(unix.NFTA_SET_KEY_LEN, size)
		a.Uint32(unix.NFTA_SET_ID, id)
		if s.Data != nil {
			datatype, size := s.Data.Datatype()
			a.Uint32(unix.NFTA_SET_FLAGS, unix.NFT_SET_MAP)
			a.Uint32(unix.NFTA_SET_DATA_TYPE, datatype)
			a.Uint32(unix.NFTA_SET_DATA_LEN, size)
		} else {
			a.Uint32(unix.NFTA_SET_FLAGS, 0)
		}
		if isCounted(s) {
			a.Nest(nftaSetExpr, func(a *nfnl.Attrs) {
				a.String(unix.NFTA_EXPR_NAME, "counter")
				a.Nest(unix.NFTA_EXPR_DATA, func(*nfnl.Attrs) {})
			})
		}
	})
}

// isCounted says that each element of s counts the packets that meet it.
func isCounted(s *ruleset.Set) bool { return s.Name == "ports4" || s.Name == "ports6" }

func (b *batch) addChain(family uint8, c ruleset.Chain) {
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_CHAIN_TABLE, TableName)
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

func (b *batch) addRule(family uint8, chain string, r ruleset.Rule) {
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, TableName)
		a.String(unix.NFTA_RULE_CHAIN, chain)
		a.Nest(unix.NFTA_RULE_EXPRESSIONS, func(a *nfnl.Attrs) {
			for _, x := range r.Does() {
				x.Encode(a)
			}
		})
		a.Bytes(unix.NFTA_RULE_USERDATA, ruleset.FormatComment(r.Why))
	})
}

func (b *batch) put(e Elem) { b.gather(unix.NFT_MSG_NEWSETELEM, e) }

// del adds the deletion of e; one that is not there fails the transaction.
func (b *batch) del(e Elem) { b.gather(unix.NFT_MSG_DELSETELEM, e) }

// gather sends elements of one set in one message as far as they follow each other.
func (b *batch) gather(typ uint8, e Elem) {
	const overhead = 64
	size := len(e.Key) + len(e.Data) + overhead
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

// encodeElems writes a list of elements of one set; whole ones, or only what finds them.
// They have no comments: the memory of hundreds of thousands counts.
func encodeElems(a *nfnl.Attrs, whole bool, elems ...Elem) {
	a.String(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	a.String(unix.NFTA_SET_ELEM_LIST_SET, elems[0].Set.Name)
	a.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(a *nfnl.Attrs) {
		for _, e := range elems {
			a.Nest(unix.NFTA_LIST_ELEM, func(a *nfnl.Attrs) {
				a.Nest(unix.NFTA_SET_ELEM_KEY, value(e.Key))
				if whole && e.Data != nil {
					a.Nest(unix.NFTA_SET_ELEM_DATA, value(e.Data))
				}
			})
		}
	})
}

// commit sends b as one transaction. If the rules have changed since its generation, that is
// unix.ERESTART.
func (b *batch) commit(nl *nfnl.Conn) error {
	b.flush()
	if !b.any {
		return nil
	}
	// Only the last message asks for an answer: it is the only one on success, and on
	// failure what went wrong before it comes first.
	b.buf.AckLast()
	b.buf.Add(nfnl.Message{Edge: true, Type: unix.NFNL_MSG_BATCH_END, Resource: unix.NFNL_SUBSYS_NFTABLES})
	if err := nl.Send(&b.buf); err != nil {
		return err
	}
	return nl.Receive(func(_ nfnl.Answer, isErr bool, errno unix.Errno) (bool, error) {
		if isErr && errno != 0 {
			return true, fmt.Errorf("nf_tables transaction refused: %w", errno)
		}
		return isErr, nil
	})
}

func askChain(family uint8, name string) nfnl.Message {
	return message(unix.NFT_MSG_GETCHAIN, 0, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_CHAIN_TABLE, TableName)
		a.String(unix.NFTA_CHAIN_NAME, name)
	})
}

func askElem(e Elem) nfnl.Message {
	return message(unix.NFT_MSG_GETSETELEM, 0, e.Set.Family, func(a *nfnl.Attrs) { encodeElems(a, false, e) })
}

// maxAsked is how many requests are sent at once: their answers have to fit into the
// socket's receive buffer.
const maxAsked = 64

// ask sends requests for single objects together and calls fn with the answer to each, in
// order: its attributes, nil if it is not there.
func ask(nl *nfnl.Conn, requests []nfnl.Message, fn func(i int, attrs []byte) error) error {
	for start := 0; start < len(requests); start += maxAsked {
		part := requests[start:min(start+maxAsked, len(requests))]
		var buf nfnl.Buffer
		for _, r := range part {
			buf.Add(r)
		}
		if err := nl.Send(&buf); err != nil {
			return err
		}
		answered := 0
		err := nl.Receive(func(a nfnl.Answer, isErr bool, errno unix.Errno) (bool, error) {
			if isErr && errno != unix.ENOENT && errno != 0 {
				return true, errno
			}
			if isErr && errno == 0 {
				return false, nil
			}
			answered++
			err := fn(start+int(a.Seq)-1, a.Attrs)
			return answered == len(part), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// look returns what stands at the keys of elems, in their order; without a key: nothing.
func look(nl *nfnl.Conn, elems []Elem) ([]Elem, error) {
	all := make([]Elem, len(elems))
	requests := make([]nfnl.Message, len(elems))
	for i, e := range elems {
		requests[i] = askElem(e)
	}
	err := ask(nl, requests, func(i int, attrs []byte) error {
		return ruleset.DecodeElems(elems[i].Set, attrs, func(e Elem) { all[i] = e })
	})
	return all, err
}

// generationOf returns the number of the last transaction, by whatever program.
func generationOf(nl *nfnl.Conn) (n uint32, err error) {
	err = ask(nl, []nfnl.Message{message(unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, nil)}, func(_ int, attrs []byte) error {
		n = nfnl.Uint32(nfnl.Find(attrs, unix.NFTA_GEN_ID))
		return nil
	})
	if errors.Is(err, unix.EINVAL) { // nfnetlink does not know this subsystem
		return 0, fmt.Errorf("nf_tables: %w", firewall.ErrUnsupported)
	}
	return n, err
}

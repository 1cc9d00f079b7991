package transaction

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/fastpath"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nfnl"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// ErrRefused says that an error is the kernel's answer to a transaction.
var ErrRefused error = &sentinel.Error{Text: "nf_tables transaction refused"}

// Batch gathers the messages of one transaction on tables of one name.
type Batch struct {
	table string
	buf   nfnl.Buffer
	any   bool
	// elems wait for more of the same message and set to come.
	elems []ruleset.Elem
	typ   uint8
	bytes int
}

// maxList bounds a list of elements: the length of an attribute has 16 bits.
const maxList = 32 << 10

// New returns an empty batch. If the rules are of another generation by then, Commit is
// unix.ERESTART; 0: of any.
func New(table string, generation uint32) *Batch {
	b := &Batch{table: table}
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

// Any says that something was added.
func (b *Batch) Any() bool { return b.any }

// Bytes are all messages that were added.
func (b *Batch) Bytes() []byte {
	b.flush()
	return b.buf.Bytes()
}

// Add adds a message.
func (b *Batch) Add(typ uint8, flags uint16, family uint8, put func(*nfnl.Attrs)) {
	b.flush()
	b.any = true
	b.buf.Add(Message(typ, flags, family, put))
}

// AddTable adds a table that is not there.
func (b *Batch) AddTable(family uint8) {
	b.Add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, family, func(a *nfnl.Attrs) { a.String(unix.NFTA_TABLE_NAME, b.table) })
}

// AddChain adds a chain, which may be there.
func (b *Batch) AddChain(family uint8, c ruleset.Chain) {
	b.Add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_CHAIN_TABLE, b.table)
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

// AddRule adds a rule behind the others of a chain.
func (b *Batch) AddRule(family uint8, chain string, r ruleset.Rule) {
	b.Add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, b.table)
		a.String(unix.NFTA_RULE_CHAIN, chain)
		a.Nest(unix.NFTA_RULE_EXPRESSIONS, func(a *nfnl.Attrs) {
			for _, x := range r.Does() {
				x.Encode(a)
			}
		})
		a.Bytes(unix.NFTA_RULE_USERDATA, ruleset.FormatComment(r.Why))
	})
}

// Put adds e; if its key is there, nothing changes, not even its owner.
func (b *Batch) Put(e ruleset.Elem) { b.gather(unix.NFT_MSG_NEWSETELEM, e) }

// Del adds the deletion of e; one that is not there fails the transaction.
func (b *Batch) Del(e ruleset.Elem) { b.gather(unix.NFT_MSG_DELSETELEM, e) }

// gather sends elements of one set in one message as far as they follow each other.
func (b *Batch) gather(typ uint8, e ruleset.Elem) {
	const overhead = 64
	size := len(e.Key) + len(e.End) + len(e.Data) + len(e.Owner) + overhead
	if len(b.elems) > 0 && (b.typ != typ || b.elems[0].Set != e.Set || b.bytes+size > maxList) {
		b.flush()
	}
	b.typ, b.any = typ, true
	b.elems = append(b.elems, e)
	b.bytes += size
}

func (b *Batch) flush() {
	if len(b.elems) == 0 {
		return
	}
	elems, flags := b.elems, uint16(0)
	if b.typ == unix.NFT_MSG_NEWSETELEM {
		flags = unix.NLM_F_CREATE
	}
	b.buf.Add(Message(b.typ, flags, elems[0].Set.Family, func(a *nfnl.Attrs) {
		encodeElems(a, b.table, b.typ == unix.NFT_MSG_NEWSETELEM, elems...)
	}))
	b.elems, b.bytes = nil, 0
}

// encodeElems writes a list of elements of one set; whole ones, or only what finds them.
func encodeElems(a *nfnl.Attrs, table string, whole bool, elems ...ruleset.Elem) {
	a.String(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	a.String(unix.NFTA_SET_ELEM_LIST_SET, elems[0].Set.Name)
	a.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(a *nfnl.Attrs) {
		for _, e := range elems {
			a.Nest(unix.NFTA_LIST_ELEM, func(a *nfnl.Attrs) { e.Encode(a, whole) })
		}
	})
}

// Commit sends the batch as one transaction: all of it holds, or nothing. If its generation
// is not 0 and not the rules' any more, that is unix.ERESTART. A transaction that fails
// otherwise, or that deletes something, has the kernel wait for the readers of the rules
// (RCU), some 10 ms: the first at once, the second when the next netfilter socket of the
// namespace is closed. Flows on the fast path are judged anew.
func (b *Batch) Commit(nl *nfnl.Conn) error {
	b.flush()
	if !b.any {
		return nil
	}
	// Only the last message asks for an answer: it is the only one on success, and on
	// failure what went wrong before it comes first.
	b.buf.AckLast()
	b.buf.Add(edge(unix.NFNL_MSG_BATCH_END, nil))
	if err := nl.Send(&b.buf); err != nil {
		return err
	}
	err := nl.Receive(func(_ nfnl.Answer, isErr bool, errno unix.Errno) (bool, error) {
		if isErr && errno != 0 {
			return true, fmt.Errorf("%w: %w", ErrRefused, errno)
		}
		return isErr, nil
	})
	return errors.Join(err, fastpath.Changed()) // whatever was answered, it may hold
}

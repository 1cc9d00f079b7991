package balance

import (
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// batch is a transaction on the tables of services. Their elements have no owners, and so no
// comments: the memory of hundreds of thousands counts.
type batch struct{ *transaction.Batch }

func newBatch(generation uint32) *batch { return &batch{transaction.New(TableName, generation)} }

// writeTable adds a table that is not there.
func (b *batch) writeTable(t ruleset.Table) {
	b.WriteRules(t, b.addSet)
	b.AddChain(t.Family, ruleset.Chain{Name: releaseOf(t)})
}

// nftaSetExpr is NFTA_SET_EXPR: what each element of a set has (Linux 5.7).
const nftaSetExpr = 17

func (b *batch) addSet(s *ruleset.Set, id uint32) {
	datatype, size := s.Key.Datatype()
	b.Add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.Family, func(a *nfnl.Attrs) {
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
		if data := s.UserData(); data != nil {
			a.Bytes(unix.NFTA_SET_USERDATA, data)
		}
	})
}

// isCounted says that each element of s counts the packets that meet it.
func isCounted(s *ruleset.Set) bool {
	return s.Name == "ports4" || s.Name == "ports6" || s.Name == "led4" || s.Name == "led6"
}

// look returns what stands at the keys of elems, in their order; without a key: nothing.
func look(nl *nfnl.Conn, elems []Elem) ([]Elem, error) {
	all := make([]Elem, len(elems))
	requests := make([]nfnl.Message, len(elems))
	for i, e := range elems {
		requests[i] = transaction.GetElem(TableName, e)
	}
	err := transaction.Ask(nl, requests, func(i int, attrs []byte) error {
		return ruleset.DecodeElems(elems[i].Set, attrs, func(e Elem) { all[i] = e })
	})
	return all, err
}

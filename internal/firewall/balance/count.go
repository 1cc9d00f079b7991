package balance

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Counts returns how many connections have met elements of Ports and Led, in their order; 0 for
// those that are not there.
func (t *Tables) Counts(ctx context.Context, elems []Elem) ([]uint64, error) {
	all := make([]uint64, len(elems))
	err := t.sockets.Do(ctx, func(nl *nfnl.Conn) error {
		var requests []nfnl.Message
		for _, e := range elems {
			requests = append(requests, transaction.GetElem(TableName, e))
		}
		return transaction.Ask(nl, requests, func(i int, attrs []byte) error {
			return eachCount(attrs, func(_ []byte, n uint64) { all[i] = n })
		})
	})
	return all, firewall.AsUnsupported(err)
}

// AllCounts is Counts for all elements that there are: cheaper, if most of them are wanted.
func (t *Tables) AllCounts(ctx context.Context) (all map[ruleset.Slot]uint64, err error) {
	err = t.sockets.Do(ctx, func(nl *nfnl.Conn) error {
		all = map[ruleset.Slot]uint64{}
		for _, s := range []*ruleset.Set{&t.V4.Ports, &t.V6.Ports, &t.V4.Led, &t.V6.Led} {
			err := nl.Dump(transaction.Message(unix.NFT_MSG_GETSETELEM, 0, s.Family, func(a *nfnl.Attrs) {
				a.String(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
				a.String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
			}), func(a nfnl.Answer) error {
				return eachCount(a.Attrs, func(key []byte, n uint64) { all[Elem{Set: s, Key: key}.Slot()] = n })
			})
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
		return nil
	})
	return all, firewall.AsUnsupported(err)
}

// eachCount reads the counters of the elements in an answer.
func eachCount(attrs []byte, fn func(key []byte, n uint64)) error {
	return nfnl.Each(nfnl.Find(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS), func(_ uint16, elem []byte) error {
		data := nfnl.Find(nfnl.Find(elem, unix.NFTA_SET_ELEM_EXPR), unix.NFTA_EXPR_DATA)
		fn(nfnl.Find(nfnl.Find(elem, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE), nfnl.Uint64(nfnl.Find(data, unix.NFTA_COUNTER_PACKETS)))
		return nil
	})
}

package conntrack

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Count returns how many connections each address has begun or answers, as it is behind all
// translation. Addresses without any are not in it; a kernel that tracks no connections has
// none.
func (t *Table) Count(ctx context.Context) (flows map[netip.Addr]int, err error) {
	if n, err := t.entries(); n == 0 || err != nil {
		return nil, err
	}
	err = t.sockets.Once(ctx, func(c *nfnl.Conn) error {
		if err := c.SetTimeout(bound(ctx)); err != nil {
			return err
		}
		return repeat(func() error {
			flows = map[netip.Addr]int{}
			return c.Dump(nfnl.Message{Subsystem: unix.NFNL_SUBSYS_CTNETLINK, Type: msgGet}, func(a nfnl.Answer) error {
				from := parseTuple(nfnl.Find(a.Attrs, ctaTupleOrig)).src
				by := parseTuple(nfnl.Find(a.Attrs, ctaTupleReply)).src
				if flows[from]++; by != from {
					flows[by]++
				}
				return nil
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("count conntrack entries: %w", err)
	}
	return flows, nil
}

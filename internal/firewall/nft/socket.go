package nft

import (
	"context"

	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// conn speaks nf_tables on a netlink socket.
type conn struct{ nl *nfnl.Conn }

// do runs fn on a socket in the thread's network namespace, again as long as
// fn returns ERESTART: the rules changed under it.
func (f *Firewall) do(ctx context.Context, fn func(*conn) error) error {
	return f.sockets.Do(ctx, func(nl *nfnl.Conn) error { return fn(&conn{nl}) })
}

// transact sends what fill adds to a batch, which may look at the rules first:
// should they have changed by then, both are done anew.
func (f *Firewall) transact(ctx context.Context, fill func(*conn, *batch) error) error {
	return f.do(ctx, func(c *conn) error {
		generation, err := transaction.Generation(c.nl)
		if err != nil {
			return err
		}
		b := newBatch(generation)
		if err := fill(c, b); err != nil {
			return err
		}
		return b.Commit(c.nl)
	})
}

// Close closes the sockets that earlier calls left open; f can be used again.
// A program that ends anyway need not call it. A socket keeps its network
// namespace alive.
func (f *Firewall) Close() error { return f.sockets.Close() }

package admit

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// ErrLost says that the tables are not there as this release writes them.
var ErrLost = errors.New("the rules of NetworkPolicies are not in the kernel, or changed by another program")

// MarkPath is a file in a state directory that is there while ln-agent is to enforce policies on this
// host.
func MarkPath(stateDir string) string { return filepath.Join(stateDir, "overlay", "network-policy") }

// Tables are our tables in the network namespace of the calling thread. They hold no state but open
// sockets and what the kernel can do, and may be used by many goroutines.
type Tables struct {
	*Sets
	sockets nfnl.Pool   // to look
	writers nfnl.Pool   // to change
	blind   atomic.Bool // Replace has found that the kernel has no classes of routes
	forms   func() [][]form
	ports   sync.Map // port IDs, as uint32, of sockets that changed the tables
}

// form is a table as it is written, and the name of the chain that says so.
type form struct {
	ruleset.Table
	release string
}

// New opens nothing.
func New() *Tables {
	s := NewSets()
	return &Tables{Sets: s, forms: sync.OnceValue(s.forms)}
}

// forms are those of the tables on a kernel with classes of routes, and on one without. To make them
// takes longer than to change elements.
func (s *Sets) forms() (all [][]form) {
	for _, blind := range []bool{false, true} {
		var forms []form
		for _, t := range s.tables(blind) {
			forms = append(forms, form{t, transaction.ReleaseOf(TableName, t)})
		}
		all = append(all, forms)
	}
	return all
}

// Close closes the sockets that earlier calls left open; t can be used again.
func (t *Tables) Close() error {
	t.ports.Clear()
	return errors.Join(t.sockets.Close(), t.writers.Close())
}

// Wrote says whether the netlink socket with this port ID is one that we change the tables by.
func (t *Tables) Wrote(port uint32) bool {
	_, did := t.ports.Load(port)
	return did
}

// change calls fn, which changes the tables, with a socket.
func (t *Tables) change(ctx context.Context, fn func(*nfnl.Conn) error) error {
	return t.writers.Do(ctx, func(nl *nfnl.Conn) error {
		port, err := nl.Port()
		if err != nil {
			return err
		}
		t.ports.Store(port, true)
		if err = fn(nl); err != nil && !errors.Is(err, unix.ERESTART) {
			t.ports.Delete(port) // the socket will be closed: another program's may get its port
		}
		return err
	})
}

// Replace writes the tables with these elements, and no others, in one transaction: a packet meets
// what was there before, or all of it. The error is firewall.ErrUnsupported if the kernel lacks
// something.
func (t *Tables) Replace(ctx context.Context, elems []Elem) error {
	err := t.replace(ctx, elems)
	if err = firewall.AsUnsupported(err); errors.Is(err, firewall.ErrUnsupported) && t.blind.CompareAndSwap(false, true) {
		if err = firewall.AsUnsupported(t.replace(ctx, elems)); err != nil {
			t.blind.Store(false)
		}
	}
	if err != nil {
		return fmt.Errorf("write the rules of NetworkPolicies: %w", err)
	}
	return nil
}

func (t *Tables) replace(ctx context.Context, elems []Elem) error {
	return t.change(ctx, func(nl *nfnl.Conn) error {
		b, err := t.begin(nl)
		if err != nil {
			return err
		}
		if err := t.drop(nl, b); err != nil {
			return err
		}
		for _, table := range t.tables(t.blind.Load()) {
			b.WriteTable(table)
		}
		for _, e := range elems {
			b.Put(e)
		}
		return b.Commit(nl)
	})
}

// stand says whether the tables are there as this release writes them, on this kernel or on one with
// classes of routes, and whether any of them is there at all.
func (t *Tables) stand(nl *nfnl.Conn) (whole, there bool, err error) {
	for _, forms := range t.forms() {
		whole = true
		for _, f := range forms {
			is, any, err := transaction.StandsAs(nl, TableName, f.Table, f.release)
			if err != nil {
				return false, false, err
			}
			whole, there = whole && is, there || any
		}
		if whole || !there {
			break
		}
	}
	return whole, there, nil
}

func (t *Tables) begin(nl *nfnl.Conn) (*transaction.Batch, error) {
	generation, err := transaction.Generation(nl)
	return transaction.New(TableName, generation), err
}

// Change takes elements away that are there, and adds others, in one transaction. It is ErrLost if
// the tables are not as Replace wrote them, or an element of gone is missing.
func (t *Tables) Change(ctx context.Context, gone, added []Elem) error {
	err := t.change(ctx, func(nl *nfnl.Conn) error {
		b, err := t.begin(nl)
		if err != nil {
			return err
		}
		if whole, _, err := t.stand(nl); err != nil {
			return err
		} else if !whole {
			return ErrLost
		}
		for _, e := range gone {
			b.Del(e)
		}
		for _, e := range added {
			b.Put(e)
		}
		err = b.Commit(nl)
		if errors.Is(err, unix.ENOENT) {
			return ErrLost
		}
		return err
	})
	if errors.Is(err, ErrLost) {
		return err
	}
	if err != nil {
		return fmt.Errorf("change the rules of NetworkPolicies: %w", firewall.AsUnsupported(err))
	}
	return nil
}

// Whole says whether the tables are there as this release writes them, and whether any of them is
// there at all. Elements are not looked at.
func (t *Tables) Whole(ctx context.Context) (whole, there bool, err error) {
	err = t.sockets.Do(ctx, func(nl *nfnl.Conn) (err error) {
		whole, there, err = t.stand(nl)
		return err
	})
	return whole, there, firewall.AsUnsupported(err)
}

// List lists all elements of our sets. Its cost grows with their number.
func (t *Tables) List(ctx context.Context) (all transaction.Listing, err error) {
	err = t.sockets.Once(ctx, func(nl *nfnl.Conn) (err error) {
		all, err = transaction.List(nl, TableName, t.tables(false))
		return err
	})
	return all, firewall.AsUnsupported(err)
}

// drop adds the deletion of those tables that are there.
func (t *Tables) drop(nl *nfnl.Conn, b *transaction.Batch) error {
	for _, table := range t.tables(false) {
		if _, there, err := transaction.StandsAs(nl, TableName, table); err != nil {
			return err
		} else if there {
			b.DropTable(table.Family)
		}
	}
	return nil
}

// Drop removes the tables: no pod is isolated, and none is closed. No tables are success.
func (t *Tables) Drop(ctx context.Context) error {
	err := t.change(ctx, func(nl *nfnl.Conn) error {
		b, err := t.begin(nl)
		if err != nil {
			return err
		}
		if err := t.drop(nl, b); err != nil {
			return err
		}
		return b.Commit(nl)
	})
	if errors.Is(err, firewall.ErrUnsupported) {
		return nil
	}
	return firewall.AsUnsupported(err)
}

package balance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Tables are our tables in the network namespace of the calling thread. They hold no
// state but open sockets, and may be used by many goroutines.
type Tables struct {
	Families
	sockets nfnl.Pool
}

// New opens nothing.
func New() *Tables { return &Tables{Families: NewFamilies()} }

// Close closes the sockets that earlier calls left open; t can be used again.
func (t *Tables) Close() error { return t.sockets.Close() }

// Apply puts the elements of want in place, and takes those of gone away, in one
// transaction: packets meet either all of it or nothing. An element of gone at the key of
// one of want is passed over. Tables that are missing, or not as this release writes them,
// are written in the same transaction; fresh then says that the elements of others are gone.
// The error is firewall.ErrUnsupported if the kernel lacks something.
func (t *Tables) Apply(ctx context.Context, want, gone []Elem) (fresh bool, err error) {
	return t.ApplyNew(ctx, nil, want, gone)
}

// ApplyNew is Apply, of want and of elements that are probably missing: it looks for these only if
// the kernel has something else in the place of one.
func (t *Tables) ApplyNew(ctx context.Context, missing, want, gone []Elem) (fresh bool, err error) {
	err = t.sockets.Do(ctx, func(nl *nfnl.Conn) (err error) {
		fresh, err = t.apply(nl, missing, want, gone)
		return err
	})
	if len(missing) > 0 && (errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY)) {
		return t.Apply(ctx, slices.Concat(missing, want), gone)
	}
	if err != nil {
		return false, fmt.Errorf("apply rules of services: %w", firewall.AsUnsupported(err))
	}
	return fresh, nil
}

func (t *Tables) apply(nl *nfnl.Conn, missing, want, gone []Elem) (fresh bool, err error) {
	generation, err := transaction.Generation(nl)
	if err != nil {
		return false, err
	}
	b, lost := newBatch(generation), map[uint8]bool{}
	for _, table := range t.tables() {
		whole, there, err := stands(nl, table)
		if err != nil {
			return false, err
		}
		if whole {
			continue // it goes on as it is: connections meet it meanwhile
		}
		if there {
			b.DropTable(table.Family)
		}
		b.writeTable(table)
		lost[table.Family] = true
	}
	if gone = without(gone, missing); len(lost) > 0 {
		isLost := func(e Elem) bool { return lost[e.Set.Family] }
		isThere := func(e Elem) bool { return !isLost(e) }
		all := slices.Concat(missing, want)
		missing, want = slices.DeleteFunc(slices.Clone(all), isThere), slices.DeleteFunc(all, isLost)
		gone = slices.DeleteFunc(gone, isLost)
	}
	for _, e := range missing {
		b.Put(e)
	}
	if err := b.change(nl, want, gone); err != nil {
		return false, err
	}
	return len(lost) > 0, b.Commit(nl)
}

// change adds to b what differs from what stands there.
func (b *batch) change(nl *nfnl.Conn, want, gone []Elem) error {
	there, err := look(nl, want)
	if err != nil {
		return err
	}
	for i, e := range want {
		switch {
		case there[i].Key == nil:
			b.Put(e)
		case !bytes.Equal(there[i].Data, e.Data):
			b.Del(e)
			b.Put(e)
		}
	}
	gone = without(gone, want)
	there, err = look(nl, gone)
	if err != nil {
		return err
	}
	for i, e := range gone {
		if there[i].Key != nil {
			b.Del(e)
		}
	}
	return nil
}

// without returns those of gone that are at no key of want, each once.
func without(gone, want []Elem) []Elem {
	wanted := make(map[ruleset.Slot]bool, len(want))
	for _, e := range want {
		wanted[e.Slot()] = true
	}
	return slices.DeleteFunc(ruleset.Dedupe(slices.Clone(gone)), func(e Elem) bool { return wanted[e.Slot()] })
}

// Differs returns the elements of want that are missing or give something else, and those of
// gone that are there. Of a table that is missing, or not as this release writes it, nothing is there.
func (t *Tables) Differs(ctx context.Context, want, gone []Elem) (missing, stray []Elem, err error) {
	err = t.sockets.Do(ctx, func(nl *nfnl.Conn) error {
		missing, stray = nil, nil
		lost := map[uint8]bool{}
		for _, table := range t.tables() {
			whole, _, err := stands(nl, table)
			if err != nil {
				return err
			}
			lost[table.Family] = !whole
		}
		gone := without(gone, want)
		want := slices.Clone(want)
		for _, all := range []*[]Elem{&want, &gone} {
			*all = slices.DeleteFunc(*all, func(e Elem) bool {
				if lost[e.Set.Family] && all == &want {
					missing = append(missing, e)
				}
				return lost[e.Set.Family]
			})
		}
		there, err := look(nl, want)
		if err != nil {
			return err
		}
		for i, e := range want {
			if there[i].Key == nil || !bytes.Equal(there[i].Data, e.Data) {
				missing = append(missing, e)
			}
		}
		there, err = look(nl, gone)
		for i, e := range gone {
			if err == nil && there[i].Key != nil {
				stray = append(stray, e)
			}
		}
		return err
	})
	return missing, stray, firewall.AsUnsupported(err)
}

// Whole says that our tables are there as this release writes them. Elements are not looked at.
func (t *Tables) Whole(ctx context.Context) (all bool, err error) {
	err = t.sockets.Do(ctx, func(nl *nfnl.Conn) error {
		all = true
		for _, table := range t.tables() {
			whole, _, err := stands(nl, table)
			if all = all && whole; err != nil {
				return err
			}
		}
		return nil
	})
	return all, firewall.AsUnsupported(err)
}

// Drop removes our tables with all that is in them, if unused says that no service is there; no
// tables are success. A service that is recorded before it is applied keeps its elements: what
// changes after unused was asked makes it ask again.
func (t *Tables) Drop(ctx context.Context, unused func() (bool, error)) error {
	err := t.sockets.Do(ctx, func(nl *nfnl.Conn) error {
		generation, err := transaction.Generation(nl)
		if err != nil {
			return err
		}
		if is, err := unused(); !is || err != nil {
			return err
		}
		b := newBatch(generation)
		for _, table := range t.tables() {
			if _, there, err := stands(nl, table); err != nil {
				return err
			} else if there {
				b.DropTable(table.Family)
			}
		}
		if !b.Any() {
			return nil
		}
		return b.Commit(nl)
	})
	if errors.Is(err, firewall.ErrUnsupported) {
		return nil
	}
	return firewall.AsUnsupported(err)
}

// List returns all elements of our sets. Its cost grows with their number.
func (t *Tables) List(ctx context.Context) (all []Elem, err error) {
	err = t.sockets.Do(ctx, func(nl *nfnl.Conn) (err error) {
		all, err = transaction.Elems(nl, TableName, t.tables())
		return err
	})
	return all, firewall.AsUnsupported(err)
}

// stands says whether a table is there, and whether it is as this release writes it.
func stands(nl *nfnl.Conn, t ruleset.Table) (whole, there bool, err error) {
	return transaction.StandsAs(nl, TableName, t, releaseOf(t))
}

// releaseOf names the chain that tells which release wrote the table.
func releaseOf(t ruleset.Table) string {
	b := newBatch(0)
	b.WriteRules(t, b.addSet)
	return b.Release()
}

package nft

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nfnl"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// sum is the hash of all that ensure writes but the chains of release and written.
func sum(t ruleset.Table) string {
	b := newBatch(0)
	b.write(t)
	h := fnv.New64a()
	_, _ = h.Write(b.Bytes())
	return fmt.Sprintf("%016x", h.Sum64())
}

// Complete says that our tables hold the elements of all networks and endpoints:
// until then each Apply returns restored. Tables that are complete, or of another
// release, or not there, stay as they are.
func (f *Firewall) Complete(ctx context.Context) error {
	err := f.transact(ctx, func(c *conn, b *batch) error {
		for _, family := range ruleset.TableFamilies {
			t := ruleset.TableOf(family)
			state, err := c.stateOf(t)
			if err != nil {
				return err
			}
			if state == tableWritten {
				b.AddChain(family, t.Release())
			}
		}
		return nil
	})
	if err := absent(firewall.AsUnsupported(err)); err != nil {
		return fmt.Errorf("note that all rules are there: %w", err)
	}
	return nil
}

// Restore writes each of our tables anew that is there and differs in any rule
// from what this release writes, in one transaction per table: packets meet
// either the old rules or the new ones. Elements stay, but for those without an
// owner, which are not ours. It returns whether it
// wrote anything; Complete has to follow once the elements of all are there.
func (f *Firewall) Restore(ctx context.Context) (changed bool, err error) {
	for _, family := range ruleset.TableFamilies {
		t := ruleset.TableOf(family)
		for _, mend := range []func(*conn, *batch, ruleset.Table) (bool, error){(*conn).restore, (*conn).weed} {
			wrote := false
			err := f.transact(ctx, func(c *conn, b *batch) (err error) {
				wrote, err = mend(c, b, t)
				return err
			})
			if err := absent(firewall.AsUnsupported(err)); err != nil {
				return changed, fmt.Errorf("restore rules of table %s: %w", t, err)
			}
			changed = changed || wrote
		}
	}
	return changed, nil
}

// restore adds to b what writes a table anew that differs.
func (c *conn) restore(b *batch, t ruleset.Table) (bool, error) {
	differs, err := c.differs(t)
	if err != nil || !differs {
		return false, err
	}
	return true, c.renew(b, t)
}

// weed adds to b the deletion of elements that are not ours.
func (c *conn) weed(b *batch, t ruleset.Table) (bool, error) {
	foreign, err := c.ownerless(t)
	for _, e := range foreign {
		b.Del(e)
	}
	return len(foreign) > 0, err
}

// differs says whether a table is there and not as this release writes it.
func (c *conn) differs(t ruleset.Table) (bool, error) {
	state, err := c.stateOf(t)
	if err != nil || state == tableMissing {
		return false, err
	}
	d := differences{c: c} // in a transaction, which fails if something changed
	err = d.rules(t, nil)
	return state == tableBroken || len(d.all) > 0, err
}

// heldChain is a chain as it stands in a table.
type heldChain struct {
	name, kind string
	hook       uint32
	priority   int32
}

// chains returns the chains of our table of a family.
func (c *conn) chains(family uint8) ([]heldChain, error) {
	var all []heldChain
	err := c.dump(unix.NFT_MSG_GETCHAIN, family, nil, func(attrs []byte) error {
		if nfnl.Text(attrs, unix.NFTA_CHAIN_TABLE) != firewall.TableName {
			return nil
		}
		all = append(all, readChain(attrs))
		return nil
	})
	return all, err
}

func readChain(attrs []byte) heldChain {
	hook := nfnl.Find(attrs, unix.NFTA_CHAIN_HOOK)
	return heldChain{
		nfnl.Text(attrs, unix.NFTA_CHAIN_NAME), nfnl.Text(attrs, unix.NFTA_CHAIN_TYPE),
		nfnl.Uint32(nfnl.Find(hook, unix.NFTA_HOOK_HOOKNUM)), int32(nfnl.Uint32(nfnl.Find(hook, unix.NFTA_HOOK_PRIORITY))),
	}
}

// renew adds to b what makes a table that is there stand as this release writes
// it. Sets that stay what they were keep their elements; those of another type
// are made anew, with their elements in the new form as far as that can be told.
// Everything else in the table is of another release and goes. The contents that c saw
// must not change until b is sent.
func (c *conn) renew(b *batch, t ruleset.Table) error {
	chains, err := c.chains(t.Family)
	if err != nil {
		return err
	}
	sets, err := c.sets(t.Family)
	if err != nil {
		return err
	}
	moved, err := c.convert(t, sets)
	if err != nil {
		return err
	}
	b.wake(t) // first: what is added or deleted then is so for packets, too
	if err := c.delForeignMarks(b, t); err != nil {
		return err
	}
	for _, ch := range chains { // no rule may lead to a chain or a set that goes
		if ch.name != ruleset.MarksChain && !ruleset.IsGateChain(ch.name) {
			b.delRules(t.Family, ch.name)
		}
	}
	for _, ch := range chains {
		if !ch.stays(t) {
			b.delChain(t.Family, ch.name)
		}
	}
	for _, s := range sets {
		if !s.stays(t) {
			b.delSet(t.Family, s.name)
		}
	}
	b.write(t)
	b.AddChain(t.Family, t.Written())
	for _, e := range moved {
		b.Put(e)
	}
	if t.Family == unix.NFPROTO_INET { // which network is strict is not looked up here
		b.putStrict()
	}
	return nil
}

// stays says that a chain is one of t.
func (h heldChain) stays(t ruleset.Table) bool {
	return ruleset.IsGateChain(h.name) || slices.ContainsFunc(t.Chains, func(c ruleset.Chain) bool {
		return c.Name == h.name && h.at(c)
	})
}

// at says that it is of the kind of ch, and at its place.
func (h heldChain) at(ch ruleset.Chain) bool {
	return ch.Kind == h.kind && (ch.Kind == "" || ch.Hook == h.hook && ch.Priority == h.priority)
}

// maxRenewals bounds how often a table is written anew for one Apply.
const maxRenewals = 3

// errBroken says that a table has to be written anew first.
var errBroken error = &sentinel.Error{Text: "rules are missing, or of another release"}

// make adds a table that is not there.
func (b *batch) make(t ruleset.Table, complete bool) {
	b.ensure(t)
	if complete {
		b.AddChain(t.Family, t.Release())
	}
}

// renew writes those of tables anew that are not whole, or all that are there.
// Each is a transaction of its own: until it is through it is not known of what
// type the sets are.
func (f *Firewall) renew(ctx context.Context, tables []ruleset.Table, all bool) error {
	for _, t := range tables {
		err := f.transact(ctx, func(c *conn, b *batch) error {
			state, err := c.stateOf(t)
			if err == nil && (state == tableBroken || all && state != tableMissing) {
				err = c.renew(b, t)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// renewOther writes those of our tables anew that are there and of another
// release: it may have other elements.
func (f *Firewall) renewOther(ctx context.Context) error {
	var others []ruleset.Table
	err := f.do(ctx, func(c *conn) error {
		others = nil
		var requests []nfnl.Message
		for _, family := range ruleset.TableFamilies {
			mark := ruleset.Table{Family: family}
			requests = append(requests, askTable(family), askChain(family, mark.Release().Name), askChain(family, mark.Written().Name))
		}
		there, err := c.holds(requests...)
		if errors.Is(err, unix.EINVAL) { // nfnetlink does not know this subsystem
			err = fmt.Errorf("nf_tables: %w", firewall.ErrUnsupported)
		}
		if err != nil {
			return err
		}
		for i, family := range ruleset.TableFamilies {
			if there[3*i] && !there[3*i+1] && !there[3*i+2] {
				others = append(others, ruleset.TableOf(family))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.renew(ctx, others, true)
}

// drop adds the deletion of a table that is there, with its elements.
func (c *conn) drop(b *batch, t ruleset.Table) error {
	marks := []ruleset.Chain{t.Release(), t.Written()}
	there, err := c.holds(askChain(t.Family, marks[0].Name), askChain(t.Family, marks[1].Name))
	if err != nil {
		return err
	}
	for i, m := range marks {
		if there[i] {
			b.delChain(t.Family, m.Name)
		}
	}
	b.drop(t)
	return nil
}

package nft

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// standing is what the kernel says of one of our tables and of some of its chains,
// without their rules.
type standing struct {
	there   bool
	dormant bool // no packet meets its rules
	use     int  // how many chains, sets and others are in it, by whomever
	// complete and written: it has the chains of that name, see release.go.
	complete, written bool

	asked []ruleset.Chain
	uses  []int  // of each, by its rules and by jumps to it; -1: it is not there
	moved []bool // it has another place or policy than ours
}

// fixedChains are the chains of t that tell, when all rules are there, what else is
// there: those that have a place, and that of which others' chains are counted.
func fixedChains(t ruleset.Table) []ruleset.Chain {
	return slices.DeleteFunc(slices.Clone(t.Chains), func(ch ruleset.Chain) bool { return ch.Kind == "" && ch.Name != ruleset.MetChain })
}

// standing asks for a table and for some of its chains.
func (c *conn) standing(t ruleset.Table, chains []ruleset.Chain) (standing, error) {
	now := standing{asked: chains, uses: make([]int, len(chains)), moved: make([]bool, len(chains))}
	requests := make([]nfnl.Message, 0, len(chains)+3)
	requests = append(requests, askTable(t.Family), askChain(t.Family, t.Release().Name), askChain(t.Family, t.Written().Name))
	for _, ch := range chains {
		requests = append(requests, askChain(t.Family, ch.Name))
	}
	err := c.ask(requests, func(i int, attrs []byte) error {
		switch i {
		case 0:
			now.there = attrs != nil
			now.dormant = nfnl.Uint32(nfnl.Find(attrs, unix.NFTA_TABLE_FLAGS))&nftTableDormant != 0
			now.use = int(nfnl.Uint32(nfnl.Find(attrs, unix.NFTA_TABLE_USE)))
		case 1:
			now.complete = attrs != nil
		case 2:
			now.written = attrs != nil
		default:
			now.uses[i-3], now.moved[i-3] = ruleCount(attrs), !stands(chains[i-3], attrs)
		}
		return nil
	})
	return now, err
}

// nftTableDormant is NFT_TABLE_F_DORMANT.
const nftTableDormant = 1

// stands says that what the kernel has of a chain is at our place, with our policy.
func stands(ch ruleset.Chain, attrs []byte) bool {
	if ch.Kind == "" {
		return nfnl.Find(attrs, unix.NFTA_CHAIN_HOOK) == nil
	}
	return readChain(attrs).at(ch) && nfnl.Uint32(nfnl.Find(attrs, unix.NFTA_CHAIN_POLICY)) == ruleset.VerdictAccept
}

// stopped says that rules may all be there, and packets not meet them, or not
// only them.
func (s standing) stopped() bool { return s.dormant || slices.Contains(s.moved, true) }

// wanted is how many chains and sets are in the table if nothing foreign is. Each
// chain of an endpoint with conditions has a rule that leads to chain met.
func (s standing) wanted(t ruleset.Table) int {
	n := len(t.Sets) + len(t.Chains)
	for _, is := range []bool{s.complete, s.written} {
		if is {
			n++
		}
	}
	for i, ch := range s.asked {
		if ch.Name == ruleset.MetChain {
			n += s.uses[i] - len(ch.Rules)
		}
	}
	return n
}

// state is that of a table all of whose chains were asked for, but for what is
// foreign in it.
func (s standing) state() tableState {
	if !s.there {
		return tableMissing
	}
	if s.stopped() || !s.complete && !s.written {
		return tableBroken
	}
	for i, ch := range s.asked {
		if !intact(ch, s.uses[i]) {
			return tableBroken
		}
	}
	if !s.complete {
		return tableWritten
	}
	return tableIntact
}

// foreignChains returns the chains in a table of ours that are not ours. A base
// chain there can let packets by our rules, or drop what they let through.
func (c *conn) foreignChains(t ruleset.Table) ([]heldChain, error) {
	all, err := c.chains(t.Family)
	return slices.DeleteFunc(all, func(ch heldChain) bool {
		return ch.stays(t) || ch.name == t.Release().Name || ch.name == t.Written().Name
	}), err
}

// Ownerless returns the elements of our sets that have no owner, by name: none of
// ours is without. Without our tables there are none. Its cost grows with what exists.
func (f *Firewall) Ownerless(ctx context.Context) ([]string, error) {
	var all []string
	err := f.do(ctx, func(c *conn) error {
		all = nil
		if _, err := transaction.Generation(c.nl); err != nil {
			return err
		}
		for _, family := range ruleset.TableFamilies {
			elems, err := c.ownerless(ruleset.TableOf(family))
			if err != nil {
				return err
			}
			for _, e := range elems {
				all = append(all, e.String())
			}
		}
		return nil
	})
	if err := absent(firewall.AsUnsupported(err)); err != nil {
		return nil, fmt.Errorf("look for elements without an owner: %w", err)
	}
	return all, nil
}

// ownerless returns the elements of a table that have no owner and ought to.
func (c *conn) ownerless(t ruleset.Table) ([]ruleset.Elem, error) {
	var all []ruleset.Elem
	for _, s := range t.Sets {
		if s.Name == ruleset.Strict.Name {
			continue
		}
		elems, err := c.elems(s)
		if err != nil {
			return nil, err
		}
		all = append(all, slices.DeleteFunc(elems, func(e ruleset.Elem) bool { return e.Owner != "" })...)
	}
	return all, nil
}

package nft

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/tool"
)

// program reads the words of conditions.
const program = "nft"

// ConditionsAvailable says why conditions cannot be put in place; nil if they
// can. It starts no process.
func ConditionsAvailable() error {
	_, err := tool.Find(program)
	return err
}

// refuseUnknown looks for nft before anything is changed.
func refuseUnknown(gates []ruleset.Gate) error {
	for _, g := range gates {
		if err := ConditionsAvailable(); err != nil {
			return g.Wrap(err)
		}
	}
	return nil
}

// placeChains adds to b the chains that are missing.
func (c *conn) placeChains(b *batch, gates []ruleset.Gate) error {
	for _, g := range gates {
		there, err := c.holds(askChain(g.Sets.Family, g.Chain()))
		if err != nil {
			return err
		}
		if !there[0] {
			b.AddChain(g.Sets.Family, ruleset.Chain{Name: g.Chain()})
		}
	}
	return nil
}

// fill has nft write the rules of gates that have not the right one.
func (f *Firewall) fill(ctx context.Context, gates []ruleset.Gate) error {
	for _, g := range gates {
		full, err := f.isFull(ctx, g)
		if err != nil {
			return err
		}
		if full {
			continue
		}
		_, err = tool.Run(ctx, program, g.Script(), "-f", "-")
		var failed *tool.Error
		switch {
		case errors.As(err, &failed):
			return g.Wrap(fmt.Errorf("%w: nft: %s", firewall.ErrInvalid, complaint(failed.Says)))
		case err != nil:
			return err
		}
		if full, err := f.isFull(ctx, g); err != nil || !full {
			return errors.Join(g.Wrap(fmt.Errorf("%w: nft made something else than one rule of it", firewall.ErrInvalid)), err)
		}
	}
	return nil
}

// isFull says whether the chain has the rule with the words, and no other one.
func (f *Firewall) isFull(ctx context.Context, g ruleset.Gate) (full bool, err error) {
	err = f.do(ctx, func(c *conn) error {
		full, err = c.isFull(g)
		return err
	})
	return full, err
}

func (c *conn) isFull(g ruleset.Gate) (bool, error) {
	rules, err := c.rules(g.Sets.Family, g.Chain())
	return len(rules) == 1 && rules[0].why == g.Comment(), err
}

// complaint is what nft says is wrong, without the places, which are those of
// a script that the reader does not see.
func complaint(says string) string {
	var all []string
	for line := range strings.Lines(says) {
		if _, what, ok := strings.Cut(strings.TrimSpace(line), "Error: "); ok {
			all = append(all, what)
		}
	}
	if len(all) == 0 {
		return strings.Join(strings.Fields(says), " ")
	}
	return strings.Join(all, "; ")
}

// delGate adds the deletion of the owner's chain to b, and of the elements that
// lead there. An owner without a chain has no such element.
func (c *conn) delGate(b *batch, f *ruleset.FamilySets, owner string) error {
	for _, s := range f.Gates() {
		if err := c.delHeld(b, s, owner); err != nil {
			return err
		}
	}
	b.delChain(f.Family, ruleset.GateChain(owner))
	return nil
}

// gates compares the rules with words.
func (d *differences) gates(gates []ruleset.Gate) error {
	for _, g := range gates {
		full, err := d.c.isFull(g)
		if err != nil {
			return err
		}
		if !full {
			d.add(fmt.Sprintf("rule %s %s %s %q", ruleset.FamilyName(g.Sets.Family), firewall.TableName, g.Chain(), g.Comment()), firewall.ErrMissing)
		}
	}
	return nil
}

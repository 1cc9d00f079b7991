package firewall

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall/tool"
)

// Conditions are what only nft(8) can read. So an Endpoint with some has a chain
// of its own in a table of the family, whose one rule nft writes: the words, and
// then "goto met", where its ports are looked up. All else is as ever: the
// way into the chain is an element of a map, of one owner, and what is looked up
// are elements, so that neither packets nor changes meet other owners' words.
//
// Until the rule is there the chain is empty and the ports are closed.
//
// Tried and dropped: a rule per port with the words and the port. nft refuses
// "tcp sport 1024-65535" beside a port of UDP, and a "limit" would count for
// each rule; and the rules as gates before the maps of all ports: they would
// open the ports where another program deletes them.

// nft is the program.
const nft = "nft"

// gate is the chain of an owner in the table of one family.
type gate struct {
	sets  *familySets
	owner string // in the form of Key
	words []string
}

// conditions are those of a family; nil if there are none.
func (e Endpoint) conditions(f *familySets) []string {
	if f == ipv6() {
		return e.ConditionsIPv6
	}
	return e.ConditionsIPv4
}

// ConditionError says that nft did not take conditions, or is missing.
type ConditionError struct {
	IPv6  bool
	Words []string
	Err   error
}

// Error has the words and what nft says.
func (e *ConditionError) Error() string {
	return fmt.Sprintf("conditions %q: %v", strings.Join(e.Words, " "), e.Err)
}

// Unwrap returns what nft says, as ErrInvalid, or tool.ErrNotInstalled.
func (e *ConditionError) Unwrap() error { return e.Err }

func (g gate) wrap(err error) error {
	return &ConditionError{IPv6: g.sets == ipv6(), Words: g.words, Err: err}
}

// CheckConditions says why words cannot be the conditions of nft: what would end
// the rule that they stand in, or could begin another one, is ErrInvalid.
// Whether they have a meaning only nft knows.
func CheckConditions(words []string) error {
	depth := 0
	for _, w := range words {
		switch {
		case strings.ContainsFunc(w, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return fmt.Errorf("%w: %q has control characters", ErrInvalid, w)
		case strings.ContainsAny(w, `;#\`):
			return fmt.Errorf(`%w: %q has ";", "#" or "\"`, ErrInvalid, w)
		case strings.Count(w, `"`)%2 != 0:
			return fmt.Errorf("%w: %q has half of a pair of quotes", ErrInvalid, w)
		}
		for _, r := range w {
			switch r {
			case '{':
				depth++
			case '}':
				depth--
			}
			if depth < 0 {
				return fmt.Errorf("%w: %q closes a brace that is not open", ErrInvalid, w)
			}
		}
	}
	if depth > 0 {
		return fmt.Errorf("%w: a brace is left open", ErrInvalid)
	}
	return nil
}

// ConditionsAvailable says why conditions cannot be put in place; nil if they
// can. It starts no process.
func ConditionsAvailable() error {
	_, err := tool.Find(nft)
	return err
}

// chainPrefix starts the names of such chains.
const chainPrefix = "ep-"

func chainOf(owner string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(Key(owner)))
	return fmt.Sprintf(chainPrefix+"%016x", h.Sum64())
}

func (g gate) chain() string { return chainOf(g.owner) }

// comment is the owner, cut so that a hash of the words fits behind it: by that
// Verify knows them.
func (g gate) comment() string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(strings.Join(g.words, "\x00")))
	return fmt.Sprintf("%s %08x", shorten(g.owner, maxComment-len(" 12345678")), h.Sum32())
}

// script has nft leave one rule in the chain, the one with the words.
func (g gate) script() string {
	at := fmt.Sprintf("%s %s %s", familyName(g.sets.family), TableName, g.chain())
	return fmt.Sprintf("flush chain %s\nadd rule %s %s goto %s comment %q\n", at, at, strings.Join(g.words, " "), metChain, g.comment())
}

// refuseUnknown looks for nft before anything is changed.
func refuseUnknown(gates []gate) error {
	for _, g := range gates {
		if err := ConditionsAvailable(); err != nil {
			return g.wrap(err)
		}
	}
	return nil
}

// placeChains adds to b the chains that are missing.
func (c *conn) placeChains(b *batch, gates []gate) error {
	for _, g := range gates {
		there, err := c.holds(askChain(g.sets.family, g.chain()))
		if err != nil {
			return err
		}
		if !there[0] {
			b.addChain(g.sets.family, chain{name: g.chain()})
		}
	}
	return nil
}

// fill has nft write the rules of gates that have not the right one.
func (f *Firewall) fill(ctx context.Context, gates []gate) error {
	for _, g := range gates {
		full, err := f.isFull(ctx, g)
		if err != nil {
			return err
		}
		if full {
			continue
		}
		_, err = tool.Run(ctx, nft, g.script(), "-f", "-")
		var failed *tool.Error
		switch {
		case errors.As(err, &failed):
			return g.wrap(fmt.Errorf("%w: nft: %s", ErrInvalid, complaint(failed.Says)))
		case err != nil:
			return err
		}
		if full, err := f.isFull(ctx, g); err != nil || !full {
			return errors.Join(g.wrap(fmt.Errorf("%w: nft made something else than one rule of it", ErrInvalid)), err)
		}
	}
	return nil
}

// isFull says whether the chain has the rule with the words, and no other one.
func (f *Firewall) isFull(ctx context.Context, g gate) (full bool, err error) {
	err = f.do(ctx, func(c *conn) error {
		full, err = c.isFull(g)
		return err
	})
	return full, err
}

func (c *conn) isFull(g gate) (bool, error) {
	rules, err := c.rules(g.sets.family, g.chain())
	return len(rules) == 1 && rules[0].why == g.comment(), err
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
func (c *conn) delGate(b *batch, f *familySets, owner string) error {
	for _, s := range f.gates() {
		if err := c.delHeld(b, s, owner); err != nil {
			return err
		}
	}
	b.delChain(f.family, chainOf(owner))
	return nil
}

// gates compares the rules with words.
func (d *differences) gates(gates []gate) error {
	for _, g := range gates {
		full, err := d.c.isFull(g)
		if err != nil {
			return err
		}
		if !full {
			d.add(fmt.Sprintf("rule %s %s %s %q", familyName(g.sets.family), TableName, g.chain(), g.comment()), ErrMissing)
		}
	}
	return nil
}

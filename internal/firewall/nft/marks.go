package nft

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
)

// placeMark adds m's rule to b if it is not there, and the deletion of others
// of its owner.
func (c *conn) placeMark(b *batch, m ruleset.MarkRule) error {
	there, err := c.delMarks(b, m.Owner, m.Comment())
	if err == nil && !there {
		b.AddRule(unix.NFPROTO_INET, ruleset.MarksChain, m.Rule())
	}
	return err
}

// delMarksIf adds the deletion of rules of chain marks to b, by their comments.
func (c *conn) delMarksIf(b *batch, gone func(why string) bool) error {
	all, err := c.rules(unix.NFPROTO_INET, ruleset.MarksChain)
	for _, r := range all {
		if err == nil && gone(r.why) {
			b.delRule(unix.NFPROTO_INET, ruleset.MarksChain, r.handle)
		}
	}
	return err
}

// delMarks adds the deletion of the owner's rules but keep's to b, and returns
// whether that is there.
func (c *conn) delMarks(b *batch, owner, keep string) (there bool, err error) {
	all, err := c.rules(unix.NFPROTO_INET, ruleset.MarksChain)
	if err != nil {
		return false, err
	}
	for _, r := range all {
		switch {
		case r.why == keep:
			there = true
		case strings.HasPrefix(r.why, ruleset.MarkOwner(owner)+" "):
			b.delRule(unix.NFPROTO_INET, ruleset.MarksChain, r.handle)
		}
	}
	return there, nil
}

// isMark says that a rule in chain marks is one of ours: that it does what its
// comment says.
func (r heldRule) isMark() bool {
	m, ok := ruleset.ReadMark(r.why)
	return ok && ruleset.SameExprs(m.Rule().Encoded(), r.exprs)
}

// delForeignMarks adds the deletion of the rules in chain marks that are not ours.
func (c *conn) delForeignMarks(b *batch, t ruleset.Table) error {
	if t.Family != unix.NFPROTO_INET {
		return nil
	}
	all, err := c.rules(t.Family, ruleset.MarksChain)
	for _, r := range all {
		if !r.isMark() {
			b.delRule(t.Family, ruleset.MarksChain, r.handle)
		}
	}
	return err
}

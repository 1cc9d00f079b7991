package firewall

import (
	"strings"

	"golang.org/x/sys/unix"
)

// placeMark adds m's rule to b if it is not there, and the deletion of others
// of its owner.
func (c *conn) placeMark(b *batch, m markRule) error {
	there, err := c.delMarks(b, m.owner, m.comment())
	if err == nil && !there {
		b.addRule(unix.NFPROTO_INET, marksChain, m.rule())
	}
	return err
}

// delMarksIf adds the deletion of rules of chain marks to b, by their comments.
func (c *conn) delMarksIf(b *batch, gone func(why string) bool) error {
	all, err := c.rules(unix.NFPROTO_INET, marksChain)
	for _, r := range all {
		if err == nil && gone(r.why) {
			b.delRule(unix.NFPROTO_INET, marksChain, r.handle)
		}
	}
	return err
}

// delMarks adds the deletion of the owner's rules but keep's to b, and returns
// whether that is there.
func (c *conn) delMarks(b *batch, owner, keep string) (there bool, err error) {
	all, err := c.rules(unix.NFPROTO_INET, marksChain)
	if err != nil {
		return false, err
	}
	for _, r := range all {
		switch {
		case r.why == keep:
			there = true
		case strings.HasPrefix(r.why, markOwner(owner)+" "):
			b.delRule(unix.NFPROTO_INET, marksChain, r.handle)
		}
	}
	return there, nil
}

// isMark says that a rule in chain marks is one of ours: that it does what its
// comment says.
func (r heldRule) isMark() bool {
	m, ok := readMark(r.why)
	return ok && sameExprs(m.rule().encoded(), r.exprs)
}

// delForeignMarks adds the deletion of the rules in chain marks that are not ours.
func (c *conn) delForeignMarks(b *batch, t table) error {
	if t.family != unix.NFPROTO_INET {
		return nil
	}
	all, err := c.rules(t.family, marksChain)
	for _, r := range all {
		if !r.isMark() {
			b.delRule(t.family, marksChain, r.handle)
		}
	}
	return err
}

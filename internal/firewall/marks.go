package firewall

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// markRule is a network's rule in chain marks. A set cannot hold masks, so
// AcceptMark is a rule of its own, known by its comment.
type markRule struct {
	owner  string
	bridge string
	mark   Mark
}

func (n Network) markRule(owner string) *markRule {
	if n.AcceptMark == nil {
		return nil
	}
	return &markRule{owner, n.Bridge, *n.AcceptMark}
}

// rule is "oifname br0 meta mark & mask == value accept".
func (m markRule) rule() rule {
	return rule{m.comment(), rules(
		just(meta(unix.NFT_META_OIFNAME, regKey), compare(unix.NFT_CMP_EQ, oifname.bytes(m.bridge))),
		just(meta(unix.NFT_META_MARK, regKey), bitwise(host32(m.mark.Mask)), compare(unix.NFT_CMP_EQ, host32(m.mark.Value&m.mark.Mask))),
		accept)}
}

// comment is the owner, cut so that what the rule says fits behind it.
func (m markRule) comment() string {
	return fmt.Sprintf("%s %s %#x/%#x", markOwner(m.owner), m.bridge, m.mark.Value, m.mark.Mask)
}

// markOwner stands for an owner in comments of chain marks, so that there is
// room for the rest.
func markOwner(owner string) string {
	return shorten(owner, maxComment-unix.IFNAMSIZ-len(" 0x12345678/0x12345678"))
}

// placeMark adds m's rule to b if it is not there, and the deletion of others
// of its owner.
func (c *conn) placeMark(b *batch, m markRule) error {
	there, err := c.delMarks(b, m.owner, m.comment())
	if err == nil && !there {
		b.addRule(unix.NFPROTO_INET, marksChain, m.rule())
	}
	return err
}

// hasMark says, by its comment, that a rule of chain marks belongs to n.
func (n Network) hasMark(why string) bool {
	return strings.HasPrefix(why, markOwner(Key(n.Name))+" ") || strings.HasPrefix(why, markOwner(n.GuardKey())+" ")
}

// adoptsMark says that a rule of chain marks is for n's bridge and has another
// owner than its guard.
func (n Network) adoptsMark(why string) bool {
	words := strings.Fields(why)
	return n.Guard != "" && len(words) > 2 && words[len(words)-2] == n.Bridge && !strings.HasPrefix(why, markOwner(n.GuardKey())+" ")
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

// readMark reads the comment of a rule in chain marks; false: it is not ours. The
// owner may be cut.
func readMark(comment string) (markRule, bool) {
	f := strings.Fields(comment)
	if len(f) < 3 {
		return markRule{}, false
	}
	m := markRule{bridge: f[len(f)-2]}
	_, err := fmt.Sscanf(f[len(f)-1], "0x%x/0x%x", &m.mark.Value, &m.mark.Mask)
	return m, err == nil && len(m.bridge) < unix.IFNAMSIZ
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

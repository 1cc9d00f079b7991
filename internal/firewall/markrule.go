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

// markOf returns the rule of n; nil: it has none.
func markOf(n Network, owner string) *markRule {
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

// ownsMark says, by its comment, that a rule of chain marks belongs to n.
func ownsMark(n Network, why string) bool {
	return strings.HasPrefix(why, markOwner(Key(n.Name))+" ") || strings.HasPrefix(why, markOwner(n.GuardKey())+" ")
}

// adoptsMark says that a rule of chain marks is for n's bridge and has another
// owner than its guard.
func adoptsMark(n Network, why string) bool {
	words := strings.Fields(why)
	return n.Guard != "" && len(words) > 2 && words[len(words)-2] == n.Bridge && !strings.HasPrefix(why, markOwner(n.GuardKey())+" ")
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

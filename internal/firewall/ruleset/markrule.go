package ruleset

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// MarkRule is a network's rule in chain marks. A set cannot hold masks, so
// AcceptMark is a rule of its own, known by its comment.
type MarkRule struct {
	Owner  string
	Bridge string
	Mark   firewall.Mark
}

// markOf returns the rule of n; nil: it has none.
func markOf(n firewall.Network, owner string) *MarkRule {
	if n.AcceptMark == nil {
		return nil
	}
	return &MarkRule{owner, n.Bridge, *n.AcceptMark}
}

// Rule is "oifname br0 meta mark & mask == value accept".
func (m MarkRule) Rule() Rule {
	return Rule{m.Comment(), Rules(
		Just(Meta(unix.NFT_META_OIFNAME, RegKey), Compare(unix.NFT_CMP_EQ, OIFName.bytes(m.Bridge))),
		Just(Meta(unix.NFT_META_MARK, RegKey), Mask(Host32(m.Mark.Mask)), Compare(unix.NFT_CMP_EQ, Host32(m.Mark.Value&m.Mark.Mask))),
		Accept)}
}

// Comment is the owner, cut so that what the rule says fits behind it.
func (m MarkRule) Comment() string {
	return fmt.Sprintf("%s %s %#x/%#x", MarkOwner(m.Owner), m.Bridge, m.Mark.Value, m.Mark.Mask)
}

// MarkOwner stands for an owner in comments of chain marks, so that there is
// room for the rest.
func MarkOwner(owner string) string {
	return firewall.Shorten(owner, firewall.MaxComment-unix.IFNAMSIZ-len(" 0x12345678/0x12345678"))
}

// OwnsMark says, by its comment, that a rule of chain marks belongs to n.
func OwnsMark(n firewall.Network, why string) bool {
	return strings.HasPrefix(why, MarkOwner(firewall.Key(n.Name))+" ") || strings.HasPrefix(why, MarkOwner(n.GuardKey())+" ")
}

// AdoptsMark says that a rule of chain marks is for n's bridge and has another
// owner than its guard.
func AdoptsMark(n firewall.Network, why string) bool {
	words := strings.Fields(why)
	return n.Guard != "" && len(words) > 2 && words[len(words)-2] == n.Bridge && !strings.HasPrefix(why, MarkOwner(n.GuardKey())+" ")
}

// ReadMark reads the comment of a rule in chain marks; false: it is not ours. The
// owner may be cut.
func ReadMark(comment string) (MarkRule, bool) {
	f := strings.Fields(comment)
	if len(f) < 3 {
		return MarkRule{}, false
	}
	m := MarkRule{Bridge: f[len(f)-2]}
	value, mask, _ := strings.Cut(f[len(f)-1], "/")
	var err, maskErr error
	m.Mark.Value, err = hexNumber(value)
	m.Mark.Mask, maskErr = hexNumber(mask)
	return m, err == nil && maskErr == nil && len(m.Bridge) < unix.IFNAMSIZ
}

// hexNumber reads a number as "0x1f".
func hexNumber(s string) (uint32, error) {
	digits, ok := strings.CutPrefix(s, "0x")
	if !ok {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	return uint32(n), err
}

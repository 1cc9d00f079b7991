package ruleset

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A rule that differs in anything that it says has another hash, as has one in
// another chain or order.
func TestContentsDiffer(t *testing.T) {
	whole := InetTable().Content()
	for i, ch := range InetTable().Chains {
		for j := range ch.Rules {
			without := InetTable()
			without.Chains[i].Rules = append(append([]Rule{}, ch.Rules[:j]...), ch.Rules[j+1:]...)
			other := InetTable()
			other.Chains[i].Rules = append([]Rule{}, ch.Rules...)
			other.Chains[i].Rules[j].Does = Rules(ch.Rules[j].Does, Just(Compare(unix.NFT_CMP_EQ, []byte{1})))
			for what, tab := range map[string]Table{"without it": without, "with one expression more": other} {
				if tab.Content() == whole {
					t.Errorf("rule %q of chain %s: the same hash %s", ch.Rules[j].Why, ch.Name, what)
				}
			}
		}
		if len(ch.Rules) > 1 {
			turned := InetTable()
			turned.Chains[i].Rules = append([]Rule{}, ch.Rules...)
			turned.Chains[i].Rules[0], turned.Chains[i].Rules[1] = ch.Rules[1], ch.Rules[0]
			if turned.Content() == whole {
				t.Errorf("chain %s: the same hash with two rules turned", ch.Name)
			}
		}
	}
}

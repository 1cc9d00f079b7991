package firewall

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The hash of the rules that the kernel has is the one of those that were sent, in
// every table: else each look at them compares them one by one.
func TestContents(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := released()
	mustApply(t, f, n, e)
	send(t, f, func(b *batch) {
		b.ensure(conditionTable(ipv4()))
		b.ensure(conditionTable(ipv6()))
	})
	for _, family := range tableFamilies {
		tab := tableOf(family)
		err := f.do(t.Context(), func(c *conn) error {
			sum, _, err := c.contents(tab)
			if err == nil && sum != contents[family] {
				t.Errorf("rules of table %s have %#x, want %#x", tab, sum, contents[family])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A rule that differs in anything that it says has another hash, as has one in
// another chain or order.
func TestContentsDiffer(t *testing.T) {
	whole := inetTable().content()
	for i, ch := range inetTable().chains {
		for j := range ch.rules {
			without := inetTable()
			without.chains[i].rules = append(append([]rule{}, ch.rules[:j]...), ch.rules[j+1:]...)
			other := inetTable()
			other.chains[i].rules = append([]rule{}, ch.rules...)
			other.chains[i].rules[j].does = rules(ch.rules[j].does, just(compare(unix.NFT_CMP_EQ, []byte{1})))
			for what, tab := range map[string]table{"without it": without, "with one expression more": other} {
				if tab.content() == whole {
					t.Errorf("rule %q of chain %s: the same hash %s", ch.rules[j].why, ch.name, what)
				}
			}
		}
		if len(ch.rules) > 1 {
			turned := inetTable()
			turned.chains[i].rules = append([]rule{}, ch.rules...)
			turned.chains[i].rules[0], turned.chains[i].rules[1] = ch.rules[1], ch.rules[0]
			if turned.content() == whole {
				t.Errorf("chain %s: the same hash with two rules turned", ch.name)
			}
		}
	}
}

// BenchmarkRules is why rules have a hash: it is compared, or each of them.
func BenchmarkRules(b *testing.B) {
	for name, look := range map[string]func(d *differences) error{
		"hash":       func(d *differences) error { return d.rules(inetTable(), nil) },
		"one by one": func(d *differences) error { return d.eachRule(inetTable()) },
	} {
		b.Run(name, func(b *testing.B) {
			f := start(b)
			n, e := released()
			mustApply(b, f, n, e)
			b.ReportAllocs()
			err := f.do(b.Context(), func(c *conn) error {
				d := differences{c: c}
				for b.Loop() {
					if err := look(&d); err != nil {
						return err
					}
				}
				if len(d.all) > 0 {
					b.Fatal(d.all)
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

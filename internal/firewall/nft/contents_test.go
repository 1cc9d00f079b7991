package nft

import (
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
)

// The hash of the rules that the kernel has is the one of those that were sent, in
// every table: else each look at them compares them one by one.
func TestContents(t *testing.T) {
	t.Parallel()
	f := start(t)
	n, e := released()
	mustApply(t, f, n, e)
	send(t, f, func(b *batch) {
		b.ensure(ruleset.ConditionTable(ruleset.IPv4()))
		b.ensure(ruleset.ConditionTable(ruleset.IPv6()))
	})
	for _, family := range ruleset.TableFamilies {
		tab := ruleset.TableOf(family)
		err := f.do(t.Context(), func(c *conn) error {
			sum, _, err := c.contents(tab)
			if err == nil && sum != ruleset.Contents[family] {
				t.Errorf("rules of table %s have %#x, want %#x", tab, sum, ruleset.Contents[family])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkRules is why rules have a hash: it is compared, or each of them.
func BenchmarkRules(b *testing.B) {
	for name, look := range map[string]func(d *differences) error{
		"hash":       func(d *differences) error { return d.rules(ruleset.InetTable(), nil) },
		"one by one": func(d *differences) error { return d.eachRule(ruleset.InetTable()) },
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

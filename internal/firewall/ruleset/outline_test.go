package ruleset

import "testing"

// An outline is what the table is, but for what its rules and sets are.
func TestOutline(t *testing.T) {
	for _, family := range TableFamilies {
		got, want := Outline(family), TableOf(family)
		if got.Family != want.Family || len(got.Sets) != len(want.Sets) || len(got.Chains) != len(want.Chains) {
			t.Errorf("%s: %d sets and %d chains, want %d and %d", want, len(got.Sets), len(got.Chains), len(want.Sets), len(want.Chains))
			continue
		}
		for i, w := range want.Chains {
			g := got.Chains[i]
			if len(g.Rules) != len(w.Rules) {
				t.Errorf("%s: chain %s has %d rules, want %d", want, w.Name, len(g.Rules), len(w.Rules))
			}
			if g.Name != w.Name || g.Kind != w.Kind || g.Hook != w.Hook || g.Priority != w.Priority || g.Jumps != w.Jumps {
				t.Errorf("%s: chain %s is outlined as %+v", want, w.Name, g)
			}
		}
	}
}

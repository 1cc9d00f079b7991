package main

import (
	"bytes"
	"fmt"
)

// policies sets connections up between two pods of a node with the rules of NetworkPolicies and
// without, and changes policies of a large cluster.
func policies(r *report, n int) error {
	const each, changes = 20, 10 // rounds of connections and changes for one of n
	r.print("\n## NetworkPolicies\n\nA pod opens connections to another one on its bridge: from the call until the server has accepted. Four nodes take turns, all with the rules of bridge-ln: two without enforcement, whose difference is the noise, one with it and no policy, and one with 1001 policies and 10 000 pods, of which both are isolated.\n")
	out, err := benchmarkIn("enforce.test", "Connect", each*n)
	if err != nil {
		return err
	}
	t := &table{columns: []string{"br_netfilter", "without", "again", "no policy", "1001 policies"}}
	for _, shown := range []string{"0", "1"} {
		lines, took := linesOf(out, "BenchmarkConnect/bridge-nf-call-iptables="+shown), []float64{}
		for _, unit := range []string{"ns/off", "ns/off-again", "ns/no-policies", "ns/1001-policies"} {
			x, err := medianOf(lines, unit)
			if err != nil {
				return fmt.Errorf("%w in: %s", err, bytes.TrimSpace(out))
			}
			took = append(took, x/1000)
		}
		on := map[string]string{"0": "off", "1": "on"}[shown]
		t.row(on, fmt.Sprintf("%.1f µs", took[0]), fmt.Sprintf("%.1f µs", took[1]), fmt.Sprintf("%.1f µs", took[2]), fmt.Sprintf("%.1f µs", took[3]))
		for i, what := range []string{"no policy", "1001 policies"} {
			added := 100 * (took[2+i]/took[0] - 1)
			r.limit("policies: added to a connection by "+what+", br_netfilter "+on, "≤ 5 %", added, 5, fmt.Sprintf("%.1f %%", added))
		}
	}
	t.print(r, fmt.Sprintf("the median of %d connections each", 20*each*n))
	if out, err = benchmarkIn("enforce.test", "Change", changes*n); err != nil {
		return err
	}
	t = &table{columns: []string{"a policy changes", "median", "p99", "worst"}}
	var took []float64
	for _, unit := range []string{"ms/p50", "ms/p99", "ms/p100"} {
		x, err := metric(out, unit)
		if err != nil {
			return fmt.Errorf("%w in: %s", err, bytes.TrimSpace(out))
		}
		took = append(took, x)
	}
	t.row("of 1000, with 10 000 pods", fmt.Sprintf("%.0f ms", took[0]), fmt.Sprintf("%.0f ms", took[1]), fmt.Sprintf("%.0f ms", took[2]))
	t.print(r, fmt.Sprintf("%d changes, until they are in force", changes*n))
	r.limit("policies: the worst of the changes, until it is in force", "≤ 100 ms", took[2], 100, fmt.Sprintf("%.0f ms", took[2]))
	return nil
}

package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"strconv"
)

// agentMetrics are what the benchmark of the integration tests tells, and
// their bounds.
var agentMetrics = []struct {
	unit, what, want string
	most             float64
}{
	{"ms-cold", "ln-agent, from cold to 1000 other hosts", "≤ 2 s", 2000},
	{"ms-one-more", "ln-agent, one more host, from etcd's word to the route", "≤ 100 ms", 100},
	{"MiB", "ln-agent, memory with 1000 other hosts", "≤ 64 MiB", 64},
}

// agents has an agent meet a thousand hosts in a real etcd.
func agents(r *report, n int) error {
	cmd := exec.Command(tool("integration.test"), "-test.run", "^$", "-test.bench", "AgentMany", "-test.benchtime", fmt.Sprintf("%dx", max(1, n/10)))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	t := &table{columns: []string{"", "measured"}}
	for _, m := range agentMetrics {
		x, err := metric(out, m.unit)
		if err != nil {
			return fmt.Errorf("%w in: %s", err, out)
		}
		got := fmt.Sprintf("%.4g %s", x, m.unit)
		if m.unit != "MiB" {
			got = fmt.Sprintf("%.4g ms", x)
		}
		t.row(m.what, got)
		r.limit(m.what, m.want, x, m.most, got)
	}
	r.print("\n## A thousand hosts\n\nThey are made up in a real etcd, two blocks each; agent, kernel and routes are real.\n")
	t.print(r, fmt.Sprintf("ln-agent, the mean of %d times", max(1, n/10)))
	return nil
}

// metric finds a value by its unit in what `go test -bench` says.
func metric(out []byte, unit string) (float64, error) {
	words := bytes.Fields(out)
	for i := 1; i < len(words); i++ {
		if string(words[i]) == unit {
			return strconv.ParseFloat(string(words[i-1]), 64)
		}
	}
	return 0, fmt.Errorf("no %s", unit)
}

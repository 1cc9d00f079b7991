package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// aardvarkPath is where Debian has aardvark-dns.
const aardvarkPath = "/usr/lib/podman/aardvark-dns"

// nameBenches are benchmarks of the integration tests, with the units that they tell.
var nameBenches = []struct{ name, what string }{
	{"NamesKernel1", "the kernel (`responder`: `bpf`), one client"},
	{"NamesBoth1", "the kernel, beside ln-agent, one client"},
	{"NamesAgent1", "ln-agent, one client"},
	{"NamesAardvark1", "aardvark-dns, one client"},
	{"NamesKernel16", "the kernel, 16 clients"},
	{"NamesBoth16", "the kernel, beside ln-agent, 16 clients"},
	{"NamesAgent16", "ln-agent, 16 clients"},
	{"NamesAardvark16", "aardvark-dns, 16 clients"},
}

// nameLimits are how many more answers than aardvark-dns each has for a CPU second.
var nameLimits = []struct {
	name, what string
	times      float64
}{
	{"NamesKernel", "the kernel's answers", 10},
	{"NamesBoth", "answers of the kernel beside ln-agent", 3},
	{"NamesAgent", "answers", 3},
}

// names has containers ask for names among a thousand, and for foreign ones.
func names(r *report, n int) error {
	const times = 3 // in turn: other work of the machine is for both
	r.print("\n## Names of containers\n\nA container asks for the addresses of 1000 others by UDP, each client again once it has its answer. CPU time is that of the server's process, or of the program in the kernel.\n")
	t := &table{columns: []string{"", "answers/s", "answers per CPU second", "p50", "p99", "memory"}}
	perCPU := map[string]float64{}
	for _, b := range nameBenches {
		if _, err := os.Stat(aardvarkPath); err != nil && (b.name == "NamesAardvark1" || b.name == "NamesAardvark16") {
			t.row(b.what, "not installed")
			continue
		}
		perCPU[b.name] = 0
	}
	got := map[string][][]byte{}
	for range times {
		for b := range perCPU {
			out, err := benchmark(b, 1000*n)
			if err != nil {
				return err
			}
			got[b] = append(got[b], out)
		}
	}
	for _, b := range nameBenches {
		if _, ran := perCPU[b.name]; !ran {
			continue
		}
		var cells []any
		for _, unit := range []string{"answers/s", "answers/cpu-s", "p50-us", "p99-us", "MB"} {
			x, err := medianOf(got[b.name], unit)
			if err != nil {
				return err
			}
			if unit == "answers/cpu-s" {
				perCPU[b.name] = x
			}
			cells = append(cells, x)
		}
		t.row(b.what, fmt.Sprintf("%.0f", cells[0]), fmt.Sprintf("%.0f", cells[1]), fmt.Sprintf("%.0f µs", cells[2]), fmt.Sprintf("%.0f µs", cells[3]), fmt.Sprintf("%.0f MB", cells[4]))
	}
	t.print(r, fmt.Sprintf("the median of %d times %d queries", times, 1000*n))
	for _, clients := range []string{"1", "16"} {
		theirs := perCPU["NamesAardvark"+clients]
		if theirs == 0 {
			continue
		}
		for _, limit := range nameLimits {
			ratio := perCPU[limit.name+clients] / theirs
			r.limit("names: "+limit.what+" per CPU second with "+clients+" at once, to aardvark-dns", fmt.Sprintf("≥ %.0f x", limit.times), limit.times/ratio, 1, fmt.Sprintf("%.1f x", ratio))
		}
	}
	if err := namedAdds(r, n); err != nil {
		return err
	}
	if err := firstNames(r, n); err != nil {
		return err
	}
	return foreignNames(r, times, n)
}

// namedAdds times ADD with and without names that the kernel answers for.
func namedAdds(r *report, n int) error {
	chains, err := newChains([]contestant{{"without names", oursFull, 1}, {"names, `responder`: `bpf`", withNames(oursFull), 1}})
	if err != nil {
		return err
	}
	for _, c := range chains { // the first container makes map and program, and stays
		if _, err := c.populate(1); err != nil {
			return err
		}
	}
	for _, rounds := range []int{2, 5 * n} {
		var all []cycler
		for _, c := range chains {
			c.forget()
			all = append(all, c)
		}
		if err := runRounds(rounds, all); err != nil {
			return err
		}
	}
	t := verbTable()
	t.verbs(chains...)
	t.print(r, fmt.Sprintf("ADD, CHECK and DEL, %d times", 5*n))
	more := (chains[1].add.percentile(50) - chains[0].add.percentile(50)).Seconds() * 1000
	r.limit("names: added to an ADD by the kernel's responder", "≤ 0.1 ms", more, .1, fmt.Sprintf("%.2f ms", more))
	return closeAll([]*world{chains[0].w, chains[1].w})
}

// withNames is a configuration of ours with names that the kernel answers for.
func withNames(conf string) string {
	return strings.Replace(conf, `"bridge":"bench0"`, `"bridge":"bench0","names":{"responder":"bpf"}`, 1)
}

// firstNames asks for the name of a container that has just come.
func firstNames(r *report, n int) error {
	t := &table{columns: []string{"", "p50", "p99"}}
	for _, b := range []struct{ name, what string }{
		{"NamesFirstKernel", "the kernel"}, {"NamesFirstAgent", "ln-agent"}, {"NamesFirstAardvark", "aardvark-dns, from its signal on"},
	} {
		if _, err := os.Stat(aardvarkPath); err != nil && b.name == "NamesFirstAardvark" {
			t.row(b.what, "not installed")
			continue
		}
		out, err := benchmark(b.name, n)
		if err != nil {
			return err
		}
		p50, err := metric(out, "first-p50-us")
		if err != nil {
			return err
		}
		p99, err := metric(out, "first-p99-us")
		if err != nil {
			return err
		}
		t.row(b.what, fmt.Sprintf("%.0f µs", p50), fmt.Sprintf("%.0f µs", p99))
	}
	t.print(r, fmt.Sprintf("from the end of ADD to the first answer for the new container's name, among 1000: %d times", n))
	return nil
}

// foreignNames asks for names that other servers know.
func foreignNames(r *report, times, n int) error {
	var all [][]byte
	for range times {
		out, err := benchmark("NamesForeign", 100*n)
		if err != nil {
			return err
		}
		all = append(all, out)
	}
	added, err := medianOf(all, "added-p50-us")
	if err != nil {
		return err
	}
	with, err := medianOf(all, "foreign-p50-us")
	if err != nil {
		return err
	}
	t := &table{columns: []string{"", "p50"}}
	t.row("network with names", fmt.Sprintf("%.0f µs", with))
	t.row("network without names", fmt.Sprintf("%.0f µs", with-added))
	t.print(r, fmt.Sprintf("queries for foreign names, to a server outside, in turn: the median of %d times %d", times, 100*n))
	r.limit("names: added to a query for a foreign name", "≤ 50 µs", added, 50, fmt.Sprintf("%.0f µs", added))
	return nil
}

// benchmark runs one of the integration tests' benchmarks.
func benchmark(name string, n int) ([]byte, error) { return benchmarkIn("integration.test", name, n) }

// benchmarkIn runs a benchmark of a test program.
func benchmarkIn(program, name string, n int) ([]byte, error) {
	cmd := exec.Command(tool(program), "-test.run", "^$", "-test.bench", "Benchmark"+name+"$", "-test.benchtime", fmt.Sprintf("%dx", n))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return out, nil
}

// medianOf is the median of a value that several runs told.
func medianOf(outs [][]byte, unit string) (float64, error) {
	var all []float64
	for _, out := range outs {
		x, err := metric(out, unit)
		if err != nil {
			return 0, fmt.Errorf("%w in: %s", err, bytes.TrimSpace(out))
		}
		all = append(all, x)
	}
	return median(all), nil
}

package main

import (
	"bytes"
	"fmt"
	"os"
)

// serviceKinds are benchmarks of the integration tests, by what leads connections to services.
var serviceKinds = []struct {
	name, what string
	sizes      []string
}{
	{"Without", "a container itself, no service", []string{"0"}},
	{"Ours", "ours", []string{"1", "1000", "10000"}},
	{"Kube", "kube-proxy, nftables mode", []string{"1", "1000", "10000"}},
	{"ByHand", "kube-proxy's layout, by hand", []string{"1", "1000", "10000"}},
}

// services has clients outside open connections to one of many services.
func services(r *report, n int) error {
	const each = 300 // connections for one of n
	r.print("\n## Services\n\nEight clients outside open connections to a port of the host that leads to one of many services with ten containers each, one after the other: TCP, an answer, and the end. The containers see the client's address.\n")
	t := &table{columns: []string{"", "services", "connections/s", "p50", "p99", "memory", "all made in"}}
	rate := map[string]float64{}
	for _, k := range serviceKinds {
		if kube := os.Getenv("KUBE_PROXY") != ""; k.name == "Kube" && !kube || k.name == "ByHand" && kube {
			continue
		}
		out, err := benchmarkIn("integration.test", "Services"+k.name, each*n)
		if err != nil {
			return err
		}
		for _, size := range k.sizes {
			var cells []float64
			for _, unit := range []string{"connections/s", "p50-us", "p99-us", "MiB", "made-s"} {
				x, err := medianOf(linesOf(out, "BenchmarkServices"+k.name+"/"+size), unit)
				if err != nil {
					return fmt.Errorf("%w in: %s", err, bytes.TrimSpace(out))
				}
				cells = append(cells, x)
			}
			rate[k.name+size] = cells[0]
			if k.name == "ByHand" {
				rate["Kube"+size] = cells[0]
			}
			t.row(k.what, size, fmt.Sprintf("%.0f", cells[0]), fmt.Sprintf("%.0f µs", cells[1]), fmt.Sprintf("%.0f µs", cells[2]), fmt.Sprintf("%.0f MiB", cells[3]), fmt.Sprintf("%.1f s", cells[4]))
		}
	}
	t.print(r, fmt.Sprintf("the median of three times %d connections", each*n))
	for _, size := range []string{"1", "1000", "10000"} {
		ratio := rate["Kube"+size] / rate["Ours"+size]
		r.limit("services: connections/s with "+size+", of kube-proxy to ours", "≤ 1.1 x", ratio, 1.1, fmt.Sprintf("%.2f x", ratio))
	}
	many := rate["Ours1"] / rate["Ours10000"]
	r.limit("services: connections/s with one, to those with 10 000", "≤ 1.1 x", many, 1.1, fmt.Sprintf("%.2f x", many))
	return firstPackets(r)
}

// firstPackets has a host send the first packet of many connections to a service, without another
// program that would have to run for it.
func firstPackets(r *report) error {
	out, err := benchmarkIn("balance.test", "Services", 20)
	if err != nil {
		return err
	}
	t := &table{columns: []string{"services", "first packet", "one changed in", "memory"}}
	first := map[string]float64{}
	for _, size := range []string{"0", "1", "1000", "10000"} {
		lines, cells := linesOf(out, "BenchmarkServices/"+size), []float64{}
		for _, unit := range []string{"ns/first-packet", "ms/change", "MiB"} {
			x, err := medianOf(lines, unit)
			if err != nil {
				return fmt.Errorf("%w in: %s", err, bytes.TrimSpace(out))
			}
			cells = append(cells, x)
		}
		first[size] = cells[0]
		t.row(size, fmt.Sprintf("%.1f µs", cells[0]/1000), fmt.Sprintf("%.1f ms", cells[1]), fmt.Sprintf("%.0f MiB", cells[2]))
	}
	t.print(r, "UDP out of the host; the least of 20 times 2000")
	many := first["10000"] / first["1"]
	r.limit("services: the first packet with 10 000, to that with one", "≤ 1.1 x", many, 1.1, fmt.Sprintf("%.2f x", many))
	return nil
}

// linesOf are the lines that a benchmark printed, of each time that it ran.
func linesOf(out []byte, name string) (all [][]byte) {
	for line := range bytes.Lines(out) {
		if rest, is := bytes.CutPrefix(line, []byte(name)); is && bytes.ContainsAny(rest[:1], "-# ") {
			all = append(all, line)
		}
	}
	return all
}

package main

import "fmt"

// serviceBenches are benchmarks of the integration tests.
var serviceBenches = []struct{ name, what string }{
	{"ServicesWithout", "a container itself, no service"},
	{"ServicesOurs1", "a published port, one service"},
	{"ServicesKube1", "kube-proxy's layout, one service"},
	{"ServicesOurs1000", "a published port, beside 999 services"},
	{"ServicesKube1000", "kube-proxy's layout, beside 999 services"},
	{"ServicesOurs10000", "a published port, beside 9999 services"},
}

// services has clients outside open connections to one of many services.
func services(r *report, n int) error {
	const times = 3 // in turn: other work of the machine is for all
	r.print("\n## Services\n\nEight clients outside open connections to one of many services with ten containers each, one after the other: TCP, an answer, and the end. kube-proxy's layout is that of its nftables mode, written by hand: a map of services to chains, and a chain for each service and for each backend.\n")
	got := map[string][][]byte{}
	for range times {
		for _, b := range serviceBenches {
			out, err := benchmark(b.name, 200*n)
			if err != nil {
				return err
			}
			got[b.name] = append(got[b.name], out)
		}
	}
	t := &table{columns: []string{"", "connections/s", "p50", "p99", "memory"}}
	rate := map[string]float64{}
	for _, b := range serviceBenches {
		var cells []float64
		for _, unit := range []string{"connections/s", "p50-us", "p99-us", "MiB"} {
			x, err := medianOf(got[b.name], unit)
			if err != nil {
				return err
			}
			cells = append(cells, x)
		}
		rate[b.name] = cells[0]
		t.row(b.what, fmt.Sprintf("%.0f", cells[0]), fmt.Sprintf("%.0f µs", cells[1]), fmt.Sprintf("%.0f µs", cells[2]), fmt.Sprintf("%.0f MiB", cells[3]))
	}
	t.print(r, fmt.Sprintf("the median of %d times %d connections", times, 200*n))
	for _, beside := range []string{"1", "1000"} {
		ratio := rate["ServicesKube"+beside] / rate["ServicesOurs"+beside]
		r.limit("services: connections/s with "+beside+", of kube-proxy's layout to ours", "≤ 1.1 x", ratio, 1.1, fmt.Sprintf("%.2f x", ratio))
	}
	many := rate["ServicesOurs1"] / rate["ServicesOurs10000"]
	r.limit("services: connections/s with one, to those with 10 000", "≤ 1.1 x", many, 1.1, fmt.Sprintf("%.2f x", many))
	return nil
}

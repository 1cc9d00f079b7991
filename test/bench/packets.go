package main

import (
	"fmt"
	"slices"
	"strings"
)

// packets compares what passes by the chains' rules with the kernel alone.
func packets(r *report, n int) error {
	chains, err := newChains([]contestant{
		{nameOurs, oursFull, 1}, {nameFast, byFastPath(oursFull), 1}, {nameNFTables, theirsNFTables, 1}, {nameIPTables, theirsIPTables, 1},
	})
	if err != nil {
		return err
	}
	plain, err := newPlain()
	if err != nil {
		return err
	}
	labs := []*lab{plain}
	for _, c := range chains {
		l, err := newLab(c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		labs = append(labs, l)
	}
	if err := measureAll(labs, max(min(n, 8), n/4)); err != nil {
		return err
	}
	r.print("\n## Packets\n\n" + packetText)
	for _, p := range paths {
		packetTable(r, labs, p)
	}
	var worlds []*world
	for _, l := range labs {
		worlds = append(worlds, l.w)
	}
	return closeAll(worlds)
}

const packetText = `Sender and receiver are one process with a socket in each namespace, all on this machine. *stream*: one TCP connection, 128 KiB writes. *packets*: one UDP
sender of 64-byte datagrams, counted where they arrive. *round trip*: one byte to and fro over TCP. Medians, and ± half the span of the middle half of the rounds. The *plain kernel* has no rules, and
between a container and the host no bridge; to the published port it routes without NAT.
Of each packet that it forwards ours asks two chains for which the reference with nftables has none. *fast path* has "fastPath": "auto".
`

// byFastPath is a configuration of ours with the fast path.
func byFastPath(conf string) string {
	return strings.Replace(conf, `"bridge":"bench0"`, `"bridge":"bench0","fastPath":"auto"`, 1)
}

// path names the two ends of a measurement.
type path int

const (
	containers path = iota
	toHost
	published
	throughTunnel // of the part overlay alone
)

var paths = []path{containers, toHost, published}

func (p path) String() string {
	return []string{"container to container", "container to host", "a client outside to a published port", "container to container of another host"}[p]
}

// figures are what a path of a lab gave, a value for each round.
type figures struct {
	stream, packets []float64 // bits and datagrams per second
	trips           []float64 // per second, of the round's median
	trip            durations // every one of every round
}

func packetTable(r *report, labs []*lab, p path) {
	t := &table{columns: []string{"", "stream Gbit/s", "±", "/ plain", "packets/s", "±", "/ plain", "round trip µs p50", "p99", "p50 / plain"}}
	plain := labs[0].got[p]
	for _, l := range labs {
		t.row(l.figureCells(p, plain)...)
	}
	t.print(r, fmt.Sprintf("%s, %d times", p, len(plain.stream)))
	if p == containers {
		packetTargets(r, p.String()+", fast path", labs[0].name, labs[2].got[p], plain)
	}
	for _, theirs := range labs[3:] {
		packetTargets(r, p.String(), theirs.name, labs[1].got[p], theirs.got[p])
	}
}

// figureCells is a row of figures, beside others.
func (l *lab) figureCells(p path, plain *figures) []string {
	f := l.got[p]
	return []string{
		l.name,
		fmt.Sprintf("%.2f", median(f.stream)/1e9), percent(spread(f.stream)), short(median(f.stream) / median(plain.stream)),
		fmt.Sprintf("%.0f", median(f.packets)), percent(spread(f.packets)), short(median(f.packets) / median(plain.packets)),
		micros(f.trip, 50), micros(f.trip, 99), short(ratio(f.trip, plain.trip, 50)),
	}
}

// packetTargets compares ours with theirs. A difference no larger than that between two
// runs of the same is none.
func packetTargets(r *report, of, name string, ours, theirs *figures) {
	const least = .05
	for _, m := range []struct {
		what         string
		ours, theirs []float64
	}{{"throughput", ours.stream, theirs.stream}, {"packets/s", ours.packets, theirs.packets}, {"round trips/s", ours.trips, theirs.trips}} {
		x := median(m.ours) / median(m.theirs)
		noise := max(least, spread(m.ours), spread(m.theirs))
		r.limit(fmt.Sprintf("%s, %s", of, m.what), fmt.Sprintf("≥ %s; noise ± %s", name, percent(noise)), 1-noise, x, short(x)+" ×")
	}
}

func micros(d durations, p int) string {
	return fmt.Sprintf("%.1f", float64(d.percentile(p))/1e3)
}

func percent(f float64) string { return fmt.Sprintf("%.0f %%", f*100) }

// spread is half of what the middle half of the values spans, over the median;
// of fewer than eight, half of what all of them span.
func spread(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	from, to := 0, len(sorted)-1
	if len(sorted) >= 8 {
		from, to = len(sorted)/4, len(sorted)*3/4
	}
	return (sorted[to] - sorted[from]) / 2 / median(all)
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

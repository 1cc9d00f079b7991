package main

import (
	"fmt"
	"time"
)

// A storm is a node that starts with all its pods to be made.
const (
	stormSize    = 64
	stormWorkers = 16
)

// stormResult is what a chain's storms took.
type stormResult struct {
	add, del       durations // single calls
	addAll, delAll durations // whole storms
}

// perSecond is how many calls the median storm has in a second.
func perSecond(all durations) float64 { return stormSize / all.percentile(50).Seconds() }

// storms times 64 full ADDs, and the DELs, 16 at once.
func storms(r *report, n int) error {
	chains, err := newChains(fullContestants)
	if err != nil {
		return err
	}
	results := make([]stormResult, len(chains))
	for i := range max(3, n/10) {
		for j, c := range chains {
			if err := c.storm(i, &results[j]); err != nil {
				return err
			}
		}
	}
	var worlds []*world
	t := &table{columns: []string{"", "ADD/s", "ADD p50 ms", "p99", "DEL/s", "DEL p50 ms", "p99"}}
	for j, c := range chains {
		s := results[j]
		t.row(c.name, short(perSecond(s.addAll)), s.add.ms(50), s.add.ms(99), short(perSecond(s.delAll)), s.del.ms(50), s.del.ms(99))
		worlds = append(worlds, c.w)
	}
	for _, j := range []int{2, 3} {
		ours, s := results[0], results[j]
		t.row("ours / "+chains[j].name, short(perSecond(ours.addAll)/perSecond(s.addAll)), short(ratio(ours.add, s.add, 50)), short(ratio(ours.add, s.add, 99)),
			short(perSecond(ours.delAll)/perSecond(s.delAll)), short(ratio(ours.del, s.del, 50)), short(ratio(ours.del, s.del, 99)))
	}
	r.print("\n## Many at once\n")
	t.print(r, fmt.Sprintf("%d full ADDs, then DELs, %d at once; %d times", stormSize, stormWorkers, len(results[0].addAll)))
	faster := perSecond(results[0].addAll) / perSecond(results[2].addAll)
	r.limit(fmt.Sprintf("%d full ADDs, %d at once", stormSize, stormWorkers), "≥ 15 × the reference with nftables in ADD/s", 15, faster, short(faster)+" ×")
	p99 := ratio(results[0].add, results[2].add, 99)
	r.limit("", "p99 ≤ 1/10 of it", p99, .1, times(p99))
	return closeAll(worlds)
}

// storm is one: the namespaces are made before, since the kernel's own work on
// them would be taken for the plugins'.
func (c *chain) storm(number int, into *stormResult) error {
	containers, err := c.containers(fmt.Sprintf("storm%d", number), 0, stormSize, c.ports)
	if err != nil {
		return err
	}
	if err := c.cycle(); err != nil { // the bridge is there, as on a node that runs
		return err
	}
	start := time.Now()
	add, err := c.inParallel("ADD", containers, stormWorkers)
	if err != nil {
		return err
	}
	added := time.Now()
	del, err := c.inParallel("DEL", containers, stormWorkers)
	if err != nil {
		return err
	}
	into.addAll = append(into.addAll, added.Sub(start))
	into.delAll = append(into.delAll, time.Since(added))
	into.add, into.del = append(into.add, add...), append(into.del, del...)
	return nil
}

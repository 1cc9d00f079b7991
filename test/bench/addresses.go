package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

const (
	perRound = 10 // pairs of ADD and DEL of each pool in a round
	large    = 60_000
)

// poolSizes are how many leases the pools hold.
var poolSizes = []int{0, 1000, large}

// contest is a pool of ours and one of the reference of the same size.
type contest struct {
	held         int
	ours, theirs *pool
}

// addresses times the IPAM plugins alone.
func addresses(r *report, n int) error {
	if _, err := newNetns("bench-pool"); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(poolNetns, unix.MNT_DETACH) }()
	if err := os.MkdirAll(poolDir, 0o755); err != nil {
		return err
	}
	var contests []contest
	var pools []*pool
	for _, held := range poolSizes {
		c, err := newContest(held)
		if err != nil {
			return err
		}
		contests, pools = append(contests, c), append(pools, c.ours, c.theirs)
	}
	for range max(1, n/4) {
		if err := poolRound(pools); err != nil {
			return err
		}
	}
	if err := addressTable(r, contests); err != nil {
		return err
	}
	if err := exhaustTable(r, contests[len(contests)-1]); err != nil {
		return err
	}
	return os.RemoveAll(poolDir)
}

func newContest(held int) (contest, error) {
	ours, err := newPool(nameOurs, "ipam-ln", held)
	if err != nil {
		return contest{}, err
	}
	theirs, err := newPool(nameTheirs, "host-local", held)
	if err != nil {
		return contest{}, err
	}
	if held == large {
		theirs.perRound = 1 // it reads every lease in every call: most of a second
	}
	return contest{held, ours, theirs}, nil
}

// poolRound has all pools in turn, as runRounds has chains.
func poolRound(pools []*pool) error {
	for i := range perRound {
		rand.Shuffle(len(pools), func(a, b int) { pools[a], pools[b] = pools[b], pools[a] })
		for _, p := range pools {
			if i >= p.perRound {
				continue
			}
			if err := p.pair(); err != nil {
				return err
			}
		}
	}
	return nil
}

// cells are the pool's columns of the table.
func (p *pool) cells() []string {
	var cells []string
	for _, d := range []durations{p.add, p.del, p.both} {
		cells = append(cells, d.ms(50), d.ms(99))
	}
	return cells
}

func (p *pool) over(other *pool) []string {
	var cells []string
	for _, d := range [][2]durations{{p.add, other.add}, {p.del, other.del}, {p.both, other.both}} {
		cells = append(cells, short(ratio(d[0], d[1], 50)), short(ratio(d[0], d[1], 99)))
	}
	return cells
}

func addressTable(r *report, contests []contest) error {
	fs, err := fsName()
	if err != nil {
		return err
	}
	r.print("\n## Addresses alone\n\nipam-ln and host-local by themselves, on %s.\n", fs)
	t := &table{columns: []string{"ms", "ADD p50", "p99", "DEL p50", "p99", "both p50", "p99"}}
	row := func(name string, cells []string) { t.row(append([]string{name}, cells...)...) }
	for _, c := range contests {
		row(fmt.Sprintf("ours, %d held, %d times", c.held, len(c.ours.both)), c.ours.cells())
		row(fmt.Sprintf("reference, %d held, %d times", c.held, len(c.theirs.both)), c.theirs.cells())
		row("ours / reference", c.ours.over(c.theirs))
	}
	empty, full := contests[0], contests[len(contests)-1]
	row(fmt.Sprintf("ours, %d held / none held", full.held), full.ours.over(empty.ours))
	row(fmt.Sprintf("reference, %d held / none held", full.held), full.theirs.over(empty.theirs))
	t.print(r, "with more and more of a /16 held")
	r.print("\nOnce, after another program filled the pool: ours builds its index of %d leases, ADD takes %s ms.\n",
		full.held, milliseconds(full.ours.first))
	return nil
}

// exhaustTable prints what becomes of an ADD when the pools of c are full, and
// when a smaller one of ours is, whose holders it has to look after.
func exhaustTable(r *report, c contest) error {
	own, err := fullPool(nameOurs, "ipam-ln")
	if err != nil {
		return err
	}
	if err := errors.Join(c.ours.fill(poolSize), c.theirs.fill(poolSize)); err != nil {
		return err
	}
	of := make([]exhaustion, 3)
	for i, p := range []*pool{c.ours, c.theirs, own} {
		if of[i], err = p.exhaust([]int{20, 2, 20}[i]); err != nil {
			return err
		}
	}
	r.print(`
### Until an ADD to a full pool fails

- ours, all %d of a /16 held, as another program left them: %s
- reference, the same: %s
- ours / reference, p50: %s
- ours, all %d of a /22 held in a living namespace, each given by ours: %s
`, poolSize, of[0], of[1], short(ratio(of[0].times, of[1].times, 50)), own.held, of[2])
	return nil
}

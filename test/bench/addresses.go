package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

const (
	rounds   = 10
	perRound = 20 // pairs of ADD and DEL of each pool in a round
	large    = 60_000
)

// sizes are how many leases the pools hold.
var sizes = []int{0, 1000, large}

// contest is a pool of ours and one of the reference of the same size.
type contest struct {
	held         int
	ours, theirs *pool
}

// addresses times the IPAM plugins alone and prints their table.
func addresses(stdout io.Writer) error {
	if err := newNetns(poolNetns); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(poolNetns, unix.MNT_DETACH) }()
	if err := os.MkdirAll(poolDir, 0o755); err != nil {
		return err
	}
	var contests []contest
	var pools []*pool
	for _, held := range sizes {
		c, err := newContest(held)
		if err != nil {
			return err
		}
		contests, pools = append(contests, c), append(pools, c.ours, c.theirs)
	}
	for range rounds {
		if err := runRound(pools); err != nil {
			return err
		}
	}
	if err := addressTable(stdout, contests); err != nil {
		return err
	}
	return exhaustTable(stdout, contests[len(contests)-1])
}

func newContest(held int) (contest, error) {
	ours, err := newPool("ours", "ipam-ln", held)
	if err != nil {
		return contest{}, err
	}
	theirs, err := newPool("reference", "host-local", held)
	if err != nil {
		return contest{}, err
	}
	if held == large {
		theirs.perRound = 1 // it reads every lease in every call: most of a second
	}
	return contest{held, ours, theirs}, nil
}

// runRound has all pools in turn, one call at a time, so that what else the
// machine does slows down all of them alike; and in random order, so that none
// always finds the caches as the same other one left them.
func runRound(pools []*pool) error {
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

// times are the columns of the table.
func (p *pool) times() []durations { return []durations{p.add, p.del, p.both} }

func addressTable(stdout io.Writer, contests []contest) error {
	fs, err := fsName()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	const columns = "\tADD p50\tADD p99\tDEL p50\tDEL p99\tboth p50\tboth p99\t\n"
	for _, c := range contests {
		ours, theirs := c.ours, c.theirs
		_, _ = fmt.Fprintf(w, "address alone, %d of a /16 held, %s"+columns, c.held, fs)
		row(w, fmt.Sprintf("ours, %d pairs", len(ours.both)), ours.times())
		row(w, fmt.Sprintf("reference, %d pairs", len(theirs.both)), theirs.times())
		ratios(w, "ours / reference", ours.times(), theirs.times())
		_, _ = fmt.Fprintln(w)
	}
	empty, full := contests[0], contests[len(contests)-1]
	_, _ = fmt.Fprintf(w, "%d held / none held"+columns, full.held)
	ratios(w, "ours", full.ours.times(), empty.ours.times())
	ratios(w, "reference", full.theirs.times(), empty.theirs.times())
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "\nonce, after another program filled the pool: ours builds its index of %d leases, ADD takes %s\n",
		full.held, durations{full.ours.first}.ms(50))
	return err
}

// exhaustTable prints what becomes of an ADD when the pools of c are full, and
// when a smaller one of ours is, whose holders it has to look after.
func exhaustTable(stdout io.Writer, c contest) error {
	own, err := fullPool("ours", "ipam-ln")
	if err != nil {
		return err
	}
	if err := errors.Join(c.ours.fill(poolSize), c.theirs.fill(poolSize)); err != nil {
		return err
	}
	var of [3]exhaustion
	for i, p := range []*pool{c.ours, c.theirs, own} {
		if of[i], err = p.exhaust([]int{20, 2, 20}[i]); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(stdout, `
time until an ADD fails, all %d of a /16 held, as another program left them
ours: %s
reference: %s
ours / reference, p50: %.3g
and all %d of a /22 held in a living namespace, each given by ours
ours: %s
`, poolSize, of[0], of[1], ratio(of[0].times, of[1].times, 50), own.held, of[2])
	return err
}

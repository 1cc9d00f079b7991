package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// presentSizes are how many containers there are while others come and go.
var presentSizes = []int{0, 100, 300, 1000}

// referenceMost is with how many the reference's full chains stop: with more
// present each ADD takes it longer, and a thousand of them many minutes.
const referenceMost = 300

// cycler is what takes its turn in a round.
type cycler interface{ cycle() error }

// runRounds has all of them in turn, one call at a time, so that what else the
// machine does slows down all of them alike; and in random order, so that none
// always finds the caches as the same other one left them.
func runRounds(rounds int, all []cycler) error {
	for range rounds {
		rand.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
		for _, c := range all {
			if err := c.cycle(); err != nil {
				return err
			}
		}
	}
	return nil
}

// field has all programs of which ADD, CHECK and DEL are timed.
type field struct {
	bare, full []*chain
	control    *chain // ours, full, always alone
	floor      *floor
	plot       *plot
	present    []*chain // those that still take part
}

func newField() (*field, error) {
	bare, err := newBare()
	if err != nil {
		return nil, err
	}
	full, err := newChains(append(fullContestants, contestant{nameOurs, oursFull, 1}))
	if err != nil {
		return nil, err
	}
	last := len(full) - 1
	floor, err := newFloor()
	f := &field{bare: bare, full: full[:last], control: full[last], floor: floor, plot: &plot{}}
	for _, c := range f.full[:2] {
		c.presentPorts = 10
	}
	for _, c := range f.full[2:] {
		c.most = referenceMost
	}
	return f, err
}

func (f *field) close() error {
	worlds := []*world{f.floor.w, f.control.w}
	for _, c := range f.chains() {
		worlds = append(worlds, c.w)
	}
	return closeAll(worlds)
}

func (f *field) chains() []*chain { return append(append([]*chain{}, f.bare...), f.full...) }

// attachments times ADD, CHECK and DEL with more and more containers present.
func attachments(r *report, n int) error {
	f, err := newField()
	if err != nil {
		return err
	}
	r.print("\n## ADD, CHECK and DEL, one at a time\n\n" + attachText)
	for _, size := range presentSizes {
		if err := f.runSize(r, n, size); err != nil {
			return err
		}
	}
	r.plot = f.plot
	return f.close()
}

const attachText = `Every call goes through libcni, as a runtime's do: all processes of a chain are in it. *bare*: a bridge and an address. *full*: that, masquerade,
isolation and one published port; ours as one plugin and as two, the reference as bridge, host-local and portmap, and with iptables firewall, too (which
isolates; with nftables it has nothing that does). The *kernel floor* makes one veth, its address and route, and four nftables elements in one
transaction, and decides, records and checks nothing: a process that does so, and the requests alone. Of the containers present those of ours publish
ten ports each, those of the reference one; its full chains stop at 300 present, for time. Milliseconds.
`

func (f *field) runSize(r *report, n, size int) error {
	f.present = nil
	all := []cycler{f.floor, f.control}
	for _, c := range f.chains() {
		if c.most > 0 && size > c.most {
			continue
		}
		reached, err := c.populate(size)
		if err != nil {
			return err
		}
		if !reached && strings.HasPrefix(c.name, nameOurs) {
			return fmt.Errorf("%s: does not attach %d in %s", c.name, size, populateLimit)
		}
		if !reached {
			r.print("\n%s: left out from here on, for it does not attach %d in %s.\n", c.name, size, populateLimit)
			c.most = c.present
			continue
		}
		f.present = append(f.present, c)
		all = append(all, c)
	}
	if size > 0 {
		n /= 2
	}
	for _, rounds := range []int{1, max(1, n)} { // the first has what comes once: bridge, tables, caches
		f.control.forget()
		f.floor.forget()
		for _, c := range f.present {
			c.forget()
		}
		if err := runRounds(rounds, all); err != nil {
			return fmt.Errorf("%d present: %w", size, err)
		}
	}
	f.report(r, size)
	return nil
}

func (f *field) report(r *report, size int) {
	calls := len(f.control.add)
	t := verbTable()
	t.compare(f.still(f.bare), 1)
	t.print(r, fmt.Sprintf("bare, %d present, %d times", size, calls))
	f.fullTable(size).print(r, fmt.Sprintf("full, %d present, %d times", size, calls))
	for _, c := range f.present {
		name := c.name
		if slices.Contains(f.bare, c) {
			name += ", bare"
		}
		f.plot.add(name, size, c.add)
	}
	if size == 0 {
		f.targetsAlone(r, f.full[0], f.full[2], f.full[3])
	}
	if size == presentSizes[len(presentSizes)-1] {
		f.targetsPresent(r, f.full[0])
	}
}

func (f *field) fullTable(size int) *table {
	t := verbTable()
	t.compare(f.still(f.full), 2)
	fl := f.floor
	t.row(nameFloor, fl.add.ms(50), fl.add.ms(99), "–", "–", fl.del.ms(50), fl.del.ms(99))
	t.row(nameRequests, fl.addReq.ms(50), fl.addReq.ms(99), "–", "–", fl.delReq.ms(50), fl.delReq.ms(99))
	t.row("of them the veth", "–", "–", "–", "–", fl.delVeth.ms(50), fl.delVeth.ms(99))
	if size > 0 {
		t.verbs(f.control)
		t.rows[len(t.rows)-1][0] = "ours, none present, in the same rounds"
	}
	return &t.table
}

// still are those of chains that take part.
func (f *field) still(chains []*chain) []*chain {
	return slices.DeleteFunc(slices.Clone(chains), func(c *chain) bool { return !slices.Contains(f.present, c) })
}

// targetsPresent compares ours with many present with ours alone.
func (f *field) targetsPresent(r *report, ours *chain) {
	for _, v := range []struct {
		verb        string
		with, alone durations
	}{{"ADD", ours.add, f.control.add}, {"CHECK", ours.check, f.control.check}, {"DEL", ours.del, f.control.del}} {
		x := ratio(v.with, v.alone, 50)
		r.limit(fmt.Sprintf("full %s with %d attachments and %d ports present", v.verb, ours.present, ours.present*ours.presentPorts),
			"≤ 1.25 × with none", x, 1.25, short(x))
	}
}

func (f *field) targetsAlone(r *report, ours, nft, ipt *chain) {
	for _, g := range []struct {
		what, want string
		a, b       durations
		most       float64
	}{
		{"bare ADD, one at a time", "≤ 1/3 of the reference", f.bare[0].add, f.bare[1].add, 1. / 3},
		{"full ADD, one at a time", "≤ 1/15 of the reference with nftables", ours.add, nft.add, 1. / 15},
		{"", "≤ 1/20 of the reference with iptables", ours.add, ipt.add, 1. / 20},
		{"", "≤ 3 × the kernel floor, a process", ours.add, f.floor.add, 3},
		{"", "(no target) × its requests alone", ours.add, f.floor.addReq, 0},
		{"full DEL, one at a time", "≤ 1.2 × the kernel's own removal of a veth", ours.del, f.floor.delVeth, 1.2},
		{"", "≤ 1/5 of the reference with nftables", ours.del, nft.del, .2},
		{"", "≤ 1/5 of the reference with iptables", ours.del, ipt.del, .2},
	} {
		x := ratio(g.a, g.b, 50)
		r.limit(g.what, g.want, x, g.most, times(x))
	}
}

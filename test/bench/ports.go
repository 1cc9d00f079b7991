package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/libcni"
)

const (
	manyPorts = 1000   // of one container
	allPorts  = 10_000 // of others, or of a range
)

// portField has the programs that publish ports, and how many at once it is asked for: what
// the reference takes with iptables is in proportion to them, and long.
type portField struct {
	chains []*chain
	most   []int
}

// ports times ADD of many ports, and of one with many there.
func ports(r *report, n int) error {
	chains, err := newChains(fullContestants)
	if err != nil {
		return err
	}
	f := portField{chains, []int{manyPorts, manyPorts, manyPorts, manyPorts / 10}}
	r.print("\n## Ports\n\nThe whole chain, in milliseconds. The reference has no ranges: a range is as many mappings.\n")
	for _, part := range []func(*report, int) error{f.single, f.ranges, f.beside} {
		if err := part(r, max(1, n/8)); err != nil {
			return err
		}
	}
	var worlds []*world
	for _, c := range chains {
		worlds = append(worlds, c.w)
	}
	return closeAll(worlds)
}

// single is one container with many ports, each a mapping of its own.
func (f portField) single(r *report, n int) error {
	t := &table{columns: []string{"", "ports", "ADD p50", "max", "DEL p50", "max", "ADD, µs per port"}}
	for i, c := range f.chains {
		c.forget()
		ct := container{first: presentPort, ports: f.most[i]}
		times := n
		if i > 1 {
			times = 1 // seconds each
		}
		for range times {
			if err := c.addDel(ct.mappings()); err != nil {
				return err
			}
		}
		perPort := c.add.percentile(50).Microseconds() / int64(f.most[i])
		t.row(c.name, fmt.Sprint(f.most[i]), c.add.ms(50), c.add.ms(100), c.del.ms(50), c.del.ms(100), fmt.Sprint(perPort))
	}
	t.print(r, fmt.Sprintf("one container with many single ports, %d times (the reference once)", n))
	took := f.chains[0].add
	r.limit(fmt.Sprintf("%d single ports in one ADD", manyPorts), "≤ 100 ms", took.percentile(50).Seconds(), .1, took.ms(50)+" ms")
	return nil
}

// ranges is one container with a range of ports.
func (f portField) ranges(r *report, n int) error {
	t := &table{columns: []string{"", "ports", "ADD p50", "max", "DEL p50", "max"}}
	mapping := []map[string]any{{"hostPort": presentPort, "hostPortEnd": presentPort + allPorts - 1, "containerPort": presentPort, "protocol": "tcp"}}
	for _, c := range f.chains[:2] {
		c.forget()
		for range n {
			if err := c.addDel(mapping); err != nil {
				return err
			}
		}
		t.row(c.name, fmt.Sprint(allPorts), c.add.ms(50), c.add.ms(100), c.del.ms(50), c.del.ms(100))
	}
	t.print(r, fmt.Sprintf("one container with a range, %d times", n))
	took := f.chains[0].add
	r.limit(fmt.Sprintf("a range of %d ports in one ADD", allPorts), "≤ 20 ms", took.percentile(50).Seconds(), .02, took.ms(50)+" ms")
	return nil
}

// beside is one port while others have many, against none, in the same rounds.
func (f portField) beside(r *report, n int) error {
	empty, err := newChains(fullContestants)
	if err != nil {
		return err
	}
	t := &table{columns: []string{"", "ports present", "ADD p50", "with none", "ratio", "DEL p50", "with none", "ratio"}}
	var worlds []*world
	for i, c := range f.chains {
		others := 10 // containers that have all of them
		if i == len(f.chains)-1 {
			others = 1
		}
		c.presentPorts = f.most[i]
		if _, err := c.populate(others); err != nil {
			return err
		}
		both := []*chain{c, empty[i]}
		if err := alternate(both, 3*n); err != nil {
			return err
		}
		with, without := both[0], both[1]
		t.row(c.name, fmt.Sprint(c.present*f.most[i]), with.add.ms(50), without.add.ms(50), short(ratio(with.add, without.add, 50)),
			with.del.ms(50), without.del.ms(50), short(ratio(with.del, without.del, 50)))
		worlds = append(worlds, empty[i].w)
	}
	t.print(r, fmt.Sprintf("one port beside many, %d times", len(empty[0].add)))
	x := ratio(f.chains[0].add, empty[0].add, 50)
	r.limit(fmt.Sprintf("ADD of one port with %d present", allPorts), "≤ 1.3 × with none", x, 1.3, short(x))
	return closeAll(worlds)
}

// alternate times the chains in turn, after one round that is not counted.
func alternate(chains []*chain, n int) error {
	var all []cycler
	for _, c := range chains {
		all = append(all, c)
	}
	if err := runRounds(1, all); err != nil {
		return err
	}
	for _, c := range chains {
		c.forget()
	}
	return runRounds(n, all)
}

// addDel times ADD and DEL of a container with these ports.
func (c *chain) addDel(mappings []map[string]any) error {
	return c.w.do(func() error {
		rt := c.timed().runtime()
		rt.CapabilityArgs = map[string]any{"portMappings": mappings}
		return c.pair(rt)
	})
}

func (c *chain) pair(rt *libcni.RuntimeConf) error {
	var took [2]time.Duration
	var errs [2]error
	for i, verb := range []string{"ADD", "DEL"} {
		took[i], errs[i] = c.call(verb, rt)
	}
	c.add, c.del = append(c.add, took[0]), append(c.del, took[1])
	return errors.Join(errs[:]...)
}

package iptables

import (
	"fmt"
	"slices"
	"strings"
)

// change is the way from a snapshot to a state in which some rules are gone
// and some are there, and the chains that are in use, and no others. It is pure.
type change struct {
	snap  snapshot
	lines map[string][]string // by table, for iptables-restore
	// last are the deletions of chains. With a flush of another chain after it,
	// iptables-nft 1.8.9 has the kernel find the chain still in use.
	last map[string][]string
}

// replace returns the text for iptables-restore that removes the rules gone
// and appends the rules added; "" if there is nothing to do.
func replace(snap snapshot, gone, added []rule) string {
	c := &change{snap, map[string][]string{}, map[string][]string{}}
	goes := make(map[string]bool, len(gone))
	for _, r := range gone {
		goes[r.String()] = true
	}
	stay := slices.DeleteFunc(snap.owned(), func(r rule) bool { return goes[r.String()] })
	final := append(stay, added...)
	units := layout(snap.family)
	c.remove(gone, stay)
	for _, u := range units {
		if u.needed(final) {
			c.ensure(u)
		}
	}
	c.endpointChains(final)
	for _, r := range added {
		c.add(r.table, r.line("-A"))
	}
	for _, u := range units {
		if !u.needed(final) {
			c.drop(u)
		}
	}
	tables := []string{"raw", "filter", "nat"}
	if len(added) == 0 { // what forbids goes last
		slices.Reverse(tables)
	}
	return c.text(tables)
}

// many is how many deletions in a chain cost more than to write it anew: for
// each one, iptables-nft compares all of its rules.
const many = 10

// remove deletes the rules gone, one by one, or all of their chain, and then
// those that stay are written again.
func (c *change) remove(gone, stay []rule) {
	type place struct{ table, chain string }
	count := map[place]int{}
	for _, r := range gone {
		count[place{r.table, r.chain}]++
	}
	for _, r := range gone {
		if count[place{r.table, r.chain}] < many {
			c.add(r.table, r.line("-D"))
		}
	}
	for at, n := range count {
		if n < many {
			continue
		}
		c.add(at.table, "-F "+at.chain)
		for _, r := range stay {
			if r.table == at.table && r.chain == at.chain {
				c.add(r.table, r.line("-A"))
			}
		}
	}
}

func (u unit) needed(rules []rule) bool {
	return slices.ContainsFunc(rules, func(r rule) bool { return r.in(u.usedBy...) })
}

func (c *change) add(table, line string) { c.lines[table] = append(c.lines[table], line) }

func (c *change) text(tables []string) string {
	var b strings.Builder
	for _, table := range tables {
		if lines := append(c.lines[table], c.last[table]...); len(lines) > 0 {
			fmt.Fprintf(&b, "*%s\n%s\nCOMMIT\n", table, strings.Join(lines, "\n"))
		}
	}
	return b.String()
}

// ensure puts chains, fixed rules and jumps in place where they are missing.
func (c *change) ensure(u unit) {
	for _, name := range u.chains {
		if !c.snap.hasChain(u.table, name) {
			c.add(u.table, "-N "+name)
		}
	}
	if missing := u.missing(c.snap); len(missing) > 0 {
		c.add(u.table, "-F "+u.fixed[0].chain)
		for _, r := range u.fixed {
			c.add(u.table, r.line("-A"))
		}
	}
	inserted := 0
	for _, j := range u.jumps {
		if c.snap.position(u.table, j.from, j.to) > 0 {
			continue
		}
		r := j.rule(u.table)
		if j.last {
			c.add(u.table, r.line("-A"))
			continue
		}
		place := 1
		if j.after != "" {
			place += c.snap.position(u.table, j.from, j.after) + inserted
		}
		inserted++
		r.args = append([]string{fmt.Sprint(place)}, r.args...)
		c.add(u.table, r.line("-I"))
	}
}

// missing returns the fixed rules that are not there, if any, or not alone.
func (u unit) missing(snap snapshot) []rule {
	if len(u.fixed) == 0 || slices.EqualFunc(snap.chain(u.table, u.fixed[0].chain), u.fixed, rule.equal) {
		return nil
	}
	return u.fixed
}

// drop takes the chains away, but for the administrator's if it has rules: it
// then stays where it is, and in force.
func (c *change) drop(u unit) {
	stays := func(chain string) bool {
		return chain == chainUser && len(c.snap.chain(u.table, chain)) > 0
	}
	for _, j := range u.jumps {
		for _, r := range c.snap.chain(u.table, j.from) {
			if r.target() == j.to && !stays(j.to) {
				c.add(u.table, r.line("-D"))
			}
		}
	}
	for _, name := range u.chains {
		if c.snap.hasChain(u.table, name) && !stays(name) {
			c.dropChain(u.table, name)
		}
	}
}

func (c *change) dropChain(table, name string) {
	if name != chainUser { // what the administrator adds meanwhile stays
		c.add(table, "-F "+name)
	}
	c.last[table] = append(c.last[table], "-X "+name)
}

// endpointChains makes the chains that final jumps to and deletes the others.
func (c *change) endpointChains(final []rule) {
	wanted := map[string]bool{}
	for _, r := range final {
		if to := r.target(); strings.HasPrefix(to, prefixEndpoint) {
			wanted[to] = true
		}
	}
	for _, name := range c.snap.endpointChains() {
		if !wanted[name] {
			c.dropChain("nat", name)
		}
		delete(wanted, name)
	}
	for name := range wanted {
		c.add("nat", "-N "+name)
	}
}

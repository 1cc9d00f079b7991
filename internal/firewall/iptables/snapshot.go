package iptables

import (
	"fmt"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/sorting"
)

// snapshot is what iptables-save says of one family: rules by table and chain.
// A chain that is not there is nil, one without rules is not.
type snapshot struct {
	family family
	tables map[string]map[string][]rule
}

// parse reads the output of iptables-save.
func parse(f family, text string) (snapshot, error) {
	s := snapshot{f, map[string]map[string][]rule{}}
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "# Table `") && strings.Contains(line, "is incompatible"):
			// Rules by nft in a table of iptables-nft hide all of the table.
			name, _, _ := strings.Cut(strings.TrimPrefix(line, "# Table `"), "'")
			if slices.ContainsFunc(layout(f), func(u unit) bool { return u.table == name }) {
				return s, fmt.Errorf("table %s has rules that %s cannot show: they were made by nft", name, f.command())
			}
		case strings.HasPrefix(line, "*"):
			table = line[1:]
			s.tables[table] = map[string][]rule{}
		case strings.HasPrefix(line, ":") && s.tables[table] != nil:
			chain, _, _ := strings.Cut(line[1:], " ")
			s.tables[table][chain] = []rule{}
		case strings.HasPrefix(line, "-A ") && s.tables[table] != nil:
			words := split(line)
			if len(words) < 2 {
				return s, fmt.Errorf("cannot read %q of %s-save", line, f.command())
			}
			chain := words[1]
			s.tables[table][chain] = append(s.tables[table][chain], rule{table, chain, words[2:]})
		}
	}
	return s, nil
}

func (s snapshot) chain(table, name string) []rule { return s.tables[table][name] }

func (s snapshot) hasChain(table, name string) bool { return s.tables[table][name] != nil }

// used returns whether there is a chain that exists for rules of an endpoint.
func (s snapshot) used() bool {
	return slices.ContainsFunc(layout(s.family), func(u unit) bool {
		return slices.ContainsFunc(u.usedBy, func(name string) bool { return s.hasChain(u.table, name) })
	})
}

// flushed returns whether there are chains of ours that nothing leads to any
// more: a flush of the built-in ones has mostly flushed ours, too.
func (s snapshot) flushed() bool {
	return slices.ContainsFunc(layout(s.family), func(u unit) bool {
		return slices.ContainsFunc(u.jumps, func(j jump) bool {
			return s.hasChain(u.table, j.to) && s.position(u.table, j.from, j.to) == 0
		})
	})
}

// owned returns the rules that have an owner, in chains of ours, in order.
func (s snapshot) owned() []rule {
	var all []rule
	for _, u := range layout(s.family) {
		for _, name := range u.chains {
			if slices.Contains(u.usedBy, name) {
				all = append(all, s.chain(u.table, name)...)
			}
		}
	}
	for _, name := range s.endpointChains() {
		all = append(all, s.chain("nat", name)...)
	}
	return all
}

// endpointChains returns the chains of endpoints with conditions.
func (s snapshot) endpointChains() []string {
	var all []string
	for name := range s.tables["nat"] {
		if strings.HasPrefix(name, prefixEndpoint) {
			all = append(all, name)
		}
	}
	sorting.Ordered(all)
	return all
}

// position returns the place of the jump from a built-in chain to one of ours,
// from 1; 0 if there is none.
func (s snapshot) position(table, from, to string) int {
	return 1 + slices.IndexFunc(s.chain(table, from), func(r rule) bool { return r.target() == to })
}

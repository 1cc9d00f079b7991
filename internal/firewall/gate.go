package firewall

import (
	"fmt"
	"hash/fnv"
	"strings"
)

// Conditions are what only nft(8) can read. So an Endpoint with some has a chain
// of its own in a table of the family, whose one rule nft writes: the words, and
// then "goto met", where its ports are looked up. All else is as ever: the
// way into the chain is an element of a map, of one owner, and what is looked up
// are elements, so that neither packets nor changes meet other owners' words.
//
// Until the rule is there the chain is empty and the ports are closed.
//
// Tried and dropped: a rule per port with the words and the port. nft refuses
// "tcp sport 1024-65535" beside a port of UDP, and a "limit" would count for
// each rule; and the rules as gates before the maps of all ports: they would
// open the ports where another program deletes them.

// gate is the chain of an owner in the table of one family.
type gate struct {
	sets  *familySets
	owner string // in the form of Key
	words []string
}

func (g gate) wrap(err error) error {
	return &ConditionError{IPv6: g.sets == ipv6(), Words: g.words, Err: err}
}

// conditionsOf returns those of a family; nil if there are none.
func conditionsOf(e Endpoint, f *familySets) []string {
	if f == ipv6() {
		return e.ConditionsIPv6
	}
	return e.ConditionsIPv4
}

// chainPrefix starts the names of such chains.
const chainPrefix = "ep-"

// gateChain returns the name of the chain of an owner with conditions.
func gateChain(owner string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(Key(owner)))
	return fmt.Sprintf(chainPrefix+"%016x", h.Sum64())
}

func (g gate) chain() string { return gateChain(g.owner) }

// comment is the owner, cut so that a hash of the words fits behind it: by that
// Verify knows them.
func (g gate) comment() string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(strings.Join(g.words, "\x00")))
	return fmt.Sprintf("%s %08x", shorten(g.owner, maxComment-len(" 12345678")), h.Sum32())
}

// script has nft leave one rule in the chain, the one with the words.
func (g gate) script() string {
	at := fmt.Sprintf("%s %s %s", familyName(g.sets.family), TableName, g.chain())
	return fmt.Sprintf("flush chain %s\nadd rule %s %s goto %s comment %q\n", at, at, strings.Join(g.words, " "), metChain, g.comment())
}

// isGateChain says that a chain belongs to an endpoint with conditions.
func isGateChain(name string) bool { return strings.HasPrefix(name, chainPrefix) }

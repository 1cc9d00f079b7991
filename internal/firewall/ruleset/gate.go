package ruleset

import (
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
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

// Gate is the chain of an owner in the table of one family.
type Gate struct {
	Sets  *FamilySets
	Owner string // in the form of Key
	Words []string
}

// Wrap says whose conditions err is about.
func (g Gate) Wrap(err error) error {
	return &firewall.ConditionError{IPv6: g.Sets == IPv6(), Words: g.Words, Err: err}
}

// conditionsOf returns those of a family; nil if there are none.
func conditionsOf(e firewall.Endpoint, f *FamilySets) []string {
	if f == IPv6() {
		return e.ConditionsIPv6
	}
	return e.ConditionsIPv4
}

// chainPrefix starts the names of such chains.
const chainPrefix = "ep-"

// GateChain returns the name of the chain of an owner with conditions.
func GateChain(owner string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(firewall.Key(owner)))
	return fmt.Sprintf(chainPrefix+"%016x", h.Sum64())
}

// Chain is the name of the chain.
func (g Gate) Chain() string { return GateChain(g.Owner) }

// Comment is the owner, cut so that a hash of the words fits behind it: by that
// Verify knows them.
func (g Gate) Comment() string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(strings.Join(g.Words, "\x00")))
	return fmt.Sprintf("%s %08x", firewall.Shorten(g.Owner, firewall.MaxComment-len(" 12345678")), h.Sum32())
}

// Script has nft leave one rule in the chain, the one with the words.
func (g Gate) Script() string {
	at := fmt.Sprintf("%s %s %s", FamilyName(g.Sets.Family), firewall.TableName, g.Chain())
	return fmt.Sprintf("flush chain %s\nadd rule %s %s goto %s comment %q\n", at, at, strings.Join(g.Words, " "), MetChain, g.Comment())
}

// IsGateChain says that a chain belongs to an endpoint with conditions.
func IsGateChain(name string) bool { return strings.HasPrefix(name, chainPrefix) }

package foreign

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// judgement is what a rule does with all packets of a passer: "drop", "reject", "accept"
// or "return", itself or by a chain that it jumps to; empty: nothing. If the rule drops
// and why is not empty, nothing can be said, because of that part of the rule.
type judgement struct{ does, why string }

// judgementOf leaves out that a rule is not understood that does not drop.
func judgementOf(does, why string) judgement {
	if why != "" && does != "drop" && does != "reject" {
		return judgement{}
	}
	return judgement{does, why}
}

// reader reads the expressions of one rule for some packets.
type reader struct {
	c     *conn
	fam   family
	t     *tableRules
	p     passer
	table string

	fields      []string // loaded, and compared or to be compared
	compared    bool
	mask        int  // leading bits that are compared; 0: all
	bits        bool // bits are compared that are no leading ones
	does, chain string
	named       bool // it asks for something that all these packets have
	why         string
}

// judge says what a rule does with all packets of p.
func (c *conn) judge(fam family, t *tableRules, r rule, p passer) judgement {
	v, all := c.readRule(fam, t, r, p)
	if !all || !v.named && v.why == "" {
		return judgement{}
	}
	return judgementOf(t.final(verdictOf{does: v.does, chain: v.chain}), v.why)
}

// leads returns the chain to which a rule sends all packets of p.
func (c *conn) leads(fam family, t *tableRules, r rule, p passer) string {
	v, all := c.readRule(fam, t, r, p)
	if !all || v.why != "" {
		return ""
	}
	return v.chain
}

// readRule reads a rule; all: it asks for nothing that some packets of p do not have.
func (c *conn) readRule(fam family, t *tableRules, r rule, p passer) (v *reader, all bool) {
	v = &reader{c: c, fam: fam, t: t, p: p, table: r.table}
	return v, nfnl.Each(r.exprs, func(_ uint16, e []byte) error { return v.read(e) }) == nil
}

// read takes the next expression; errNotAll if it asks for what some of the packets may
// not have.
func (v *reader) read(e []byte) error {
	data := nfnl.Find(e, unix.NFTA_EXPR_DATA)
	value := func(in []byte, typ uint16) []byte { return nfnl.Find(nfnl.Find(in, typ), unix.NFTA_DATA_VALUE) }
	switch name := nfnl.Text(e, unix.NFTA_EXPR_NAME); {
	case name == "counter" || name == "log" || name == "last" || name == "notrack" || name == "target" && nfnl.Text(data, unix.NFTA_TARGET_NAME) == "LOG":
	case name == "match":
		return v.match(nfnl.Text(data, unix.NFTA_MATCH_NAME))
	case name == "reject" || name == "target" && nfnl.Text(data, unix.NFTA_TARGET_NAME) == "REJECT":
		v.does = "reject"
	case name == "meta":
		v.load(metaField(data))
	case name == "payload":
		v.load(payloadField(data))
	case name == "bitwise":
		v.mask = maskBits(value(data, unix.NFTA_BITWISE_MASK))
		v.bits = v.mask == 0
	case name == "cmp":
		return v.asks(v.compare(nfnl.Uint32(nfnl.Find(data, unix.NFTA_CMP_OP)), value(data, unix.NFTA_CMP_DATA)))
	case name == "range":
		return v.asks(v.between(nfnl.Uint32(nfnl.Find(data, unix.NFTA_RANGE_OP)), value(data, unix.NFTA_RANGE_FROM_DATA), value(data, unix.NFTA_RANGE_TO_DATA)))
	case name == "lookup":
		return v.asks(v.lookup(data))
	case name == "immediate":
		v.does, v.chain = decision(nfnl.Find(data, unix.NFTA_IMMEDIATE_DATA))
	case name == "target" || slices.Contains(narrowExpressions, name):
		return errNotAll
	default:
		v.why = "it has an expression " + name
	}
	return nil
}

// Expressions of nf_tables, and matches of iptables, that some packets of every
// container do not have. A target without a name above goes on, or is none of forwarding.
var (
	narrowExpressions = []string{
		"byteorder", "connlimit", "ct", "dynset", "exthdr", "fib", "hash", "limit", "numgen", "osf", "quota", "rt", "socket", "tunnel", "xfrm",
	}
	narrowMatches = []string{
		"addrtype", "ah", "connlimit", "connmark", "conntrack", "dccp", "dscp", "dst", "esp", "frag", "hashlimit", "hbh", "helper", "hl", "icmp", "icmp6",
		"length", "limit", "mark", "mh", "multiport", "owner", "physdev", "pkttype", "policy", "quota", "recent", "rpfilter", "rt", "sctp", "socket",
		"state", "statistic", "tcp", "tcpmss", "time", "tos", "ttl", "udp", "udplite",
	}
)

// match reads a match of iptables.
func (v *reader) match(name string) error {
	switch {
	case name == "comment":
	case slices.Contains(narrowMatches, name):
		return errNotAll
	default:
		v.why = "it asks for iptables' match " + name
	}
	return nil
}

// load takes a field that is compared next, once or more often.
func (v *reader) load(field string) {
	if v.compared {
		v.fields, v.compared = nil, false
	}
	v.fields, v.mask, v.bits = append(v.fields, field), 0, false
}

// asks ends a comparison.
func (v *reader) asks(all bool) error {
	v.compared = true
	if !all {
		return errNotAll
	}
	v.named = true
	return nil
}

// unknown says that a comparison is not understood of a field that is known.
func (v *reader) unknown(why string) bool {
	v.why = why
	return true
}

// field is the only one that was loaded; empty: there are more.
func (v *reader) field() string {
	if len(v.fields) != 1 {
		return ""
	}
	return v.fields[0]
}

// Why a comparison is not understood.
const (
	singleBits   = "it asks for single bits of an address or a name"
	partCompared = "it compares a part of an address or a name"
)

// compare says that all packets pass a comparison with want.
func (v *reader) compare(op uint32, want []byte) bool {
	first, last := v.p.span(v.field())
	switch {
	case first == nil:
		return false
	case v.bits:
		return v.unknown(singleBits)
	case op == unix.NFT_CMP_EQ:
		return v.p.equal(v.field(), want, v.mask)
	case op == unix.NFT_CMP_NEQ:
		return v.p.apart(v.field(), want, v.mask)
	case v.mask > 0 || len(want) != len(first):
		return v.unknown(partCompared)
	}
	switch op {
	case unix.NFT_CMP_LT:
		return bytes.Compare(last, want) < 0
	case unix.NFT_CMP_LTE:
		return bytes.Compare(last, want) <= 0
	case unix.NFT_CMP_GT:
		return bytes.Compare(first, want) > 0
	case unix.NFT_CMP_GTE:
		return bytes.Compare(first, want) >= 0
	}
	return false
}

// between says that all packets are in a range, or all outside of one.
func (v *reader) between(op uint32, from, to []byte) bool {
	first, last := v.p.span(v.field())
	if first == nil {
		return false
	}
	if v.mask > 0 || v.bits || len(from) != len(first) || len(to) != len(first) {
		return v.unknown(partCompared)
	}
	if op == unix.NFT_RANGE_NEQ {
		return bytes.Compare(last, from) < 0 || bytes.Compare(first, to) > 0
	}
	return bytes.Compare(from, first) <= 0 && bytes.Compare(last, to) <= 0
}

// errNotAll ends the reading of a rule that asks for more.
var errNotAll = errNotAllPackets{}

type errNotAllPackets struct{}

func (errNotAllPackets) Error() string { return "not all packets" }

// candidate is a rule that may drop all packets of an interface.
type candidate struct {
	chain  string
	handle uint64
	words  string // of the older iptables
	judge  func(passer) judgement
	// leads is the chain to which the rule sends all packets; empty: none.
	leads func(passer) string
}

// way is a chain, and packets.
type way struct {
	chain string
	passer
}

// reached are the chains, other than base chains, to which all packets of a passer come:
// a rule of another chain concerns some of them only.
func reached(rules []candidate, all []passer, base func(chain string) bool) map[way]bool {
	is := map[way]bool{}
	for more := true; more; {
		more = false
		for _, r := range rules {
			for _, p := range all {
				if !base(r.chain) && !is[way{r.chain, p}] {
					continue
				}
				if to := r.leads(p); to != "" && !is[way{to, p}] {
					is[way{to, p}], more = true, true
				}
			}
		}
	}
	return is
}

// judgeAll adds the rules that drop all packets of an interface, unless an earlier
// rule of the chain lets all of them go, and those of which that cannot be told.
func (t *tableRules) judgeAll(family, table string, rules []candidate, base func(chain string) bool, interfaces []string) {
	var all []passer
	for _, name := range interfaces {
		all = append(all, passers(name)...)
	}
	decided, come := map[way]bool{}, reached(rules, all, base)
	for _, r := range rules {
		var names []string
		end, why := "", ""
		for _, p := range all {
			if decided[way{r.chain, p}] || !base(r.chain) && !come[way{r.chain, p}] {
				continue
			}
			switch v := r.judge(p); {
			case v.why != "":
				why = v.why
			case v.does == "":
			case v.does == "accept", v.does == "return":
				decided[way{r.chain, p}] = true
			default:
				if !slices.Contains(names, p.name) {
					names = append(names, p.name)
				}
				end = v.does
			}
		}
		switch {
		case end != "":
			t.drops = append(t.drops, Drop{Family: family, Table: table, Chain: r.chain, End: end, Named: names, Handle: r.handle, Rule: r.words})
		case why != "":
			t.unjudged = append(t.unjudged, Unjudged{family, table, r.chain, cmp.Or(r.words, fmt.Sprintf("handle %d", r.handle)), why})
		}
	}
}

// candidates are the rules of a table of nf_tables.
func (c *conn) candidates(fam family, t *tableRules) []candidate {
	var all []candidate
	for _, r := range t.all {
		all = append(all, candidate{chain: r.chain, handle: r.handle, judge: func(p passer) judgement { return c.judge(fam, t, r, p) }, leads: func(p passer) string { return c.leads(fam, t, r, p) }})
	}
	return all
}

// rule is a rule of another owner.
type rule struct {
	table, chain string
	handle       uint64
	exprs        []byte
}

func newRule(attrs []byte, table, chain string) rule {
	return rule{table, chain, nfnl.Uint64(nfnl.Find(attrs, unix.NFTA_RULE_HANDLE)), bytes.Clone(nfnl.Find(attrs, unix.NFTA_RULE_EXPRESSIONS))}
}

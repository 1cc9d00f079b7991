package foreign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// Drop is another owner's base chain that drops or rejects what none of
// its rules lets through, or a rule that drops all of an interface asked for.
type Drop struct {
	Family string // as nft names it: "ip", "ip6", "inet", "bridge"; "legacy ip", "legacy ip6" for the older iptables
	Table  string
	Chain  string
	Hook   string // "prerouting", "forward", "postrouting"
	End    string // "policy drop", "last rule drop", "last rule reject"; of a rule "drop", "reject"
	Handle uint64 // of the rule; 0: it is the chain, or a rule of the older iptables
	Rule   string // of the older iptables, as iptables-legacy -S writes it: "-A FORWARD -i br0 -j DROP"
	// Named are those of the interfaces asked for that a rule of the table
	// names: its owner has thought of them. Of a rule, those it drops.
	Named []string
}

// Unjudged is another owner's rule that may drop all packets of an interface; whether
// it does cannot be told.
type Unjudged struct {
	Family, Table, Chain string
	Rule                 string // "handle 5", or the words of a rule of the older iptables; empty: all of the chain
	Why                  string // "set blocked has ranges"
}

// Drops returns other owners' chains and rules that may drop what networks forward,
// in the order of families, in the network namespace of the calling thread, and the
// rules of which that cannot be told. It changes nothing. Without nf_tables only the
// older iptables is looked at. A rule that asks for more than interfaces and addresses,
// as for a port, drops only some packets, and is left out.
func Drops(ctx context.Context, interfaces ...string) ([]Drop, []Unjudged, error) {
	all, unjudged, err := dropsAt(ctx, hooks, interfaces)
	legacy, rules, legacyErr := legacyDrops(ctx, interfaces)
	if err = errors.Join(err, legacyErr); err != nil {
		err = fmt.Errorf("list forward chains of others: %w", err)
	}
	return append(all, legacy...), append(unjudged, rules...), err
}

// InputDrops is Drops for what is sent to the host itself: chains alone, and not those of
// the older iptables.
func InputDrops(ctx context.Context, interfaces ...string) ([]Drop, error) {
	all, _, err := dropsAt(ctx, map[uint32]string{unix.NF_INET_LOCAL_IN: "input"}, interfaces)
	if err != nil {
		err = fmt.Errorf("list input chains of others: %w", err)
	}
	return slices.DeleteFunc(all, func(d Drop) bool { return d.Handle != 0 || d.Family == "bridge" }), err
}

// dropsAt looks at the base chains of some hooks.
func dropsAt(ctx context.Context, at map[uint32]string, interfaces []string) (all []Drop, unjudged []Unjudged, err error) {
	var sockets nfnl.Pool
	err = sockets.Do(ctx, func(nl *nfnl.Conn) error {
		all, unjudged = nil, nil
		for _, fam := range families {
			chains, rules, err := (&conn{nl, at}).drops(fam, interfaces)
			if err != nil {
				return err
			}
			all, unjudged = append(all, chains...), append(unjudged, rules...)
		}
		return nil
	})
	if err = errors.Join(err, sockets.Close()); errors.Is(firewall.AsUnsupported(err), firewall.ErrUnsupported) {
		err = nil
	}
	return all, unjudged, err
}

// conn reads the rules of some hooks on a netlink socket.
type conn struct {
	nl    *nfnl.Conn
	hooks map[uint32]string
}

// list asks for all objects of a family that match and calls fn with the attributes of each.
func (c *conn) list(typ uint8, fam family, put func(*nfnl.Attrs), fn func(attrs []byte) error) error {
	m := nfnl.Message{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: typ, Family: fam.number, Put: put}
	c.nl.Enlarge()
	return c.nl.Dump(m, func(a nfnl.Answer) error { return fn(a.Attrs) })
}

// Verdicts of linux/netfilter.h.
const (
	nfDrop   = 0 // NF_DROP
	nfAccept = 1 // NF_ACCEPT
)

// family is an address family of nf_tables and its name.
type family struct {
	number uint8
	name   string
}

// families are those with a hook forward.
var families = []family{
	{unix.NFPROTO_INET, "inet"}, {unix.NFPROTO_IPV4, "ip"}, {unix.NFPROTO_IPV6, "ip6"}, {unix.NFPROTO_BRIDGE, "bridge"},
}

// hookForward is NF_INET_FORWARD and NF_BR_FORWARD.
const hookForward = 2

// hooks are those that forwarded packets pass; the numbers are the same for
// bridges.
var hooks = map[uint32]string{unix.NF_INET_PRE_ROUTING: "prerouting", hookForward: "forward", unix.NF_INET_POST_ROUTING: "postrouting"}

// maxJumps is how deep jumps are followed (NFT_JUMP_STACK_SIZE).
const maxJumps = 16

func (c *conn) drops(fam family, interfaces []string) ([]Drop, []Unjudged, error) {
	var bases []Drop
	aside, base := map[string]bool{}, map[string]bool{} // base chains that nothing forwarded passes; all
	err := c.list(unix.NFT_MSG_GETCHAIN, fam, nil, func(attrs []byte) error {
		hook := nfnl.Find(attrs, unix.NFTA_CHAIN_HOOK)
		ch := Drop{Family: fam.name, Table: nfnl.Text(attrs, unix.NFTA_CHAIN_TABLE), Chain: nfnl.Text(attrs, unix.NFTA_CHAIN_NAME)}
		base[ch.Table+" "+ch.Chain] = hook != nil
		ch.Hook = c.hooks[nfnl.Uint32(nfnl.Find(hook, unix.NFTA_HOOK_HOOKNUM))]
		if hook == nil || ch.Hook == "" || ch.Table == firewall.TableName {
			if hook != nil {
				aside[ch.Table+" "+ch.Chain] = true
			}
			return nil
		}
		if nfnl.Uint32(nfnl.Find(attrs, unix.NFTA_CHAIN_POLICY)) == nfDrop {
			ch.End = "policy drop"
		}
		bases = append(bases, ch)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	var drops []Drop
	var unjudged []Unjudged
	tables := map[string]*tableRules{}
	for _, ch := range bases {
		t := tables[ch.Table]
		if t == nil {
			if t, err = c.readTable(fam, ch.Table, base, interfaces); err != nil {
				return nil, nil, err
			}
			tables[ch.Table] = t
			drops = append(drops, slices.DeleteFunc(t.drops, func(d Drop) bool { return aside[d.Table+" "+d.Chain] })...)
			unjudged = append(unjudged, slices.DeleteFunc(t.unjudged, func(u Unjudged) bool { return aside[u.Table+" "+u.Chain] })...)
		}
		switch does := t.decides(ch.Chain, 0); does {
		case "":
		case "accept":
			ch.End = ""
		default:
			ch.End = "last rule " + does
		}
		if ch.Named = t.named; ch.End != "" && !t.gone {
			drops = append(drops, ch)
		}
	}
	return drops, unjudged, nil
}

// tableRules are the rules of another owner's table.
type tableRules struct {
	rules map[string][]verdictOf // by chain
	named []string
	all   []rule
	drops []Drop // rules
	gone  bool
	sets  map[string]*heldSet

	unjudged []Unjudged
}

// verdictOf is what a rule does with packets, and with which.
type verdictOf struct {
	does   string // "accept", "drop", "reject", "return", "jump", "goto"; "": goes on
	chain  string // of a jump
	always bool   // it asks for nothing of the packet
}

func (c *conn) readTable(fam family, table string, base map[string]bool, interfaces []string) (*tableRules, error) {
	t := &tableRules{rules: map[string][]verdictOf{}, sets: map[string]*heldSet{}}
	err := c.list(unix.NFT_MSG_GETRULE, fam, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, table)
	}, func(attrs []byte) error {
		chain := nfnl.Text(attrs, unix.NFTA_RULE_CHAIN)
		if ours(chain) {
			return nil
		}
		v, names := readVerdict(nfnl.Find(attrs, unix.NFTA_RULE_EXPRESSIONS)), naming(attrs, interfaces)
		t.rules[chain] = append(t.rules[chain], v)
		t.named = append(t.named, names...)
		t.all = append(t.all, newRule(attrs, table, chain))
		return nil
	})
	slices.Sort(t.named)
	t.named = slices.Compact(t.named)
	if errors.Is(err, unix.ENOENT) {
		return &tableRules{gone: true}, nil
	}
	if err == nil {
		t.judgeAll(fam.name, table, c.candidates(fam, t), func(chain string) bool { return base[table+" "+chain] }, interfaces)
	}
	return t, err
}

// ours says that the rules of a chain are those of our iptables backend.
func ours(chain string) bool {
	return strings.HasPrefix(chain, firewall.ChainPrefix) && chain != firewall.UserChain
}

// decides returns what a chain does with what none of its rules with conditions
// concerns: "accept", "drop", "reject", or nothing.
func (t *tableRules) decides(chain string, depth int) string {
	if depth > maxJumps {
		return ""
	}
	for _, v := range t.rules[chain] {
		switch {
		case !v.always || v.does == "":
		case v.does == "return":
			return ""
		case v.does == "goto":
			return t.decides(v.chain, depth+1)
		case v.does == "jump":
			if does := t.decides(v.chain, depth+1); does != "" {
				return does
			}
		default:
			return v.does
		}
	}
	return ""
}

// final is what a rule does with packets that it asks for, itself or by the chain that it
// jumps to.
func (t *tableRules) final(v verdictOf) string {
	if v.does == "jump" || v.does == "goto" {
		return t.decides(v.chain, 1)
	}
	return v.does
}

// naming returns the interfaces that stand in b with the final NUL that a
// comparison with a whole name has.
func naming(b []byte, interfaces []string) []string {
	var all []string
	for _, name := range interfaces {
		if bytes.Contains(b, append([]byte(name), 0)) {
			all = append(all, name)
		}
	}
	return all
}

// readVerdict reads the expressions of a rule.
func readVerdict(exprs []byte) verdictOf {
	v := verdictOf{always: true}
	_ = nfnl.Each(exprs, func(_ uint16, e []byte) error {
		data := nfnl.Find(e, unix.NFTA_EXPR_DATA)
		switch name := nfnl.Text(e, unix.NFTA_EXPR_NAME); {
		case name == "counter" || name == "log" || name == "target" && nfnl.Text(data, unix.NFTA_TARGET_NAME) == "LOG":
		case name == "reject" || name == "target" && nfnl.Text(data, unix.NFTA_TARGET_NAME) == "REJECT":
			v.does = "reject"
		case name == "immediate":
			v.does, v.chain = decision(nfnl.Find(data, unix.NFTA_IMMEDIATE_DATA))
		case name == "match" && nfnl.Text(data, unix.NFTA_MATCH_NAME) == "comment":
		default:
			v.always = false
		}
		return nil
	})
	return v
}

func decision(data []byte) (does, chain string) {
	verdict := nfnl.Find(data, unix.NFTA_DATA_VERDICT)
	code := nfnl.Find(verdict, unix.NFTA_VERDICT_CODE)
	if code == nil {
		return "", ""
	}
	switch int32(nfnl.Uint32(code)) {
	case nfDrop:
		return "drop", ""
	case nfAccept:
		return "accept", ""
	case unix.NFT_RETURN:
		return "return", ""
	case unix.NFT_JUMP:
		return "jump", nfnl.Text(verdict, unix.NFTA_VERDICT_CHAIN)
	case unix.NFT_GOTO:
		return "goto", nfnl.Text(verdict, unix.NFTA_VERDICT_CHAIN)
	}
	return "", ""
}

// BridgeNetfilter says whether frames inside of a bridge pass the rules of IPv4
// or IPv6, too: br_netfilter is there and on in the calling thread's namespace.
func BridgeNetfilter() bool {
	for _, tool := range []string{"iptables", "ip6tables"} {
		on, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-" + tool)
		if err == nil && strings.TrimSpace(string(on)) != "0" {
			return true
		}
	}
	return false
}

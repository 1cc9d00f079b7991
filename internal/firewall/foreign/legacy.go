package foreign

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/tool"
)

// legacyFamily is what differs between ip_tables and ip6_tables.
type legacyFamily struct {
	name, tables string
	program      string
	protocol     iptables.Protocol
	is4          bool
}

var legacyFamilies = []legacyFamily{
	{"legacy ip", "ip_tables_names", "iptables", iptables.ProtocolIPv4, true},
	{"legacy ip6", "ip6_tables_names", "ip6tables", iptables.ProtocolIPv6, false},
}

// lockPatience is how long, in seconds, the older iptables waits for its lock.
const lockPatience = 5

// legacyDrops is Drops for the older iptables: its chain FORWARD, and the chains that
// this one jumps to. A user without the right to ask, as in a user namespace without such
// tables, is told of none.
func legacyDrops(ctx context.Context, interfaces []string) (all []Drop, unjudged []Unjudged, err error) {
	for _, f := range legacyFamilies {
		tables, err := os.ReadFile("/proc/thread-self/net/" + f.tables)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			continue
		case err != nil:
			return all, unjudged, fmt.Errorf("%s table filter: %w", f.name, err)
		case !slices.Contains(strings.Fields(string(tables)), "filter"):
			continue // to ask for a table that is not there would make it
		}
		t, policy, err := f.read(ctx, interfaces)
		if err != nil {
			unjudged = append(unjudged, Unjudged{Family: f.name, Table: "filter", Chain: "FORWARD", Why: err.Error()})
			continue
		}
		all, unjudged = append(all, t.drops...), append(unjudged, t.unjudged...)
		end := ""
		switch does := t.decides("FORWARD", 0); {
		case does == "accept":
		case does != "":
			end = "last rule " + does
		case policy == "DROP":
			end = "policy drop"
		}
		if end != "" {
			all = append(all, Drop{Family: f.name, Table: "filter", Chain: "FORWARD", Hook: "forward", End: end, Named: t.named})
		}
	}
	return all, unjudged, nil
}

// find returns the path of the program that reads the older tables. Its name says so,
// or there is no other.
func (f legacyFamily) find(ctx context.Context) (string, error) {
	if path, err := tool.Find(f.program + "-legacy"); err == nil {
		return path, nil
	}
	path, err := tool.Find(f.program)
	if err != nil {
		return "", fmt.Errorf("%s-legacy is not installed", f.program)
	}
	version, err := tool.Run(ctx, path, "", "--version")
	if err == nil && strings.Contains(version, "nf_tables") {
		err = fmt.Errorf("%s-legacy is not installed", f.program)
	}
	return path, err
}

// read reads the chains of the table filter that forwarded packets pass.
func (f legacyFamily) read(ctx context.Context, interfaces []string) (t *tableRules, policy string, err error) {
	path, err := f.find(ctx)
	if err != nil {
		return nil, "", err
	}
	ipt, err := iptables.New(iptables.IPFamily(f.protocol), iptables.Path(path), iptables.Timeout(lockPatience))
	if err != nil {
		return nil, "", err
	}
	chains, err := ipt.ListChains("filter")
	if err != nil {
		return nil, "", err
	}
	t = &tableRules{rules: map[string][]verdictOf{}}
	var rules []legacyRule
	for queue := []string{"FORWARD"}; len(queue) > 0; queue = queue[1:] {
		chain := queue[0]
		if _, seen := t.rules[chain]; seen || ours(chain) {
			continue
		}
		lines, err := ipt.List("filter", chain)
		if err != nil {
			return nil, "", err
		}
		t.rules[chain] = nil
		for _, line := range lines {
			if p, is := strings.CutPrefix(line, "-P FORWARD "); is {
				policy = p
			}
			if !strings.HasPrefix(line, "-A ") {
				continue
			}
			r := f.parse(line, chains)
			rules = append(rules, r)
			t.rules[chain] = append(t.rules[chain], r.verdictOf)
			if r.chain != "" {
				queue = append(queue, r.chain)
			}
		}
	}
	t.named = legacyNaming(rules, interfaces)
	t.judgeAll(f.name, "filter", legacyCandidates(t, rules), func(chain string) bool { return chain == "FORWARD" }, interfaces)
	return t, policy, nil
}

// legacyRule is a rule as iptables-legacy -S writes it.
type legacyRule struct {
	verdictOf
	of, words string // of: its chain
	asks      []legacyCondition
	narrow    bool // it asks for something else than an interface or an address
	why       string
}

// legacyCondition is an interface or an address that a rule asks for.
type legacyCondition struct {
	field, text string
	want        []byte
	mask        int
	not         bool
}

// parse reads a line of iptables -S.
func (f legacyFamily) parse(line string, chains []string) legacyRule {
	words := legacyWords(line)
	r := legacyRule{of: words[1], words: line}
	not := false
	for i := 2; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch w := words[i]; w {
		case "!":
			not = true
			continue
		case "-i", "-o", "-s", "-d":
			r.asks = append(r.asks, f.condition(w, value, not))
		case "-m":
			switch {
			case value == "comment":
			case slices.Contains(narrowMatches, value):
				r.narrow = true
			default:
				r.why = "it asks for iptables' match " + value
			}
		case "-p", "-f":
			r.narrow = true
		case "-j", "-g":
			r.verdictOf = legacyVerdict(w, value, chains)
			i = len(words) // options of the target follow
		}
		not = false
	}
	r.always = len(r.asks) == 0 && !r.narrow && r.why == ""
	return r
}

func legacyVerdict(option, target string, chains []string) verdictOf {
	switch {
	case slices.Contains([]string{"ACCEPT", "DROP", "REJECT", "RETURN"}, target):
		return verdictOf{does: strings.ToLower(target)}
	case !slices.Contains(chains, target):
		return verdictOf{} // it goes on
	case option == "-g":
		return verdictOf{does: "goto", chain: target}
	}
	return verdictOf{does: "jump", chain: target}
}

func (f legacyFamily) condition(option, value string, not bool) legacyCondition {
	c := legacyCondition{text: value, not: not}
	switch option {
	case "-i", "-o":
		c.field = map[string]string{"-i": "iifname", "-o": "oifname"}[option]
		name, some := strings.CutSuffix(value, "+")
		if c.want = []byte(name); !some {
			c.want = append(c.want, make([]byte, max(0, unix.IFNAMSIZ-len(name)))...)
		}
	default:
		c.field = map[string]string{"-s": "saddr", "-d": "daddr"}[option] + map[bool]string{true: "4", false: "6"}[f.is4]
		if p, err := netip.ParsePrefix(value); err == nil {
			c.want, c.mask = p.Addr().AsSlice(), p.Bits()
		}
	}
	return c
}

// legacyWords splits a line of iptables -S, where a comment may stand in quotes.
func legacyWords(line string) []string {
	var words []string
	for i, part := range strings.Split(strings.ReplaceAll(line, `\"`, "'"), `"`) {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}

// legacyNaming returns the interfaces that a rule names.
func legacyNaming(rules []legacyRule, interfaces []string) []string {
	var all []string
	for _, name := range interfaces {
		if slices.ContainsFunc(rules, func(r legacyRule) bool {
			return slices.ContainsFunc(r.asks, func(c legacyCondition) bool { return c.text == name })
		}) {
			all = append(all, name)
		}
	}
	return all
}

func legacyCandidates(t *tableRules, rules []legacyRule) []candidate {
	var all []candidate
	for _, r := range rules {
		all = append(all, candidate{chain: r.of, words: r.words, judge: func(p passer) judgement { return r.judge(t, p) }, leads: r.leads})
	}
	return all
}

// judge says what the rule does with all packets of p.
func (r legacyRule) judge(t *tableRules, p passer) judgement {
	if r.always || !r.all(p) {
		return judgement{}
	}
	return judgementOf(t.final(r.verdictOf), r.why)
}

// leads returns the chain to which the rule sends all packets of p.
func (r legacyRule) leads(p passer) string {
	if r.why != "" || !r.all(p) {
		return ""
	}
	return r.chain
}

// all says that the rule asks for nothing that some packets of p do not have.
func (r legacyRule) all(p passer) bool {
	return !r.narrow && !slices.ContainsFunc(r.asks, func(c legacyCondition) bool {
		return c.not && !p.apart(c.field, c.want, c.mask) || !c.not && !p.equal(c.field, c.want, c.mask)
	})
}

package iptables

import (
	"slices"
	"strings"
)

// rule is a rule as iptables-save prints it, word by word, without "-A chain".
// plan writes rules in the same form, so that they compare equal.
type rule struct {
	table, chain string
	args         []string
}

// value returns the word after flag, and whether a "!" stands before it;
// "" if there is none.
func (r rule) value(flag string) (value string, negated bool) {
	i := slices.Index(r.args, flag)
	if i < 0 || i+1 >= len(r.args) {
		return "", false
	}
	return r.args[i+1], i > 0 && r.args[i-1] == "!"
}

// get is value of what is there and not negated, else "".
func (r rule) get(flag string) string {
	v, negated := r.value(flag)
	if negated {
		return ""
	}
	return v
}

func (r rule) owner() string  { return r.get("--comment") }
func (r rule) target() string { return r.get("-j") }

// line is the rule under a command as "-A" or "-D", for iptables-restore.
func (r rule) line(command string) string {
	words := []string{command, r.chain}
	for _, a := range r.args {
		words = append(words, quote(a))
	}
	return strings.Join(words, " ")
}

// String is for errors: "filter LIBNET-INTO -o br0 -j DROP".
func (r rule) String() string { return r.table + r.line("") }

// in returns whether the rule stands in one of chains.
func (r rule) in(chains ...string) bool { return slices.Contains(chains, r.chain) }

func (r rule) equal(o rule) bool {
	return r.table == o.table && r.chain == o.chain && slices.Equal(r.args, o.args)
}

// quote writes a word so that split reads it, and iptables-restore does.
func quote(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\"'\\") {
		return word
	}
	return `"` + strings.ReplaceAll(strings.ReplaceAll(word, `\`, `\\`), `"`, `\"`) + `"`
}

// split returns the words of a line of iptables-save.
func split(line string) []string {
	var words []string
	var word strings.Builder
	quoted, begun := false, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && quoted && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		case c == '"':
			quoted, begun = !quoted, true
		case (c == ' ' || c == '\t') && !quoted:
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words
}

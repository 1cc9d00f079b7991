package firewall

import (
	"fmt"
	"strings"
)

// CheckConditions says why words cannot be the conditions of nft: what would end
// the rule that they stand in, or could begin another one, is ErrInvalid.
// Whether they have a meaning only nft knows.
func CheckConditions(words []string) error {
	depth := 0
	for _, w := range words {
		switch {
		case strings.ContainsFunc(w, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return fmt.Errorf("%w: %q has control characters", ErrInvalid, w)
		case strings.ContainsAny(w, `;#\`):
			return fmt.Errorf(`%w: %q has ";", "#" or "\"`, ErrInvalid, w)
		case strings.Count(w, `"`)%2 != 0:
			return fmt.Errorf("%w: %q has half of a pair of quotes", ErrInvalid, w)
		}
		for _, r := range w {
			switch r {
			case '{':
				depth++
			case '}':
				depth--
			}
			if depth < 0 {
				return fmt.Errorf("%w: %q closes a brace that is not open", ErrInvalid, w)
			}
		}
	}
	if depth > 0 {
		return fmt.Errorf("%w: a brace is left open", ErrInvalid)
	}
	return nil
}

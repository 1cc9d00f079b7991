package graph

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/libnet-cni/libnet/internal/console"
)

// WriteText draws hosts as a tree.
func WriteText(out io.Writer, hosts []Host) error {
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf(format, args...), " "))
		errs = append(errs, err)
	}
	for _, h := range hosts {
		line("%s", h.Host)
		for i, n := range h.Networks {
			branch, stem := "├─", "│ "
			if i == len(h.Networks)-1 {
				branch, stem = "└─", "  "
			}
			line("%s %s  %s", branch, n.Name, n.words())
			if n.Problem != "" {
				line("%s   %s", stem, console.Paint(out, console.Red, "✗ "+n.Problem))
			}
			width := 0
			for _, c := range n.Containers {
				width = max(width, len([]rune(shorten(c.label(), 24))))
			}
			for _, c := range n.Containers {
				text := fmt.Sprintf("%-*s  %-5s %s", width, shorten(c.label(), 24), c.Interface, strings.Join(c.Addresses, " "))
				if len(c.Ports) > 0 {
					text += "  " + strings.Join(c.Ports, ", ")
				}
				if c.Problem != "" {
					text += "  " + console.Paint(out, console.Red, "✗ "+c.Problem)
				}
				line("%s   %s", stem, text)
			}
		}
		if len(h.Networks) == 0 {
			line("└─ no network")
		}
	}
	return errors.Join(errs...)
}

// words say what a network is.
func (n Network) words() string {
	words := []string{n.Driver}
	if n.Internal {
		words = append(words, "internal")
	}
	if n.Bridge != "" {
		words = append(words, n.Bridge)
	}
	words = append(words, strings.Join(n.Subnets, ", "))
	if n.Capacity > 0 {
		words = append(words, fmt.Sprintf("%s %s of %s addresses", console.Bar(n.Held, n.Capacity), count(n.Held), count(n.Capacity)))
	}
	if len(n.Peers) > 0 {
		words = append(words, fmt.Sprintf("spans %d more", len(n.Peers)))
	}
	return strings.Join(words, "  ")
}

// count is a number that may be that of all addresses of an IPv6 subnet.
func count(n uint64) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.0e", float64(n))
	}
	return fmt.Sprint(n)
}

// shorten takes letters out of the middle of a text that is longer than that many.
func shorten(text string, most int) string {
	letters := []rune(text)
	if len(letters) <= most {
		return text
	}
	head := (most - 1) * 2 / 3
	return string(letters[:head]) + "…" + string(letters[len(letters)-(most-1-head):])
}

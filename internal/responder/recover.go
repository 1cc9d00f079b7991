package responder

import (
	"context"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/sorting"
)

// Recover returns the names that a member has in the kernel, and its network's domain; none if
// the kernel does not answer for it. The best name is the first one, the others are in the order
// of the alphabet.
func (r *Responder) Recover(ctx context.Context, owner, network string) (names []string, domain string, err error) {
	err = r.with(ctx, false, func(m *maps) error {
		best := ""
		err := m.each(func(k key, page value, s slot) {
			switch {
			case s.owner != hash(owner):
			case k.kind() == kindPTR:
				best = text(page[valueHead+8:])
			case k.kind() == kind4, k.kind() == kind6:
				names = append(names, k.name())
			}
		})
		names, domain = bare(names, best, network)
		return err
	})
	return names, domain, err
}

// bare returns names without those that are another one below the network or the domain. The best
// one is known by its place below the domain.
func bare(names []string, best, network string) (all []string, domain string) {
	sorting.Ordered(names)
	names = slices.Compact(names)
	below := func(name, end string) bool {
		sub, is := strings.CutSuffix(name, "."+strings.ToLower(end))
		return is && end != "" && slices.Contains(names, sub)
	}
	first := ""
	for _, n := range names { // of several that are the beginning of the best one, the longest
		if end, is := strings.CutPrefix(best, n+"."); is && len(n) > len(first) {
			first, domain = n, end
		}
	}
	if strings.EqualFold(domain, network) {
		domain = ""
	}
	for _, n := range names {
		if n != first && !below(n, network) && !below(n, domain) {
			all = append(all, n)
		}
	}
	if first != "" {
		all = slices.Insert(all, 0, first)
	}
	return all, domain
}

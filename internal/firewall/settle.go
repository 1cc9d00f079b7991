package firewall

import (
	"cmp"
	"slices"

	"github.com/libnet-cni/libnet/internal/sorting"
)

// settle gives each port of one protocol and address to one mapping.
func (r *resolver) settle(spans []span) ([]span, error) {
	spans = joinSame(spans)
	sorting.Stable(spans, func(a, b span) int { return cmp.Compare(a.HostPort, b.HostPort) })
	overlap := false
	for i := 1; i < len(spans); i++ {
		overlap = overlap || spans[i].HostPort <= spans[i-1].Last()
	}
	if !overlap {
		return spans, nil
	}
	c := contest{r: r, spans: spans, unions: map[[2]int32]int32{}}
	for _, single := range []bool{true, false} { // ranges get what singles leave
		for i := range spans {
			if spans[i].single() != single {
				continue
			}
			if err := c.enter(int32(i)); err != nil {
				return nil, err
			}
		}
	}
	return c.result(), nil
}

// joinSame makes one of spans that overlap and mean the same, but not of a range
// and a single port, which comes before other ranges.
func joinSame(spans []span) []span {
	type meaning struct {
		delta   int
		clients string
	}
	key := func(s span) meaning { return meaning{s.delta(), s.clients()} }
	all := slices.Clone(spans)
	sorting.Stable(all, func(a, b span) int {
		x, y := key(a), key(b)
		return cmp.Or(cmp.Compare(x.delta, y.delta), cmp.Compare(x.clients, y.clients), cmp.Compare(b.HostPortEnd, 0)-cmp.Compare(a.HostPortEnd, 0), cmp.Compare(a.HostPort, b.HostPort))
	})
	var out []span
	for _, s := range all {
		n := len(out) - 1
		if n >= 0 && key(out[n]) == key(s) && out[n].single() == s.single() && s.HostPort <= out[n].Last() {
			if s.Last() > out[n].Last() {
				out[n].HostPortEnd = s.Last()
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// contest is which of the spans of one protocol and address has which port.
type contest struct {
	r      *resolver
	spans  []span
	winner [1 << 16]int32 // index of a span and 1; 0: none
	unions map[[2]int32]int32
}

func (c *contest) enter(i int32) error {
	s := c.spans[i]
	for port := int(s.HostPort); port <= int(s.Last()); port++ {
		before := c.winner[port] - 1
		if before < 0 {
			c.winner[port] = i + 1
			continue
		}
		o := c.spans[before]
		switch {
		case !c.r.together && o.single() && !s.single():
		case s.delta() != o.delta():
			at := PortMap{Protocol: s.Protocol, HostIP: s.HostIP, HostPort: uint16(port)}
			return &OverlapError{First: min(s.at, o.at), Second: max(s.at, o.at), Port: at.InFamily(c.r.is4).String()}
		default:
			c.winner[port] = c.union(before, i) + 1
		}
	}
	return nil
}

// union returns a span with the clients of both.
func (c *contest) union(a, b int32) int32 {
	key := [2]int32{a, b}
	if at, known := c.unions[key]; known {
		return at
	}
	both := c.spans[a]
	if both.Sources == nil || c.spans[b].Sources == nil {
		both.Sources = nil
	} else {
		both.Sources = slices.Concat(both.Sources, c.spans[b].Sources)
	}
	at := int32(len(c.spans))
	c.spans = append(c.spans, both)
	c.unions[key] = at
	return at
}

func (c *contest) result() []span {
	var out []span
	for port := 1; port < len(c.winner); port++ {
		w, before := c.winner[port]-1, c.winner[port-1]-1
		switch {
		case w < 0:
		case before >= 0 && (before == w || c.spans[before].means(c.spans[w])):
			out[len(out)-1].HostPortEnd = uint16(port)
		default:
			out = append(out, c.spans[w].part(uint16(port), uint16(port)))
		}
	}
	return out
}

package link

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Precedence orders the networks of one container: which of them has the route
// where several want the same one, the default route above all. The zero value
// has none, and its routes count as another program's.
type Precedence struct {
	// Network is the network's name, which orders what is equal otherwise.
	Network string
	// Priority of the network: the highest has the route. With one above 0 it
	// has it before routes of other programs, too.
	Priority int32
	// Internal networks come after all others of their priority: they have no
	// way out.
	Internal bool
}

const aliasStart = "libnet gwPriority="

// alias is how the container's interface carries the precedence, where the ADD
// of another network of the container finds it. It is not the owner, as the
// host's end has it: a libnet that runs inside of the container would take the
// interface for one of its own.
func (p Precedence) alias() string {
	return fmt.Sprintf("%s%d internal=%t network=%s", aliasStart, p.Priority, p.Internal, p.Network)
}

func parsePrecedence(alias string) (p Precedence, ok bool) {
	rest, ours := strings.CutPrefix(alias, aliasStart)
	words := strings.Split(rest, " ")
	if !ours || len(words) != 3 {
		return p, false
	}
	n, err := strconv.ParseInt(words[0], 10, 32)
	internal, hasInternal := strings.CutPrefix(words[1], "internal=")
	name, hasName := strings.CutPrefix(words[2], "network=")
	if err != nil || !hasInternal || !hasName || name == "" {
		return p, false
	}
	return Precedence{Network: name, Priority: int32(n), Internal: internal == "true"}, true
}

func (p Precedence) check() error {
	if strings.ContainsAny(p.Network, " \x00") || len(p.alias()) > maxAlias {
		return errors.New("network name has a blank or is too long")
	}
	return nil
}

// compare is below 0 if p comes before q. One network that a container has
// twice is ordered by the names of the interfaces.
func (p Precedence) compare(q Precedence, ifName, other string) int {
	if c := cmp.Compare(q.Priority, p.Priority); c != 0 {
		return c
	}
	if p.Internal != q.Internal {
		if p.Internal {
			return 1
		}
		return -1
	}
	return cmp.Or(strings.Compare(p.Network, q.Network), strings.Compare(ifName, other))
}

// Metrics of the routes that name none. The lowest metric wins; IPv4 takes 0
// for none, and IPv6 takes 1024 for none, which is what other programs have.
const (
	metricFront6 = 512  // of the first network, with a priority above 0
	metricFirst6 = 1025 // of the first network
	metricBehind = 2048 // of the second; the third has the next
	metricLast   = math.MaxUint16
)

// first is the metric of the network that comes first.
func (p Precedence) first(is6 bool) int {
	switch {
	case !is6:
		return 0
	case p.Priority > 0:
		return metricFront6
	}
	return metricFirst6
}

// chosen says whether a metric is one that we gave to a route without one.
func chosen(metric int, is6 bool) bool {
	if metric >= metricBehind && metric <= metricLast {
		return true
	}
	if is6 {
		return metric == metricFirst6 || metric == metricFront6
	}
	return metric == 0
}

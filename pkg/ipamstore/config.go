package ipamstore

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/ipmath"
	"github.com/libnet-cni/libnet/internal/pooldir"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// check fills in the defaults of c and says what is wrong with it.
func (c *Config) check() error {
	if !pooldir.ValidName(c.Network) {
		return &ConfigError{"name", c.Network, "must be letters, digits, '_', '.' or '-' and start with a letter or digit"}
	}
	if c.DataDir == "" {
		c.DataDir = pooldir.DefaultDataDir
	}
	if strings.ContainsRune(c.DataDir, 0) {
		return &ConfigError{"dataDir", c.DataDir, "is not a path"}
	}
	if c.Strategy == "" {
		c.Strategy = StrategyNext
	}
	switch c.Strategy {
	case StrategyNext, StrategyLowest, StrategyRandom, StrategyHash:
	default:
		return &ConfigError{"strategy", string(c.Strategy), "must be next, lowest, random or hash"}
	}
	if c.RebootPolicy == "" {
		c.RebootPolicy = RebootRelease
	}
	if c.RebootPolicy != RebootRelease && c.RebootPolicy != RebootKeep {
		return &ConfigError{"rebootPolicy", string(c.RebootPolicy), "must be release or keep"}
	}
	if c.Cooldown < 0 {
		return &ConfigError{"cooldown", c.Cooldown.String(), "must not be negative"}
	}
	if c.WarnAt < 0 || c.WarnAt > 100 {
		return &ConfigError{"warnAt", strconv.Itoa(c.WarnAt), "must be a percentage from 0 (never) to 100"}
	}
	if c.LockTimeout < 0 {
		return &ConfigError{"lockTimeout", c.LockTimeout.String(), "must not be negative"}
	}
	if c.LockTimeout == 0 {
		c.LockTimeout = pooldir.DefaultLockTimeout
	}
	if strings.ContainsFunc(c.BootID, func(r rune) bool { return r <= ' ' || r == 0x7f }) || len(c.BootID) > 64 {
		return &ConfigError{"bootID", c.BootID, "must be a word of at most 64 bytes"}
	}
	return nil
}

// maxRanges bounds the ranges of a network: each set costs an ADD an address,
// and more would not fit into the records.
const maxRanges = 1024

// pools makes the range sets ready.
func (c *Config) pools() ([]pool, error) {
	count := 0
	for _, set := range c.Sets {
		count += len(set)
	}
	if count > maxRanges {
		return nil, &ConfigError{"ranges", fmt.Sprintf("%d ranges", count), fmt.Sprintf("more than %d", maxRanges)}
	}
	pools := make([]pool, len(c.Sets))
	var blocked []netip.Addr // gateways, of every range, and auxiliary addresses
	for i, set := range c.Sets {
		if len(set) == 0 {
			return nil, &ConfigError{fmt.Sprintf("ranges[%d]", i), "[]", "has no range"}
		}
		for j, r := range set {
			if err := r.normalize(fmt.Sprintf("ranges[%d][%d]", i, j)); err != nil {
				return nil, err
			}
			pools[i].ranges = append(pools[i].ranges, r)
			pools[i].spans = append(pools[i].spans, span{r.Start, r.End, j})
			if r.Gateway.IsValid() {
				blocked = append(blocked, r.Gateway)
			}
		}
	}
	if err := checkOverlap(pools); err != nil {
		return nil, err
	}
	aux, err := c.aux(pools)
	if err != nil {
		return nil, err
	}
	return pools, c.carve(pools, append(blocked, aux...))
}

// carve cuts out of the spans what is never chosen and sums up their sizes.
func (c *Config) carve(pools []pool, blocked []netip.Addr) error {
	for i := range pools {
		p := &pools[i]
		for _, a := range blocked {
			p.spans = cut(p.spans, a, a)
		}
		for j, x := range c.Exclude {
			if !x.IsValid() || x.Addr().Is4In6() {
				return &ConfigError{fmt.Sprintf("exclude[%d]", j), x.String(), "is not a prefix"}
			}
			p.spans = cut(p.spans, x.Masked().Addr(), ipmath.Last(x.Masked()))
		}
		for _, s := range p.spans {
			p.size = ipmath.SatAdd(p.size, s.size())
		}
	}
	return nil
}

// aux returns the auxiliary addresses; each must lie in a subnet of the pools.
func (c *Config) aux(pools []pool) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, name := range sorting.Keys(c.Aux) {
		a := c.Aux[name].Unmap()
		known := slices.ContainsFunc(pools, func(p pool) bool {
			return slices.ContainsFunc(p.ranges, func(r Range) bool { return r.Subnet.Contains(a) })
		})
		if len(pools) > 0 && !known {
			return nil, &ConfigError{"auxAddresses." + name, a.String(), "is in none of the subnets"}
		}
		out = append(out, a)
	}
	return out, nil
}

// checkOverlap refuses ranges that share addresses, and sets of two families.
func checkOverlap(pools []pool) error {
	type ranged struct {
		span
		key string
	}
	var all []ranged
	for i, p := range pools {
		for j, s := range p.spans {
			key := fmt.Sprintf("ranges[%d][%d]", i, j)
			if s.first.BitLen() != p.spans[0].first.BitLen() {
				return &ConfigError{key, p.ranges[j].Subnet.String(), "is of another address family than the first range of its set"}
			}
			all = append(all, ranged{s, key})
		}
	}
	// In order, a range that shares an address with any before does so with the
	// one that reaches farthest. There may be thousands.
	sorting.Stable(all, func(a, b ranged) int { return a.first.Compare(b.first) })
	for i := 1; i < len(all); i++ {
		far, s := all[i-1], all[i]
		if s.first.BitLen() == far.first.BitLen() && !far.last.Less(s.first) {
			return &ConfigError{s.key, fmt.Sprintf("%s-%s", s.first, s.last), fmt.Sprintf("overlaps with %s-%s", far.first, far.last)}
		}
	}
	return nil
}

// normalize fills in the defaults of r and checks it; key names it in errors.
func (r *Range) normalize(key string) error {
	n := r.Subnet
	if !n.IsValid() || n.Addr().Is4In6() {
		return &ConfigError{key + ".subnet", n.String(), "is not a subnet"}
	}
	if n != n.Masked() {
		return &ConfigError{key + ".subnet", n.String(), "has host bits set; the subnet is " + n.Masked().String()}
	}
	first, last := n.Addr(), ipmath.Last(n)
	if n.Addr().BitLen()-n.Bits() >= 2 {
		first = first.Next()
		if n.Addr().Is4() {
			last = last.Prev()
		}
		if !r.Gateway.IsValid() {
			r.Gateway = first
		}
	}
	for _, f := range []struct {
		key  string
		addr *netip.Addr
		def  netip.Addr
	}{{"rangeStart", &r.Start, first}, {"rangeEnd", &r.End, last}} {
		if !f.addr.IsValid() {
			*f.addr = f.def
		}
		if *f.addr = f.addr.Unmap(); !n.Contains(*f.addr) {
			return &ConfigError{key + "." + f.key, f.addr.String(), "is not in subnet " + n.String()}
		}
	}
	if r.End.Less(first) || last.Less(r.Start) {
		return &ConfigError{key + ".rangeStart", r.Start.String(), "leaves no address that a container could have: the first of subnet " + n.String() + " is the network's, the last is for broadcasts"}
	}
	// Both ends may name them, as in host-local; containers do not get them.
	if r.Start.Less(first) {
		r.Start = first
	}
	if last.Less(r.End) {
		r.End = last
	}
	if r.End.Less(r.Start) {
		return &ConfigError{key + ".rangeEnd", r.End.String(), "is less than rangeStart " + r.Start.String()}
	}
	if r.Gateway = r.Gateway.Unmap(); r.Gateway.IsValid() && (r.Gateway.BitLen() != n.Addr().BitLen() || r.Gateway.Zone() != "") {
		return &ConfigError{key + ".gateway", r.Gateway.String(), "is not of the address family of subnet " + n.String()}
	}
	return nil
}

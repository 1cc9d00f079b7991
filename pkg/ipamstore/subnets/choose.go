// Package subnets chooses the subnets of networks that give none: out of address pools, so
// that they overlap no other network of the host, and keeps in a book which network has
// which. Its errors are those of package ipamstore.
package subnets

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/ipmath"
	"github.com/libnet-cni/libnet/internal/sorting"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// Pool is a network that subnets are cut from.
type Pool struct {
	// Base is the network; host bits are ignored.
	Base netip.Prefix
	// Size is the prefix length of the subnets that requests without one get.
	Size int
}

// Request says what subnet is wanted. The zero value is an IPv4 subnet
// of the size of its pool.
type Request struct {
	IPv6 bool
	// Bits is the prefix length; 0 is the Size of the pool.
	Bits int
}

// ParseRequest reads "auto", "auto/24", "auto6" and "auto6/64". The error
// is a *ConfigError for the key "subnet".
func ParseRequest(s string) (Request, error) {
	word, bits, sized := strings.Cut(s, "/")
	r := Request{IPv6: word == "auto6"}
	n, err := strconv.Atoi(bits)
	if word != "auto" && !r.IPv6 || sized && (err != nil || n == 0) {
		return Request{}, badConfig("subnet", s, `must be a prefix, "auto" or "auto6", or one of these with a length as "auto/24"`)
	}
	r.Bits = n
	return r, r.Check()
}

// Check says whether a network can live in a subnet of that size: it needs room
// for a gateway and one container. The error is a *ConfigError.
func (r Request) Check() error {
	if most := r.addrBits() - 2; r.Bits < 0 || r.Bits > most {
		return badConfig("subnet", r.String(), fmt.Sprintf("must have a length from 1 to %d", most))
	}
	return nil
}

// String returns what ParseSubnetRequest reads.
func (r Request) String() string {
	s := "auto"
	if r.IPv6 {
		s = "auto6"
	}
	if r.Bits != 0 {
		s += "/" + strconv.Itoa(r.Bits)
	}
	return s
}

func (r Request) addrBits() int {
	if r.IPv6 {
		return 128
	}
	return 32
}

// Choose returns the lowest subnet of the pools that overlaps nothing in
// use. Pools of the other family, and those smaller than want.Bits, are passed
// over. It is pure; its cost grows with what is in use, not with the pools.
//
// Errors are *ConfigError for a request that no pool can serve, ErrExhausted.
func Choose(pools []Pool, inUse []netip.Prefix, want Request) (netip.Prefix, error) {
	fit, err := fitting(pools, want)
	if err != nil {
		return netip.Prefix{}, err
	}
	used := ordered(inUse)
	for _, p := range fit {
		if s, ok := lowestFree(p, used); ok {
			return s, nil
		}
	}
	return netip.Prefix{}, exhausted(fit, used, want)
}

// fitting returns the pools that can serve a request, by address, each with
// the size it is to give.
func fitting(pools []Pool, want Request) ([]Pool, error) {
	if err := want.Check(); err != nil {
		return nil, err
	}
	var fit, others []Pool
	for _, p := range pools {
		if p.Base = p.Base.Masked(); p.Base.Addr().BitLen() != want.addrBits() {
			continue
		}
		if want.Bits != 0 {
			p.Size = want.Bits
		}
		if p.Size < p.Base.Bits() || p.Size > want.addrBits() {
			others = append(others, p)
			continue
		}
		fit = append(fit, p)
	}
	if len(fit) == 0 {
		msg := "no address pool of this family is known"
		if len(others) > 0 {
			msg = "is larger than each of the address pools " + bases(others)
		}
		return nil, badConfig("subnet", want.String(), msg)
	}
	sorting.Stable(fit, func(a, b Pool) int { return a.Base.Addr().Compare(b.Base.Addr()) })
	return fit, nil
}

// ordered sorts prefixes by first address, the larger first: one that lies in
// another comes after it.
func ordered(list []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p = p.Masked(); p.IsValid() {
			out = append(out, p)
		}
	}
	sorting.Stable(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
	})
	return out
}

// lowestFree steps over what is in use, in order. Of two prefixes that overlap
// one holds the other, so the next candidate begins after the larger one.
func lowestFree(p Pool, used []netip.Prefix) (netip.Prefix, bool) {
	next := netip.PrefixFrom(p.Base.Addr(), p.Size)
	for _, u := range used {
		if !u.Overlaps(next) {
			continue
		}
		end := ipmath.Last(next)
		if u.Bits() < next.Bits() {
			end = ipmath.Last(u)
		}
		next = netip.PrefixFrom(end.Next(), p.Size)
		if !p.Base.Contains(next.Addr()) {
			return netip.Prefix{}, false
		}
	}
	return next, true
}

func exhausted(pools []Pool, used []netip.Prefix, want Request) error {
	n := 0
	for _, u := range used {
		if slices.ContainsFunc(pools, func(p Pool) bool { return p.Base.Overlaps(u) }) {
			n++
		}
	}
	return fmt.Errorf("choose a subnet (%s): %w: every one of the address pools %s overlaps a network, route or name server of this host (%d in use); remove networks, ask for a smaller subnet or add an address pool",
		want, ipamstore.ErrExhausted, bases(pools), n)
}

func bases(pools []Pool) string {
	var out []string
	for _, p := range pools {
		out = append(out, p.Base.String())
	}
	return strings.Join(out, ", ")
}

func badConfig(key, value, msg string) error {
	return &ipamstore.ConfigError{Key: key, Value: value, Msg: msg}
}

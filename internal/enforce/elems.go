package enforce

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall/admit"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/netpolicy"
)

// desired is what is to be in the kernel, or is: rules, and the elements of this host's attachments.
type desired struct {
	*netpolicy.Rules
	opened map[ruleset.Slot]admit.Elem
}

// changes are what has to go, and what has to come, to get from one to the other. Elements are made
// only of what differs: otherwise they would be most of the work in a large cluster.
func changes(s *admit.Sets, from, to desired) (gone, added []admit.Elem) {
	take := func(less, more []admit.Elem) { gone, added = append(gone, less...), append(added, more...) }
	before, now := index(from.Allowed), index(to.Allowed)
	for side, isolated := range map[admit.Side][2]map[netip.Addr]netpolicy.Class{admit.In: {from.In, to.In}, admit.Out: {from.Out, to.Out}} {
		was, is := isolated[0], isolated[1]
		take(apart(ofEvery(was, from.Rules), ofEvery(is, to.Rules), same, func(a netip.Addr, p netpolicy.Profile) admit.Elem { return s.Isolate(a, side, uint32(p)) }))
		alike := map[[2]netpolicy.Class]bool{} // of the classes of two pods, what is allowed
		for a := range union(was, is) {
			classes := [2]netpolicy.Class{was[a], is[a]}
			equal, known := alike[classes]
			if !known {
				equal = maps.Equal(before[was[a]], now[is[a]])
				alike[classes] = equal
			}
			if equal {
				continue
			}
			take(apart(before[was[a]], now[is[a]], same, func(peer netpolicy.Class, p netpolicy.Profile) admit.Elem {
				return s.Allow(a, side, uint32(peer), uint32(p))
			}))
		}
	}
	take(apart(portSet(from.Ports), portSet(to.Ports), same, func(p portOf, _ bool) admit.Elem { return s.Ports(uint32(p.Profile), p.Protocol, p.From, p.To) }))
	was, is := union(from.In, from.Out), union(to.In, to.Out)
	take(apart(was, is, same, func(a netip.Addr, _ bool) admit.Elem { return s.Self(a) }))
	take(apart(was, is, same, func(a netip.Addr, _ bool) admit.Elem { return s.Judge(a) }))
	for was, is := range netpolicy.Differing(from.Peers, to.Peers) {
		take(apart(was, is, same, func(a netip.Addr, peer netpolicy.Class) admit.Elem { return s.Peer(a, uint32(peer)) }))
	}
	for was, is := range netpolicy.Differing(from.Pods, to.Pods) {
		take(apart(was, is, same, func(a netip.Addr, _ bool) admit.Elem { return s.Pod(a) }))
	}
	take(apart(rangeSet(from.Ranges), rangeSet(to.Ranges), same, func(r netpolicy.Range, _ bool) admit.Elem { return s.Block(r.From, r.To, uint32(r.Class)) }))
	take(differs(from.opened, to.opened))
	return sorted(gone), sorted(added)
}

func same[V comparable](a, b V) bool { return a == b }

// apart are the elements of what only one of two maps has, or both in different ways.
func apart[K comparable, V any](from, to map[K]V, same func(V, V) bool, elem func(K, V) admit.Elem) (gone, added []admit.Elem) {
	for k, was := range from {
		if is, still := to[k]; !still || !same(was, is) {
			gone = append(gone, elem(k, was))
		}
	}
	for k, is := range to {
		if was, had := from[k]; !had || !same(was, is) {
			added = append(added, elem(k, is))
		}
	}
	return gone, added
}

func union[K comparable, V any](a, b map[K]V) map[K]bool {
	all := make(map[K]bool, len(a)+len(b))
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}

func rangeSet(all []netpolicy.Range) map[netpolicy.Range]bool {
	set := make(map[netpolicy.Range]bool, len(all))
	for _, r := range all {
		set[r] = true
	}
	return set
}

// portOf is a span of a profile.
type portOf struct {
	netpolicy.Profile
	netpolicy.Span
}

func portSet(profiles map[netpolicy.Profile][]netpolicy.Span) map[portOf]bool {
	all := map[portOf]bool{}
	for p, spans := range profiles {
		for _, s := range spans {
			all[portOf{p, s}] = true
		}
	}
	return all
}

// ofEvery has, for each isolated pod, the profile that every address may use: 0 is none.
func ofEvery(isolated map[netip.Addr]netpolicy.Class, r *netpolicy.Rules) map[netip.Addr]netpolicy.Profile {
	all := make(map[netip.Addr]netpolicy.Profile, len(isolated))
	for a, target := range isolated {
		all[a] = r.Allowed[netpolicy.Pair{Target: target}]
	}
	return all
}

// index has what is allowed by the class of the isolated pod, and that of its peer: without what every
// address may.
func index(allowed map[netpolicy.Pair]netpolicy.Profile) map[netpolicy.Class]map[netpolicy.Class]netpolicy.Profile {
	all := map[netpolicy.Class]map[netpolicy.Class]netpolicy.Profile{}
	for pair, p := range allowed {
		if pair.Peer == 0 {
			continue
		}
		if all[pair.Target] == nil {
			all[pair.Target] = map[netpolicy.Class]netpolicy.Profile{}
		}
		all[pair.Target][pair.Peer] = p
	}
	return all
}

func bySlot(elems []admit.Elem) map[ruleset.Slot]admit.Elem {
	all := make(map[ruleset.Slot]admit.Elem, len(elems))
	for _, e := range elems {
		all[e.Slot()] = e
	}
	return all
}

// differs is apart of elements.
func differs(from, to map[ruleset.Slot]admit.Elem) (gone, added []admit.Elem) {
	return apart(from, to, func(a, b admit.Elem) bool { return string(a.Data) == string(b.Data) }, func(_ ruleset.Slot, e admit.Elem) admit.Elem { return e })
}

// sorted has the elements of a set together: they go in one message.
func sorted(elems []admit.Elem) []admit.Elem {
	sets := map[*ruleset.Set][]admit.Elem{}
	for _, e := range elems {
		sets[e.Set] = append(sets[e.Set], e)
	}
	order := slices.SortedFunc(maps.Keys(sets), func(a, b *ruleset.Set) int { return cmp.Compare(a.Name, b.Name) })
	elems = elems[:0]
	for _, set := range order {
		elems = append(elems, sets[set]...)
	}
	return elems
}

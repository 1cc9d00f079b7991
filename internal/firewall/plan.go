package firewall

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// planned is what Apply puts in place.
type planned struct {
	elems  []elem    // each once
	claims []claim   // ports that no other owner may have
	gates  []gate    // what conditions are for
	mark   *markRule // nil: none
	// exact: of networks, the elements that also concern its bridge and its
	// tunnel go, and its marks.
	exact *Network
	// of the owner that hands ports over, and of ours from before; nil: none
	handover *handover
}

// handover is what a Handover asks for.
type handover struct {
	from string
	was  []elem // elements of ours that may be there and are not wanted
}

// from is the owner that hands ports over; empty: none.
func (p planned) from() string {
	if p.handover == nil {
		return ""
	}
	return p.handover.from
}

// plan is pure: what cannot be put into rules is refused here.
func plan(n Network, e Endpoint) (planned, error) {
	ofNetwork, mark, err := planNetwork(n)
	if err != nil {
		return planned{}, err
	}
	p, err := planEndpoint(n, e)
	if err != nil {
		return planned{}, err
	}
	p.elems, p.mark = append(ofNetwork, p.elems...), mark
	if n.Exact != AddOnly {
		p.exact = &n
	}
	return p, nil
}

// heldBy says that an element of a network is n's: of its bridge, whatever owner
// stands in it, or of its tunnel. With AdoptBridge it says what the guard adopts.
func (e elem) heldBy(n Network) bool {
	if n.Exact == AdoptBridge {
		return e.owner != n.GuardKey() && e.ofBridge(n.Bridge)
	}
	return e.owner == Key(n.Name) && n.Exact != ExactBridge || e.owner == n.GuardKey() || n.Guard != "" && e.ofBridge(n.Bridge)
}

// shared says that an element belongs to a network or to all, so that the next
// Apply may write another owner into it.
func (e elem) shared() bool { return e.set == &strict || slices.Contains(networkSets, e.set) }

// ofBridge says that an element of a network concerns the bridge alone.
func (e elem) ofBridge(bridge string) bool {
	v, ok := e.set.key.split(e.key)
	if !ok || e.set == &tunnels || e.set.key[len(e.set.key)-1].datatype != typeIfname {
		return false
	}
	if (e.set == &inside || e.set == &noicc) && iifname.format(v[0]) != bridge {
		return false
	}
	return iifname.format(v[len(v)-1]) == bridge
}

func hasNetworkRules(n Network) bool {
	return n.Internal || n.NoICC || n.Apart || n.NoHost || n.Tunnel != "" || closes(n.IPv4) || closes(n.IPv6)
}

// closes says that a policy keeps any source out.
func closes(p Policy) bool { return p == Published || p == Routed }

func planNetwork(n Network) ([]elem, *markRule, error) {
	if !hasNetworkRules(n) {
		return nil, nil, nil
	}
	if err := checkOwner(n.Name); err != nil {
		return nil, nil, fmt.Errorf("network name %w", err)
	}
	br, err := ifname(n.Bridge)
	if err != nil {
		return nil, nil, fmt.Errorf("bridge %w", err)
	}
	all := make([]elem, 0, 16+len(n.VTEPs))
	adder := func(owner string) func(*set, ...[]byte) {
		return func(s *set, values ...[]byte) {
			all = append(all, elem{set: s, key: s.key.of(values...), owner: owner})
		}
	}
	add := adder(n.GuardKey())
	add(&inside, br, br)
	if n.Internal {
		add(&internal, br)
	}
	if n.NoICC {
		add(&noicc, br, br)
	}
	if n.Apart {
		add(&apart, br)
	}
	if n.NoHost {
		add(&noHost, br)
	}
	if n.Tunnel != "" {
		if err := planTunnel(n, br, adder(Key(n.Name))); err != nil {
			return nil, nil, err
		}
	}
	for _, f := range []struct {
		family byte
		policy Policy
	}{{unix.NFPROTO_IPV4, n.IPv4}, {unix.NFPROTO_IPV6, n.IPv6}} {
		if closes(f.policy) {
			add(&closed, []byte{f.family}, br)
		}
		if f.policy == Routed {
			add(&routed, []byte{f.family}, br)
		}
	}
	for _, name := range n.Trusted {
		from, err := ifname(name)
		if err != nil {
			return nil, nil, fmt.Errorf("trusted interface %w", err)
		}
		add(&trusted, from, br)
	}
	if slices.ContainsFunc(all, func(e elem) bool { return slices.Contains(strictSets, e.set) }) {
		all = append(all, strictElems()...)
	}
	return dedupe(all), markOf(n, n.GuardKey()), nil
}

func strictElems() []elem {
	return []elem{{set: &strict, key: []byte{unix.NFPROTO_IPV4}}, {set: &strict, key: []byte{unix.NFPROTO_IPV6}}}
}

// planTunnel adds what makes bridge and tunnel one network.
func planTunnel(n Network, br []byte, add func(*set, ...[]byte)) error {
	vx, err := ifname(n.Tunnel)
	if err != nil {
		return fmt.Errorf("tunnel %w", err)
	}
	add(&inside, br, vx)
	add(&inside, vx, br)
	if n.Internal {
		add(&internal, vx)
	}
	if n.NoICC {
		add(&noicc, br, vx)
		add(&noicc, vx, br)
	}
	if n.NoHost {
		add(&noHost, vx)
	}
	for _, mac := range n.VTEPs {
		if uint32(len(mac)) != etherSource.size {
			return fmt.Errorf("tunnel endpoint %s: %w", mac, ErrInvalid)
		}
		add(&vteps, vx, mac)
	}
	add(&tunnels, vx)
	return planUnderlay(n.Underlay, add)
}

func hasEndpointRules(e Endpoint) bool {
	return e.Masquerade != (Families{}) || e.MAC != nil || len(e.Ports) > 0
}

func planEndpoint(n Network, e Endpoint) (planned, error) {
	if !hasEndpointRules(e) {
		return planned{}, nil
	}
	if err := checkOwner(e.Owner); err != nil {
		return planned{}, fmt.Errorf("owner %w", err)
	}
	p, err := planPorts(n, e)
	if err != nil {
		return planned{}, err
	}
	if e.Masquerade != (Families{}) {
		masq, err := masqElems(e)
		if err != nil {
			return planned{}, err
		}
		p.elems = append(masq, p.elems...)
	}
	if e.Handover != nil {
		if p.handover, err = planHandover(n, e, p.elems); err != nil {
			return planned{}, err
		}
	}
	if len(p.elems) > 0 {
		p.elems = append(p.elems, ownerElem(e.Owner))
	}
	if e.MAC != nil {
		mac, err := macElems(e)
		if err != nil {
			return planned{}, err
		}
		p.elems = append(p.elems, mac...)
	}
	return p, nil
}

// planHandover finds what was planned with less of the ports and is not in now.
func planHandover(n Network, e Endpoint, now []elem) (*handover, error) {
	h := &handover{from: Key(e.Handover.From)}
	e.Standby, e.Handover = e.Handover.Was, nil
	before, err := planPorts(n, e)
	if err != nil {
		return nil, err
	}
	wanted := map[slot]bool{}
	for _, el := range now {
		wanted[el.slot()] = true
	}
	for _, el := range before.elems {
		if !wanted[el.slot()] {
			h.was = append(h.was, el)
		}
	}
	return h, nil
}

func ownerElem(owner string) elem {
	h := fnv.New128a()
	_, _ = h.Write([]byte(Key(owner)))
	return elem{set: &owners, key: h.Sum(nil), owner: Key(owner)}
}

// uniqueAddrs returns the addresses, each once.
func uniqueAddrs(e Endpoint) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, a := range e.Addrs {
		if !a.IsValid() {
			return nil, fmt.Errorf("address %s: %w", a, ErrInvalid)
		}
		if a = a.Unmap().WithZone(""); !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all, nil
}

// setsFor returns the sets of an address's family.
func setsFor(a netip.Addr) *familySets {
	if a.Is4() {
		return ipv4()
	}
	return ipv6()
}

// masqElems masquerades the addresses of the families in Masquerade and says
// where they are at home.
func masqElems(e Endpoint) ([]elem, error) {
	br, err := ifname(e.Bridge)
	if err != nil {
		return nil, fmt.Errorf("bridge %w", err)
	}
	homes := [][]byte{br}
	if e.Tunnel != "" {
		vx, err := ifname(e.Tunnel)
		if err != nil {
			return nil, fmt.Errorf("tunnel %w", err)
		}
		homes = append(homes, vx)
	}
	addrs, err := uniqueAddrs(e)
	if err != nil {
		return nil, err
	}
	var all []elem
	owner := Key(e.Owner)
	for _, a := range addrs {
		f, ip := setsFor(a), a.AsSlice()
		if !e.Masquerade.Has(a) {
			continue
		}
		for _, at := range homes {
			all = append(all, elem{set: &f.home, key: f.home.key.of(ip, at), owner: owner})
		}
		all = append(all, elem{set: &f.masq, key: f.masq.key.of(ip, br), owner: owner})
		if i := slices.IndexFunc(e.Source, func(s netip.Addr) bool { return s.Is4() == a.Is4() }); i >= 0 {
			all = append(all, elem{set: &f.source, key: f.source.key.of(ip, br), data: e.Source[i].AsSlice(), owner: owner})
		}
	}
	return all, nil
}

// macElems returns one element more if MAC is not nil.
func macElems(e Endpoint) ([]elem, error) {
	port, err := ifname(e.Port)
	if err != nil {
		return nil, fmt.Errorf("port %w", err)
	}
	all := []elem{{set: &guarded, key: guarded.key.of(port), owner: Key(e.Owner)}}
	if e.MAC == nil {
		return all, nil
	}
	if uint32(len(e.MAC)) != etherSource.size {
		return nil, fmt.Errorf("mac %s: %w", e.MAC, ErrInvalid)
	}
	return append(all, elem{set: &macs, key: macs.key.of(port, e.MAC), owner: Key(e.Owner)}), nil
}

// dedupe keeps the first of elements with the same key.
func dedupe(all []elem) []elem {
	seen := make(map[slot]bool, len(all))
	return slices.DeleteFunc(all, func(e elem) bool {
		again := seen[e.slot()]
		seen[e.slot()] = true
		return again
	})
}

// slot is where an element stands.
type slot struct {
	set      *set
	key, end string
}

func (e elem) slot() slot { return slot{e.set, string(e.key), string(e.end)} }

// ifname returns the name's bytes, if an interface can have that name.
func ifname(name string) ([]byte, error) {
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/: \x00\t\n\v\f\r") {
		return nil, fmt.Errorf("%q: %w", name, ErrInvalid)
	}
	return []byte(name), nil
}

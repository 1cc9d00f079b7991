package ruleset

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Planned is what Apply puts in place.
type Planned struct {
	Elems  []Elem    // each once
	Claims []Claim   // ports that no other owner may have
	Gates  []Gate    // what conditions are for
	Mark   *MarkRule // nil: none
	// Exact: of networks, the elements that also concern its bridge and its
	// tunnel go, and its marks.
	Exact *firewall.Network
	// Handover is of the owner that hands ports over, and of ours from before; nil: none
	Handover *Handover
	First    func() bool // see firewall.Endpoint
}

// Handover is what firewall.Handover asks for.
type Handover struct {
	From string
	Was  []Elem // elements of ours that may be there and are not wanted
}

// From is the owner that hands ports over; empty: none.
func (p Planned) From() string {
	if p.Handover == nil {
		return ""
	}
	return p.Handover.From
}

// Plan is pure: what cannot be put into rules is refused here.
func Plan(n firewall.Network, e firewall.Endpoint) (Planned, error) {
	ofNetwork, mark, err := PlanNetwork(n)
	if err != nil {
		return Planned{}, err
	}
	p, err := planEndpoint(n, e)
	if err != nil {
		return Planned{}, err
	}
	p.Elems, p.Mark, p.First = append(ofNetwork, p.Elems...), mark, e.First
	if n.Exact != firewall.AddOnly {
		p.Exact = &n
	}
	return p, nil
}

// HeldBy says that an element of a network is n's: of its bridge, whatever owner
// stands in it, or of its tunnel. With AdoptBridge it says what the guard adopts.
func (e Elem) HeldBy(n firewall.Network) bool {
	if n.Exact == firewall.AdoptBridge {
		return e.Owner != n.GuardKey() && e.ofBridge(n.Bridge)
	}
	return e.Owner == firewall.Key(n.Name) && n.Exact != firewall.ExactBridge || e.Owner == n.GuardKey() || n.Guard != "" && e.ofBridge(n.Bridge)
}

// Shared says that an element belongs to a network or to all, so that the next
// Apply may write another owner into it.
func (e Elem) Shared() bool { return e.Set == &Strict || slices.Contains(NetworkSets, e.Set) }

// ofBridge says that an element of a network concerns the bridge alone.
func (e Elem) ofBridge(bridge string) bool {
	v, ok := e.Set.Key.Split(e.Key)
	if !ok || e.Set == &Tunnels || e.Set.ofDirect() || e.Set.Key[len(e.Set.Key)-1].Datatype != TypeIfname {
		return false
	}
	if (e.Set == &Inside || e.Set == &NoICC) && IIFName.format(v[0]) != bridge {
		return false
	}
	return IIFName.format(v[len(v)-1]) == bridge
}

func hasNetworkRules(n firewall.Network) bool {
	return n.Internal || n.NoICC || n.Apart || n.NoHost || n.Tunnel != "" || closes(n.IPv4) || closes(n.IPv6)
}

// closes says that a policy keeps any source out.
func closes(p firewall.Policy) bool { return p == firewall.Published || p == firewall.Routed }

// PlanNetwork is Plan for a network alone: its elements, and its rule in chain marks; nil:
// none.
func PlanNetwork(n firewall.Network) ([]Elem, *MarkRule, error) {
	if !hasNetworkRules(n) {
		return nil, nil, nil
	}
	if err := firewall.CheckOwner(n.Name); err != nil {
		return nil, nil, fmt.Errorf("network name %w", err)
	}
	br, err := ifname(n.Bridge)
	if err != nil {
		return nil, nil, fmt.Errorf("bridge %w", err)
	}
	all := make([]Elem, 0, 16+len(n.VTEPs))
	adder := func(owner string) func(*Set, ...[]byte) {
		return func(s *Set, values ...[]byte) {
			all = append(all, Elem{Set: s, Key: s.Key.Of(values...), Owner: owner})
		}
	}
	add := adder(n.GuardKey())
	add(&Inside, br, br)
	if n.Internal {
		add(&Internal, br)
	}
	if n.NoICC {
		add(&NoICC, br, br)
	}
	if n.Apart {
		add(&Apart, br)
	}
	if n.NoHost {
		add(&NoHost, br)
	}
	if n.Tunnel != "" {
		for _, name := range tunnels(n.Tunnel, n.Spare) {
			if err := planTunnel(n, name, br, adder(firewall.Key(n.Name))); err != nil {
				return nil, nil, err
			}
		}
		sealed, err := sealedElems(n, br)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, sealed...)
		direct, err := directElems(n, br)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, direct...)
	}
	for _, f := range []struct {
		family byte
		policy firewall.Policy
	}{{unix.NFPROTO_IPV4, n.IPv4}, {unix.NFPROTO_IPV6, n.IPv6}} {
		if closes(f.policy) {
			add(&Closed, []byte{f.family}, br)
		}
		if f.policy == firewall.Routed {
			add(&Routed, []byte{f.family}, br)
		}
	}
	for _, name := range n.Trusted {
		from, err := ifname(name)
		if err != nil {
			return nil, nil, fmt.Errorf("trusted interface %w", err)
		}
		add(&Trusted, from, br)
	}
	if slices.ContainsFunc(all, func(e Elem) bool { return slices.Contains(StrictSets, e.Set) }) {
		all = append(all, StrictElems()...)
	}
	return Dedupe(all), markOf(n, n.GuardKey()), nil
}

// StrictElems returns the elements of Strict.
func StrictElems() []Elem {
	return []Elem{{Set: &Strict, Key: []byte{unix.NFPROTO_IPV4}}, {Set: &Strict, Key: []byte{unix.NFPROTO_IPV6}}}
}

// planTunnel adds what makes bridge and tunnel one network.
func planTunnel(n firewall.Network, name string, br []byte, add func(*Set, ...[]byte)) error {
	vx, err := ifname(name)
	if err != nil {
		return fmt.Errorf("tunnel %w", err)
	}
	add(&Inside, br, vx)
	add(&Inside, vx, br)
	if n.Internal {
		add(&Internal, vx)
	}
	if n.NoICC {
		add(&NoICC, br, vx)
		add(&NoICC, vx, br)
	}
	if n.NoHost {
		add(&NoHost, vx)
	}
	for _, mac := range n.VTEPs {
		if uint32(len(mac)) != EtherSource.Size {
			return fmt.Errorf("tunnel endpoint %s: %w", mac, firewall.ErrInvalid)
		}
		add(&VTEPs, vx, mac)
	}
	add(&Tunnels, vx)
	return planUnderlay(n.Underlay, add)
}

// tunnels are those of one name or two.
func tunnels(first, spare string) []string {
	if spare == "" {
		return []string{first}
	}
	return []string{first, spare}
}

func hasEndpointRules(e firewall.Endpoint) bool {
	return e.Masquerade != (firewall.Families{}) || e.MAC != nil || len(e.Ports) > 0
}

func planEndpoint(n firewall.Network, e firewall.Endpoint) (Planned, error) {
	if !hasEndpointRules(e) {
		return Planned{}, nil
	}
	if err := firewall.CheckOwner(e.Owner); err != nil {
		return Planned{}, fmt.Errorf("owner %w", err)
	}
	p, err := PlanPorts(n, e)
	if err != nil {
		return Planned{}, err
	}
	if e.Masquerade != (firewall.Families{}) {
		masq, err := masqElems(e)
		if err != nil {
			return Planned{}, err
		}
		p.Elems = append(masq, p.Elems...)
	}
	if e.Handover != nil {
		if p.Handover, err = planHandover(n, e, p.Elems); err != nil {
			return Planned{}, err
		}
	}
	if len(p.Elems) > 0 {
		p.Elems = append(p.Elems, ownerElem(e.Owner))
	}
	if e.MAC != nil {
		mac, err := macElems(e)
		if err != nil {
			return Planned{}, err
		}
		p.Elems = append(p.Elems, mac...)
	}
	return p, nil
}

// planHandover finds what was planned with less of the ports and is not in now.
func planHandover(n firewall.Network, e firewall.Endpoint, now []Elem) (*Handover, error) {
	h := &Handover{From: firewall.Key(e.Handover.From)}
	e.Standby, e.Handover = e.Handover.Was, nil
	before, err := PlanPorts(n, e)
	if err != nil {
		return nil, err
	}
	wanted := map[Slot]bool{}
	for _, el := range now {
		wanted[el.Slot()] = true
	}
	for _, el := range before.Elems {
		if !wanted[el.Slot()] {
			h.Was = append(h.Was, el)
		}
	}
	return h, nil
}

func ownerElem(owner string) Elem {
	h := fnv.New128a()
	_, _ = h.Write([]byte(firewall.Key(owner)))
	return Elem{Set: &Owners, Key: h.Sum(nil), Owner: firewall.Key(owner)}
}

// uniqueAddrs returns the addresses, each once.
func uniqueAddrs(e firewall.Endpoint) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, a := range e.Addrs {
		if !a.IsValid() {
			return nil, fmt.Errorf("address %s: %w", a, firewall.ErrInvalid)
		}
		if a = a.Unmap().WithZone(""); !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all, nil
}

// setsFor returns the sets of an address's family.
func setsFor(a netip.Addr) *FamilySets {
	if a.Is4() {
		return IPv4()
	}
	return IPv6()
}

// masqElems masquerades the addresses of the families in Masquerade and says
// where they are at home.
func masqElems(e firewall.Endpoint) ([]Elem, error) {
	br, err := ifname(e.Bridge)
	if err != nil {
		return nil, fmt.Errorf("bridge %w", err)
	}
	homes := [][]byte{br}
	if e.Tunnel != "" {
		for _, name := range tunnels(e.Tunnel, e.Spare) {
			vx, err := ifname(name)
			if err != nil {
				return nil, fmt.Errorf("tunnel %w", err)
			}
			homes = append(homes, vx)
		}
	}
	addrs, err := uniqueAddrs(e)
	if err != nil {
		return nil, err
	}
	var all []Elem
	owner := firewall.Key(e.Owner)
	for _, a := range addrs {
		f, ip := setsFor(a), a.AsSlice()
		if !e.Masquerade.Has(a) {
			continue
		}
		for _, at := range homes {
			all = append(all, Elem{Set: &f.Home, Key: f.Home.Key.Of(ip, at), Owner: owner})
		}
		all = append(all, Elem{Set: &f.Masq, Key: f.Masq.Key.Of(ip, br), Owner: owner})
		if i := slices.IndexFunc(e.Source, func(s netip.Addr) bool { return s.Is4() == a.Is4() }); i >= 0 {
			all = append(all, Elem{Set: &f.Source, Key: f.Source.Key.Of(ip, br), Data: e.Source[i].AsSlice(), Owner: owner})
		}
	}
	return all, nil
}

// macElems returns one element more if MAC is not nil.
func macElems(e firewall.Endpoint) ([]Elem, error) {
	port, err := ifname(e.Port)
	if err != nil {
		return nil, fmt.Errorf("port %w", err)
	}
	all := []Elem{{Set: &Guarded, Key: Guarded.Key.Of(port), Owner: firewall.Key(e.Owner)}}
	if e.MAC == nil {
		return all, nil
	}
	if uint32(len(e.MAC)) != EtherSource.Size {
		return nil, fmt.Errorf("mac %s: %w", e.MAC, firewall.ErrInvalid)
	}
	return append(all, Elem{Set: &MACs, Key: MACs.Key.Of(port, e.MAC), Owner: firewall.Key(e.Owner)}), nil
}

// Dedupe keeps the first of elements with the same key.
func Dedupe(all []Elem) []Elem {
	seen := make(map[Slot]bool, len(all))
	return slices.DeleteFunc(all, func(e Elem) bool {
		before := len(seen)
		seen[e.Slot()] = true
		return len(seen) == before
	})
}

// Slot is where an element stands.
type Slot struct {
	set      *Set
	key, end string
}

// Slot returns where e stands.
func (e Elem) Slot() Slot { return Slot{e.Set, string(e.Key), string(e.End)} }

// ifname returns the name's bytes, if an interface can have that name.
func ifname(name string) ([]byte, error) {
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/: \x00\t\n\v\f\r") {
		return nil, fmt.Errorf("%q: %w", name, firewall.ErrInvalid)
	}
	return []byte(name), nil
}

package ruleset

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Holdings are where an owner's elements are: at keys, the first of which is
// its element in owners, and somewhere in sets.
type Holdings struct {
	Owner string
	ByKey []Elem
	BySet []*Set
}

// HoldingsOf returns where e's owner may have elements: at keys as far as these are
// known, unless its ports are more than most.
func HoldingsOf(e firewall.Endpoint, most int) (Holdings, error) {
	if err := firewall.CheckOwner(e.Owner); err != nil {
		return Holdings{}, fmt.Errorf("owner %w", err)
	}
	byKey := []Elem{ownerElem(e.Owner)}
	var bySet []*Set
	add := func(known bool, elems func(firewall.Endpoint) ([]Elem, error), sets []*Set) error {
		if !known {
			bySet = append(bySet, sets...)
			return nil
		}
		more, err := elems(e)
		byKey = append(byKey, more...)
		return err
	}
	plain4, ports4 := IPv4().all()
	plain6, ports6 := IPv6().all()
	where := e.Addrs != nil && e.Bridge != ""
	err := errors.Join(
		add(where, allMasqElems, append(plain4, plain6...)),
		add(where && e.Ports != nil && numbers(e.Ports) <= most, allPortElems, append(ports4, ports6...)),
		add(e.Port != "", macElems, []*Set{&Guarded, &MACs}))
	return Holdings{firewall.Key(e.Owner), byKey, bySet}, err
}

// numbers counts the ports: of many, to list the sets is cheaper than to ask for
// the elements, which with all that they might be are six or more for each.
func numbers(ports []firewall.PortMap) int {
	n := 0
	for _, m := range ports {
		if m.HostPort != m.ContainerPort {
			n += int(m.Last() - m.HostPort)
		}
		n++
	}
	return n
}

// allMasqElems are the elements of any Masquerade and Source.
func allMasqElems(e firewall.Endpoint) ([]Elem, error) {
	e.Masquerade, e.Source = firewall.Families{IPv4: true, IPv6: true}, []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	return masqElems(e)
}

// allPortElems are the elements of Ports under any policy, with Hairpin and
// without, Beside and not, and with Standby and without.
func allPortElems(e firewall.Endpoint) ([]Elem, error) {
	var all []Elem
	e.ConditionsIPv4, e.ConditionsIPv6, e.Handover = nil, nil, nil // see delGate
	e.Beside = false
	standby := [][]firewall.PortMap{nil}
	if len(e.Standby) > 0 {
		standby = append(standby, e.Standby)
	}
	for _, e.Standby = range standby {
		for _, hairpin := range []bool{true, false} {
			e.Hairpin, e.MasqueradeAll = hairpin, hairpin
			p, err := PlanPorts(firewall.Network{Trusted: []string{""}}, e)
			if err != nil {
				return nil, err
			}
			all = append(all, p.Elems...)
		}
	}
	more, err := singleOpens(e)
	if err != nil {
		return nil, err
	}
	all = append(all, more...)
	for _, el := range all {
		for _, f := range BothFamilies() {
			switch el.Set {
			case &f.Hairpin[0]:
				el.Set = &f.Hairpin[1]
				all = append(all, el)
			case &f.MasqAll[0]:
				el.Set = &f.MasqAll[1]
				all = append(all, el)
			}
		}
	}
	return Dedupe(all), nil
}

// singleOpens are the elements by which each mapping of Ports opens its own ports
// of the container: earlier versions did not put those together that meet.
func singleOpens(e firewall.Endpoint) ([]Elem, error) {
	addrs, err := uniqueAddrs(e)
	if err != nil {
		return nil, err
	}
	var all []Elem
	for _, a := range addrs {
		p := publication{sets: setsFor(a), target: a, owner: firewall.Key(e.Owner)}
		for _, m := range e.Ports {
			if m, ok := m.ForFamily(a.Is4()); ok {
				if err := p.open([]firewall.PortMap{m}); err != nil {
					return nil, err
				}
			}
		}
		all = append(all, p.elems...)
	}
	return all, nil
}

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
)

// holdings are where an owner's elements are: at keys, the first of which is
// its element in owners, and somewhere in sets.
type holdings struct {
	owner string
	byKey []elem
	bySet []*set
}

// holdingsOf returns where e's owner may have elements: at keys as far as these are
// known, unless its ports are more than most.
func holdingsOf(e Endpoint, most int) (holdings, error) {
	if err := checkOwner(e.Owner); err != nil {
		return holdings{}, fmt.Errorf("owner %w", err)
	}
	byKey := []elem{ownerElem(e.Owner)}
	var bySet []*set
	add := func(known bool, elems func(Endpoint) ([]elem, error), sets []*set) error {
		if !known {
			bySet = append(bySet, sets...)
			return nil
		}
		more, err := elems(e)
		byKey = append(byKey, more...)
		return err
	}
	plain4, ports4 := ipv4().all()
	plain6, ports6 := ipv6().all()
	where := e.Addrs != nil && e.Bridge != ""
	err := errors.Join(
		add(where, allMasqElems, append(plain4, plain6...)),
		add(where && e.Ports != nil && numbers(e.Ports) <= most, allPortElems, append(ports4, ports6...)),
		add(e.Port != "", macElems, []*set{&guarded, &macs}))
	return holdings{Key(e.Owner), byKey, bySet}, err
}

// numbers counts the ports: of many, to list the sets is cheaper than to ask for
// the elements, which with all that they might be are six or more for each.
func numbers(ports []PortMap) int {
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
func allMasqElems(e Endpoint) ([]elem, error) {
	e.Masquerade, e.Source = Families{true, true}, []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	return masqElems(e)
}

// allPortElems are the elements of Ports under any policy, with Hairpin and
// without, Beside and not, and with Standby and without.
func allPortElems(e Endpoint) ([]elem, error) {
	var all []elem
	e.ConditionsIPv4, e.ConditionsIPv6, e.Handover = nil, nil, nil // see delGate
	e.Beside = false
	standby := [][]PortMap{nil}
	if len(e.Standby) > 0 {
		standby = append(standby, e.Standby)
	}
	for _, e.Standby = range standby {
		for _, hairpin := range []bool{true, false} {
			e.Hairpin, e.MasqueradeAll = hairpin, hairpin
			p, err := planPorts(Network{Trusted: []string{""}}, e)
			if err != nil {
				return nil, err
			}
			all = append(all, p.elems...)
		}
	}
	more, err := singleOpens(e)
	if err != nil {
		return nil, err
	}
	all = append(all, more...)
	for _, el := range all {
		for _, f := range bothFamilies() {
			switch el.set {
			case &f.hairpin[0]:
				el.set = &f.hairpin[1]
				all = append(all, el)
			case &f.masqAll[0]:
				el.set = &f.masqAll[1]
				all = append(all, el)
			}
		}
	}
	return dedupe(all), nil
}

// singleOpens are the elements by which each mapping of Ports opens its own ports
// of the container: earlier versions did not put those together that meet.
func singleOpens(e Endpoint) ([]elem, error) {
	addrs, err := uniqueAddrs(e)
	if err != nil {
		return nil, err
	}
	var all []elem
	for _, a := range addrs {
		p := publication{sets: setsFor(a), target: a, owner: Key(e.Owner)}
		for _, m := range e.Ports {
			if m, ok := m.ForFamily(a.Is4()); ok {
				if err := p.open([]PortMap{m}); err != nil {
					return nil, err
				}
			}
		}
		all = append(all, p.elems...)
	}
	return all, nil
}

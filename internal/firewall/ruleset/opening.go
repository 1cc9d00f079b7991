package ruleset

import (
	"net/netip"
	"slices"
	"strings"
)

// OpeningSets are the sets of networks that let packets past those of ClosingSets.
var OpeningSets = []*Set{&Routed, &Trusted, &Inside}

// Concerns says that an element of OpeningSets lets packets into a bridge, or, past what
// closes an internal one, out of it.
func (e Elem) Concerns(bridge string) bool {
	v, ok := e.Set.Key.Split(e.Key)
	return ok && (IIFName.format(v[len(v)-1]) == bridge || e.Set == &Inside && IIFName.format(v[0]) == bridge)
}

// TunnelsOf returns the elements that both interfaces of one of Inside have in Tunnels
// if they are tunnels.
func TunnelsOf(e Elem) []Elem {
	v, ok := e.Set.Key.Split(e.Key)
	if !ok || len(v) != 2 {
		return nil
	}
	return []Elem{{Set: &Tunnels, Key: Tunnels.Key.Of(v[0])}, {Set: &Tunnels, Key: Tunnels.Key.Of(v[1])}}
}

// OpenPorts returns the sets of ports that are reached directly, for the families of
// addresses.
func OpenPorts(addrs []netip.Addr) []*Set {
	var all []*Set
	for _, f := range BothFamilies() {
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return setsFor(a) == f }) {
			all = append(all, &f.Open, &f.OpenSpan)
		}
	}
	return all
}

// Opens says that an element of OpenPorts opens a port of one of these addresses. What
// portmap-ln publishes beside has an owner of its own, and is not meant.
func Opens(e Elem, addrs []netip.Addr) bool {
	v, ok := e.Set.Key.Split(e.Key)
	if !ok || strings.HasPrefix(e.Owner, besidePrefix) {
		return false
	}
	a, _ := netip.AddrFromSlice(v[len(v)-3]) // before protocol and port
	return slices.Contains(addrs, a)
}

// besidePrefix starts the owners of what is Beside, as package model has it.
const besidePrefix = "libnet-portmap:"

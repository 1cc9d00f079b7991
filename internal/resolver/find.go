package resolver

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The names that are the host's: its addresses on the network.
const (
	hostName    = "host"
	gatewayName = "gateway"
	// tasksPrefix before a name asks for all containers of that name, as
	// Docker's resolver has it.
	tasksPrefix = "tasks."
)

// found is what a name stands for.
type found struct {
	addresses []netip.Addr
	at        *entry // whose turn counts; nil: the host's
}

// networksOf returns the networks with names that the asker is on: first the one
// by which the query came.
func (t *Table) networksOf(a Asker) []*network {
	var all []*network
	c := t.of[a.Container]
	if c == nil {
		return nil
	}
	for _, e := range c.endpoints {
		n := t.networks[e.Network]
		if n == nil || slices.Contains(all, n) {
			continue
		}
		if e.Network == a.Network {
			all = slices.Insert(all, 0, n)
		} else {
			all = append(all, n)
		}
	}
	return all
}

// find says what a name, in lower case and without the final dot, stands for on
// some networks. A container that shares several of them with the asker is there
// once for each family, with its addresses on the first one that has the family.
func find(nets []*network, name string) (found, bool) {
	for _, ask := range []string{name, strings.TrimPrefix(name, tasksPrefix)} {
		if f := findMembers(nets, ask, strings.HasPrefix(name, tasksPrefix) && ask != name); f.at != nil {
			return f, true
		}
	}
	return findHost(nets, name)
}

// member is a container that is found, by a family.
type member struct {
	container string
	is6       bool
}

func findMembers(nets []*network, name string, tasks bool) (f found) {
	var all []*entry
	for _, n := range nets {
		all = append(all, n.entries(name)...)
	}
	if len(all) == 0 {
		return f
	}
	f.at = all[0]
	if len(all) == 1 { // nothing can be there twice
		for _, e := range all[0].meant(tasks) {
			f.addresses = append(f.addresses, e.Addresses...)
		}
		return f
	}
	first := map[member]string{} // the network that the member is found on
	there := map[netip.Addr]bool{}
	for _, at := range all {
		for _, e := range at.meant(tasks) {
			for _, a := range e.Addresses {
				m := member{e.Container, a.Is6()}
				if first[m] == "" {
					first[m] = e.Network
				}
				if first[m] == e.Network && !there[a] {
					there[a] = true
					f.addresses = append(f.addresses, a)
				}
			}
		}
	}
	return f
}

// meant returns the endpoints that a name leads to: services before containers; for tasks,
// which asks for the containers, the other way round.
func (e *entry) meant(tasks bool) []*Endpoint {
	for _, other := range e.endpoints {
		if other.Service == e.endpoints[0].Service {
			continue
		}
		return slices.DeleteFunc(slices.Clone(e.endpoints), func(one *Endpoint) bool { return one.Service == tasks })
	}
	return e.endpoints
}

// entries returns those for NAME, NAME.NETWORK and NAME.domain. Names and
// networks may have dots, so it is the end of the name that is compared.
func (n *network) entries(name string) []*entry {
	var all []*entry
	for _, sub := range n.within(name) {
		if at := n.byName[sub]; at != nil && !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	return all
}

// within returns what a name may be on this network: itself, and what stands
// before the network's name or domain.
func (n *network) within(name string) []string {
	all := append(make([]string, 0, 3), name)
	for _, end := range []string{n.name, n.domain} {
		if sub, ok := before(name, end); ok {
			all = append(all, sub)
		}
	}
	return all
}

// before returns what stands before "."+end.
func before(name, end string) (string, bool) {
	if end == "" || len(name) < len(end)+2 || !strings.HasSuffix(name, end) || name[len(name)-len(end)-1] != '.' {
		return "", false
	}
	return name[:len(name)-len(end)-1], true
}

func findHost(nets []*network, name string) (f found, ok bool) {
	for _, n := range nets {
		for i, sub := range n.within(name) {
			bare := i == 0
			if len(n.gateways) > 0 && (sub == gatewayName || sub == hostName && !bare) {
				for g := range n.gateways {
					f.addresses = append(f.addresses, g)
				}
				slices.SortFunc(f.addresses, netip.Addr.Compare)
				return f, true
			}
		}
	}
	return f, false
}

// owned says that a name is in the domain of one of the networks, or is it.
func owned(nets []*network, name string) bool {
	return slices.ContainsFunc(nets, func(n *network) bool {
		_, under := before(name, n.domain)
		return n.domain != "" && (under || name == n.domain)
	})
}

// nameOf returns the name of an address on one of the networks, complete.
func nameOf(nets []*network, a netip.Addr) (string, bool) {
	for _, n := range nets {
		end := n.domain
		if end == "" {
			end = n.name
		}
		if e := n.byAddr[a]; e != nil {
			return lower(e.Names[0]) + "." + end, true
		}
		if n.gateways[a] > 0 {
			return hostName + "." + end, true
		}
	}
	return "", false
}

// service splits a name like _http._tcp.web into the port and the rest. The first
// label is a number, or a name that the host knows a port of.
func service(name string) (port uint16, rest string, ok bool) {
	labels := strings.SplitN(name, ".", 3)
	if len(labels) < 3 || !strings.HasPrefix(labels[0], "_") || labels[1] != "_tcp" && labels[1] != "_udp" {
		return 0, "", false
	}
	if n, err := strconv.ParseUint(labels[0][1:], 10, 16); err == nil {
		return uint16(n), labels[2], n > 0
	}
	n, err := net.LookupPort(labels[1][1:], labels[0][1:])
	return uint16(n), labels[2], err == nil
}

// reverse returns the address that a name of in-addr.arpa or ip6.arpa stands for.
func reverse(name string) (netip.Addr, bool) {
	if sub, ok := before(name, "in-addr.arpa"); ok {
		parts := strings.Split(sub, ".")
		slices.Reverse(parts)
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		return a, err == nil && a.Is4()
	}
	sub, ok := before(name, "ip6.arpa")
	if !ok || len(sub) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		digit, err := strconv.ParseUint(sub[2*i:2*i+1], 16, 8)
		if err != nil || i < 31 && sub[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(digit) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}

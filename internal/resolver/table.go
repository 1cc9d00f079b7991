package resolver

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Endpoint is an attachment of a container to a network, with its names there.
type Endpoint struct {
	// Node is the host that it is on; empty: this one.
	Node string
	// Network, Container and IfName tell it from the host's others.
	Network, Container, IfName string

	// Domain of the network, as "libnet.internal"; empty: none.
	Domain string
	// Names of the container on this network, the best one first: it is the
	// answer to a query for the name of an address. None: the network has no
	// names, and the endpoint only asks.
	Names []string
	// Addresses on this network.
	Addresses []netip.Addr
	// Gateways are the addresses of the host on this network.
	Gateways []netip.Addr
	// Service says that it is none, but a service: its name leads to it alone, also where
	// containers have the same name.
	Service bool
	// Bridge of this host that it is attached to; empty: it cannot ask.
	Bridge string
}

func (e Endpoint) key() string {
	return e.Network + "/" + e.Container + "/" + e.IfName + "/" + e.Node
}

// Asker is a container that asks.
type Asker struct {
	// Container is its ID.
	Container string
	// Network by which the query came, and IfName of the attachment to it.
	Network, IfName string
}

// Table knows the endpoints of all networks. The zero value is empty and can be
// used. It is for several goroutines.
type Table struct {
	mu       sync.RWMutex
	all      map[string]*Endpoint // by key
	networks map[string]*network
	of       map[string]*container
	from     map[netip.Addr][]source
}

// container is one of this host.
type container struct {
	endpoints []*Endpoint
	// only is the network with names that it is on; nil: none, or several.
	only *network
}

// source is an endpoint that may ask.
type source struct {
	*Endpoint
	container *container
}

// network is what a Table knows of a network that has names.
type network struct {
	name, domain string // in lower case
	members      int
	byName       map[string]*entry
	byAddr       map[netip.Addr]*Endpoint
	gateways     map[netip.Addr]int // with the number of endpoints that have it
	memory       memory
}

// entry is what one name stands for.
type entry struct {
	endpoints []*Endpoint
	turn      [2]atomic.Uint32 // of IPv4 and IPv6: which address comes first
}

// Put adds an endpoint, or replaces the one of the same attachment.
func (t *Table) Put(e Endpoint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all, t.networks = map[string]*Endpoint{}, map[string]*network{}
		t.of, t.from = map[string]*container{}, map[netip.Addr][]source{}
	}
	t.remove(e.key())
	p := &e
	t.all[e.key()] = p
	c := t.of[e.Container]
	if e.Node == "" {
		if c == nil {
			c = &container{}
			t.of[e.Container] = c
		}
		c.endpoints = append(c.endpoints, p)
		slices.SortFunc(c.endpoints, func(a, b *Endpoint) int { return strings.Compare(a.key(), b.key()) })
	}
	if e.Bridge != "" && c != nil {
		for _, a := range e.Addresses {
			// The last one that came is the owner: the one before is going.
			t.from[a] = append(t.behindOthers(e.Bridge, a), source{p, c})
		}
	}
	if len(e.Names) == 0 {
		t.settle(c)
		return
	}
	if n := t.networks[e.Network]; n != nil {
		n.put(p)
		t.settle(c)
		return
	}
	n := &network{name: lower(e.Network), byName: map[string]*entry{}, byAddr: map[netip.Addr]*Endpoint{}, gateways: map[netip.Addr]int{}}
	t.networks[e.Network] = n
	n.put(p)
	t.settleAll()
}

// settle says anew which network with names a container is on; nil is none.
func (t *Table) settle(c *container) {
	if c == nil {
		return
	}
	c.only = nil
	for _, e := range c.endpoints {
		n := t.networks[e.Network]
		if n != nil && c.only != nil && n != c.only {
			c.only = nil
			return
		}
		if n != nil {
			c.only = n
		}
	}
}

// settleAll is settle for all: a network came or went.
func (t *Table) settleAll() {
	for _, c := range t.of {
		t.settle(c)
	}
}

func (n *network) put(p *Endpoint) {
	n.memory.forget()
	n.members++
	if p.Node == "" || n.domain == "" {
		n.domain = lower(p.Domain)
	}
	for _, name := range p.Names {
		key := lower(name)
		if n.byName[key] == nil {
			n.byName[key] = &entry{}
		}
		if at := n.byName[key]; !slices.Contains(at.endpoints, p) {
			at.endpoints = append(at.endpoints, p)
		}
	}
	for _, a := range p.Addresses {
		n.byAddr[a] = p
	}
	for _, g := range p.Gateways {
		n.gateways[g]++
	}
}

// Delete removes the endpoint with the node, network, container and interface of e; a
// missing one is success.
func (t *Table) Delete(e Endpoint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(e.key())
}

func (t *Table) remove(key string) {
	p := t.all[key]
	if p == nil {
		return
	}
	delete(t.all, key)
	if c := t.of[p.Container]; c != nil {
		c.endpoints = slices.DeleteFunc(c.endpoints, func(e *Endpoint) bool { return e == p })
		if len(c.endpoints) == 0 {
			delete(t.of, p.Container)
		}
		t.settle(c)
	}
	for _, a := range p.Addresses {
		t.from[a] = slices.DeleteFunc(t.from[a], func(s source) bool { return s.Endpoint == p })
		if len(t.from[a]) == 0 {
			delete(t.from, a)
		}
	}
	n := t.networks[p.Network]
	if n == nil || len(p.Names) == 0 {
		return
	}
	if n.remove(p); n.members == 0 {
		delete(t.networks, p.Network)
		t.settleAll()
	}
}

func (n *network) remove(p *Endpoint) {
	n.memory.forget()
	n.members--
	for _, name := range p.Names {
		key := lower(name)
		if at := n.byName[key]; at != nil {
			at.endpoints = slices.DeleteFunc(at.endpoints, func(e *Endpoint) bool { return e == p })
			if len(at.endpoints) == 0 {
				delete(n.byName, key)
			}
		}
	}
	for _, a := range p.Addresses {
		if n.byAddr[a] == p {
			delete(n.byAddr, a)
		}
	}
	for _, g := range p.Gateways {
		if n.gateways[g]--; n.gateways[g] <= 0 {
			delete(n.gateways, g)
		}
	}
}

// behindOthers returns those with an address behind other bridges.
func (t *Table) behindOthers(bridge string, a netip.Addr) []source {
	return slices.DeleteFunc(t.from[a], func(s source) bool { return s.Bridge == bridge })
}

// Asker returns the endpoint that has an address behind a bridge of this host. Without
// a bridge it is the only one behind any; false if two have the address.
func (t *Table) Asker(bridge string, from netip.Addr) (a Asker, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if s, ok := t.source(bridge, from); ok {
		return s.asker(), true
	}
	return Asker{}, false
}

func (t *Table) source(bridge string, from netip.Addr) (s source, ok bool) {
	for _, one := range t.from[from] {
		if bridge != "" && one.Bridge != bridge && !vlanOf(one.Bridge, bridge) {
			continue
		}
		if ok {
			return source{}, false
		}
		s, ok = one, true
	}
	return s, ok
}

func (s source) asker() Asker {
	return Asker{Container: s.Container, Network: s.Network, IfName: s.IfName}
}

// vlanOf says that an interface is that of a VLAN of a bridge, as "br0.7": packets to the
// gateway come in by it.
func vlanOf(bridge, name string) bool {
	number, is := strings.CutPrefix(name, bridge+".")
	return is && bridge != "" && number != "" && strings.Trim(number, "0123456789") == ""
}

// AskerNamed returns the container of this host that has a name on some network,
// or whose ID begins with the name; false if there is none, or more than one.
func (t *Table) AskerNamed(name string) (Asker, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found Asker
	for _, p := range t.all {
		named := slices.ContainsFunc(p.Names, func(n string) bool { return lower(n) == lower(name) })
		if p.Bridge == "" || !named && !strings.HasPrefix(p.Container, name) {
			continue
		}
		if found.Container != "" && found.Container != p.Container {
			return Asker{}, false
		}
		if found.Container == "" || p.Network < found.Network {
			found = Asker{Container: p.Container, Network: p.Network, IfName: p.IfName}
		}
	}
	return found, found.Container != ""
}

// Endpoints returns all endpoints in the order of network, container and interface.
func (t *Table) Endpoints() []Endpoint {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]Endpoint, 0, len(t.all))
	for _, p := range t.all {
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b Endpoint) int { return strings.Compare(a.key(), b.key()) })
	return all
}

// lower is how names compare: DNS knows no case in ASCII (RFC 4343).
func lower(s string) string { return strings.ToLower(s) }

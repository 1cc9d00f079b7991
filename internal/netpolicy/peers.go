package netpolicy

import (
	"encoding/binary"
	"maps"
	mathbits "math/bits"
	"net/netip"
	"slices"
	"strconv"
)

// peerIndex has the classes of all addresses, as they were found last, and by what. The
// next compilation asks anew only for pods for which some of that has changed: a cluster has many, and
// a change is about few.
type peerIndex struct {
	used    bits            // terms of rules in force
	blocks  map[Class]block // of these
	named   map[namedPort]bool
	parts   parts
	ranges  []*peerClass // of parts
	classes map[string]*peerClass
	holders map[netip.Addr]*holding
	fresh   map[*member]bool // pods that are in no class yet
	gone    []*member        // that are, and are no more
	touched map[netip.Addr]bool
	table   Table[Class]
	pods    Table[bool]
}

// peerClass are addresses that the same terms and blocks match.
type peerClass struct {
	Class
	key    string
	terms  []int
	blocks []Class
	ports  []Port // that egress rules name
	uses   int    // by holdings and ranges
	live   bool   // something was allowed to it
	known  bool   // live is of an earlier compilation
}

// holding is that a pod has an address.
type holding struct {
	*member
	addr  netip.Addr
	class *peerClass // nil: none
	next  *holding   // of another pod: one of both has it no more, or they are of different networks
}

func newPeerIndex() peerIndex {
	return peerIndex{classes: map[string]*peerClass{}, holders: map[netip.Addr]*holding{}, fresh: map[*member]bool{}, touched: map[netip.Addr]bool{}}
}

// forget has a pod be none.
func (p *peerIndex) forget(m *member) {
	if p.fresh[m] {
		delete(p.fresh, m)
	} else {
		p.gone = append(p.gone, m)
	}
}

// findPeers gives each address that a rule may match its class.
func (r *compilation) findPeers() {
	p := &r.peers
	for text := range p.classes {
		r.classes.keep(text)
	}
	for _, m := range p.gone {
		p.remove(m)
	}
	stale := r.stale()
	p.used, p.named, p.gone = r.used, r.named, nil
	if !maps.EqualFunc(p.blocks, r.blocks, func(block, block) bool { return true }) {
		p.blocks, p.parts = r.blocks, partition(r.blocks)
		r.findRanges()
	}
	for m := range p.fresh {
		p.add(m)
		stale = append(stale, m)
	}
	clear(p.fresh)
	for _, m := range stale {
		r.classify(m)
	}
}

// stale are the pods that were classified by something that is not so now.
func (r *compilation) stale() (all []*member) {
	p := &r.peers
	used, named, blocks := p.used.xor(r.used), apart(p.named, r.named), apart(p.blocks, r.blocks)
	if !r.flipped && used == nil && len(named)+len(blocks) == 0 {
		return nil
	}
	for _, g := range r.groups {
		if g.flipped || g.matched.meets(used) {
			key := g.keyOf(r.used)
			g.key, g.stale, g.flipped = key, key != g.key, false
		}
	}
	for _, m := range r.pods {
		if !p.fresh[m] && (m.group.stale || m.names(named) || m.isIn(blocks)) {
			all = append(all, m)
		}
	}
	for _, g := range r.groups {
		g.stale = false
	}
	r.flipped = false
	return all
}

// apart has what only one of two maps has.
func apart[K comparable, V any](a, b map[K]V) map[K]V {
	all := map[K]V{}
	for _, of := range [][2]map[K]V{{a, b}, {b, a}} {
		for k, v := range of[0] {
			if _, both := of[1][k]; !both {
				all[k] = v
			}
		}
	}
	return all
}

// keyOf says which of these terms match. A term keeps its number while it is in use.
func (g *group) keyOf(used bits) string {
	var key []byte
	for i := range min(len(used), len(g.matched)) {
		if matched := g.matched[i] & used[i]; matched != 0 {
			key = strconv.AppendInt(key, int64(i), 36)
			key = binary.BigEndian.AppendUint64(append(key, ':'), matched)
		}
	}
	return string(key)
}

// names says whether the pod has a port of one of these names.
func (m *member) names(named map[namedPort]bool) bool {
	return slices.ContainsFunc(m.Ports, func(p Port) bool { return named[namedPort{p.Name, p.Protocol}] })
}

// isIn says whether one of the blocks has an address of the pod, or an exception of it has.
func (m *member) isIn(blocks map[Class]block) bool {
	for _, b := range blocks {
		if slices.ContainsFunc(m.Addrs, b.prefix.Contains) {
			return true
		}
	}
	return false
}

// add has a pod hold its addresses. Of several pods, the first in order has one.
func (p *peerIndex) add(m *member) {
	m.held = make([]holding, len(m.Addrs))
	for i, a := range m.Addrs {
		h := &m.held[i]
		h.member, h.addr = m, a
		first := p.holders[a]
		if p.touched[a] = true; first == nil || m.compare(first.Key) < 0 {
			h.next, p.holders[a] = first, h
			continue
		}
		for first.next != nil && first.next.compare(m.Key) < 0 {
			first = first.next
		}
		h.next, first.next = first.next, h
	}
}

// remove is the opposite of add.
func (p *peerIndex) remove(m *member) {
	for i := range m.held {
		h := &m.held[i]
		p.leave(h.class)
		p.touched[h.addr] = true
		at := p.holders[h.addr]
		switch {
		case at != h:
			for at.next != h {
				at = at.next
			}
			at.next = h.next
		case h.next != nil:
			p.holders[h.addr] = h.next
		default:
			delete(p.holders, h.addr)
		}
	}
}

// classify finds the classes of a pod's addresses.
func (r *compilation) classify(m *member) {
	var ports []Port
	for _, port := range m.Ports {
		if r.named[namedPort{port.Name, port.Protocol}] {
			ports = append(ports, port)
		}
	}
	for i := range m.held {
		h := &m.held[i]
		before := h.class
		if h.class = r.class(m.group, r.peers.parts.at(h.addr), ports); h.class != before {
			r.peers.touched[h.addr] = true
		}
		r.peers.leave(before)
	}
}

// findRanges gives the parts of blocks their classes.
func (r *compilation) findRanges() {
	before := r.peers.ranges
	r.peers.ranges = nil
	for _, part := range r.peers.parts {
		r.peers.ranges = append(r.peers.ranges, r.class(&group{}, part.blocks, nil))
	}
	for _, c := range before {
		r.peers.leave(c)
	}
}

// class returns that of what the terms of a group and these blocks match; nil: none does.
func (r *compilation) class(g *group, blocks []Class, ports []Port) *peerClass {
	if g.key == "" && len(blocks) == 0 && len(ports) == 0 {
		return nil
	}
	key := append(append(append(make([]byte, 0, 64), 'P'), g.key...), '/')
	for _, b := range blocks {
		key = binary.BigEndian.AppendUint32(key, uint32(b))
	}
	key = appendPorts(append(key, '/'), ports)
	c := r.peers.classes[string(key)]
	if c == nil {
		c = &peerClass{Class: r.classes.of(key), key: string(key), blocks: blocks, ports: ports}
		for i := range min(len(g.matched), len(r.used)) {
			for matched := g.matched[i] & r.used[i]; matched != 0; matched &= matched - 1 {
				c.terms = append(c.terms, i*word+mathbits.TrailingZeros64(matched))
			}
		}
		r.peers.classes[c.key] = c
	}
	c.uses++
	return c
}

// leave has one less be of a class; nil is none.
func (p *peerIndex) leave(c *peerClass) {
	if c == nil {
		return
	}
	if c.uses--; c.uses == 0 {
		delete(p.classes, c.key)
	}
}

// indexPeers has classes found by what rules say of them.
func (r *compilation) indexPeers() {
	r.byTerm, r.byBlock, r.byName = make([][]*peerClass, len(r.byID)), map[Class][]*peerClass{}, map[namedPort][]*peerClass{}
	for _, c := range r.peers.classes {
		for _, id := range c.terms {
			r.byTerm[id] = append(r.byTerm[id], c)
		}
		for _, b := range c.blocks {
			r.byBlock[b] = append(r.byBlock[b], c)
		}
		for _, port := range c.ports {
			n := namedPort{port.Name, port.Protocol}
			if !slices.Contains(r.byName[n], c) {
				r.byName[n] = append(r.byName[n], c)
			}
		}
	}
}

// finish leaves out classes that nothing is allowed to.
func (r *compilation) finish() {
	p := &r.peers
	allowed := map[Class]bool{}
	for pair := range r.rules.Allowed {
		allowed[pair.Peer] = true
	}
	for _, c := range p.classes {
		if c.known && c.live != allowed[c.Class] {
			for a := range p.holders {
				p.touched[a] = true
			}
			break
		}
	}
	for _, c := range p.classes {
		c.known, c.live = true, allowed[c.Class]
	}
	p.write()
	if r.rules.Peers = p.table; allowed[AnyPod] {
		r.rules.Pods = p.pods
	}
	for i, c := range p.ranges {
		if c.live {
			r.rules.Ranges = append(r.rules.Ranges, Range{p.parts[i].from, p.parts[i].to, c.Class})
		}
	}
}

// write brings the tables up to date.
func (p *peerIndex) write() {
	if len(p.touched) == 0 {
		return
	}
	table, pods := p.table.edit(), p.pods.edit()
	for a := range p.touched {
		h := p.holders[a]
		pods.put(a, true, h != nil)
		if h != nil && h.class != nil && h.class.live {
			table.put(a, h.class.Class, true)
		} else {
			table.put(a, 0, false)
		}
	}
	clear(p.touched)
	p.table, p.pods = table.Table, pods.Table
}

package netpolicy

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
)

// Compile returns what this node has to enforce. Numbers of classes stay over calls, while
// something has them.
func (c *Compiler) Compile() *Rules {
	c.classes.begin()
	c.blockIDs.begin()
	c.profiles.begin()
	r := &compilation{
		Compiler: c, blocks: map[Class]block{}, named: map[namedPort]bool{},
		rules: Rules{In: map[netip.Addr]Class{}, Out: map[netip.Addr]Class{}, Allowed: map[Pair]Profile{}, Ports: map[Profile][]Span{}},
	}
	r.findTargets()
	r.findPeers()
	r.indexPeers()
	for _, t := range r.targets {
		r.allow(t)
	}
	r.finish()
	c.classes.end()
	c.blockIDs.end()
	c.profiles.end()
	return &r.rules
}

// compilation is one call of Compile.
type compilation struct {
	*Compiler
	rules   Rules
	targets []*targetClass
	used    bits // terms of peers, of policies in force
	blocks  map[Class]block
	named   map[namedPort]bool // of egress rules
	byTerm  [][]*peerClass
	byBlock map[Class][]*peerClass
	byName  map[namedPort][]*peerClass
	open    map[Pair]*opening
}

// targetClass are pods that the same policies isolate in one direction, and which give the names of
// ports in these the same numbers.
type targetClass struct {
	Class
	direction
	policies []*policy
	ports    []Port
}

// findTargets finds the isolated pods of this node.
func (r *compilation) findTargets() {
	seen := map[Class]bool{}
	for _, k := range slices.SortedFunc(maps.Keys(r.local), Key.compare) {
		m := r.local[k]
		if !r.Judges(m.Namespace) {
			continue
		}
		for d, addrs := range []map[netip.Addr]Class{r.rules.In, r.rules.Out} {
			d := direction(d)
			policies := r.inForce(m, d)
			if len(policies) == 0 {
				continue
			}
			t := &targetClass{direction: d, policies: policies}
			t.Class = r.classes.of(t.signature(m))
			if !seen[t.Class] {
				seen[t.Class] = true
				r.targets = append(r.targets, t)
				r.note(t)
			}
			for _, a := range m.Addrs {
				addrs[a] = t.Class
			}
		}
	}
}

// signature is what tells a target class from others.
func (t *targetClass) signature(m *member) []byte {
	key := []byte{'T', byte(t.direction)}
	for _, p := range t.policies {
		key = append(append(key, p.key.String()...), 0)
		if t.direction == egress {
			continue
		}
		for _, rule := range p.rules[ingress] {
			for _, n := range rule.named {
				t.ports = append(t.ports, n.of(m.Ports)...)
			}
		}
	}
	return appendPorts(key, t.ports)
}

// of are the ports that have this name.
func (n namedPort) of(ports []Port) (all []Port) {
	for _, p := range ports {
		if p.Name == n.name && p.Protocol == n.protocol {
			all = append(all, p)
		}
	}
	return all
}

func appendPorts(key []byte, ports []Port) []byte {
	for _, p := range ports {
		key = append(append(key, p.Name...), 0, byte(p.Protocol))
		key = binary.BigEndian.AppendUint16(key, p.Number)
	}
	return key
}

// note has what the rules of a target ask of peers be looked at.
func (r *compilation) note(t *targetClass) {
	for _, p := range t.policies {
		for _, rule := range p.rules[t.direction] {
			for _, term := range rule.terms {
				r.used.set(term.id, true)
			}
			for _, b := range rule.blocks {
				r.blocks[r.blockIDs.of([]byte(b.String()))] = b
			}
			for _, n := range rule.named {
				if t.direction == egress {
					r.named[n] = true
				}
			}
		}
	}
}

// span is a port as a span.
func (p Port) span() Span { return Span{p.Protocol, p.Number, p.Number} }

// allow puts down what the rules of a target allow.
func (r *compilation) allow(t *targetClass) {
	r.open = map[Pair]*opening{}
	for _, p := range t.policies {
		for _, rule := range p.rules[t.direction] {
			r.allowRule(t, rule)
		}
	}
	every := r.open[Pair{t.Class, 0}]
	for pair, o := range r.open {
		if pair.Peer == 0 || every == nil || !every.all {
			r.rules.Allowed[pair] = r.profile(o)
		}
	}
}

// opening is what a pair may use.
type opening struct {
	all   bool
	spans []Span
}

// profile returns the profile of what is open.
func (r *compilation) profile(o *opening) Profile {
	if o.all {
		return AllPorts
	}
	spans := joined(o.spans)
	key := make([]byte, 0, 64)
	for _, s := range spans {
		key = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(append(key, byte(s.Protocol)), s.From), s.To)
	}
	p := Profile(r.profiles.of(key)) + AllPorts // numbers begin at 1
	r.rules.Ports[p] = spans
	return p
}

func (r *compilation) allowRule(t *targetClass, rule rule) {
	spans := rule.spans
	if t.direction == ingress {
		spans = slices.Clone(spans)
		for _, n := range rule.named {
			for _, p := range n.of(t.ports) {
				spans = append(spans, p.span())
			}
		}
	}
	every := Class(0)
	if rule.anyPod {
		every = AnyPod
	}
	if rule.anyPeer || rule.anyPod {
		r.add(Pair{t.Class, every}, rule.anyPort, spans)
		for _, n := range rule.named { // only pods have names of ports
			if t.direction == egress {
				for _, p := range r.byName[n] {
					r.addNamed(t, p, n)
				}
			}
		}
	}
	each := func(peers []*peerClass) {
		for _, p := range peers {
			r.add(Pair{t.Class, p.Class}, rule.anyPort, spans)
			for _, n := range rule.named {
				if t.direction == egress {
					r.addNamed(t, p, n)
				}
			}
		}
	}
	for _, term := range rule.terms {
		each(r.byTerm[term.id])
	}
	for _, b := range rule.blocks {
		each(r.byBlock[r.blockIDs.of([]byte(b.String()))])
	}
}

// addNamed allows a target the port of a peer that has this name there.
func (r *compilation) addNamed(t *targetClass, p *peerClass, n namedPort) {
	for _, port := range n.of(p.ports) {
		r.add(Pair{t.Class, p.Class}, false, []Span{port.span()})
	}
}

func (r *compilation) add(pair Pair, all bool, spans []Span) {
	if !all && len(spans) == 0 {
		return
	}
	ports := r.open[pair]
	if ports == nil {
		ports = &opening{}
		r.open[pair] = ports
	}
	ports.all = ports.all || all
	ports.spans = append(ports.spans, spans...)
}

// joined returns spans in order, those of a protocol that meet as one.
func joined(spans []Span) (all []Span) {
	slices.SortFunc(spans, func(a, b Span) int {
		return int(a.Protocol)<<16 + int(a.From) - int(b.Protocol)<<16 - int(b.From)
	})
	for _, s := range spans {
		if last := len(all) - 1; last >= 0 && all[last].Protocol == s.Protocol && int(s.From) <= int(all[last].To)+1 {
			all[last].To = max(all[last].To, s.To)
			continue
		}
		all = append(all, s)
	}
	return all
}

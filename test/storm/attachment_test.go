package storm

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// condition is what must hold of an attachment while no call for it runs.
type condition int

const (
	gone    condition = iota // nothing of it is left
	living                   // complete
	unclear                  // a call for it was killed or failed: anything may be left
)

// pod is a network namespace with interfaces of one or two attachments.
type pod struct {
	netns string
	atts  []*attachment
}

// attachment is the interface of a container in a network, which comes and goes.
type attachment struct {
	id
	net  *network
	pod  *pod
	now  condition
	when int  // on the storm's clock it became so
	busy int  // how many calls for it run
	mess bool // more than one call ran at once
	dead bool // provably: it was complete when its namespace went; while unclear

	// asked: the ports of the last ADD; result: that of a living attachment.
	asked  []port
	result json.RawMessage
	addrs  []netip.Addr
	ports  []port
}

func (a *attachment) String() string { return fmt.Sprintf("%s/%s/%s", a.net.name, a.cid, a.ifName) }

// op is one verb for a whole chain of plugins, as libcni runs it.
type op struct {
	verb  string
	net   *network
	att   *attachment // nil: of the whole network
	began int
	again bool // ADD of what lives

	steps []plugin // still to run
	prev  json.RawMessage
	more  object // keys of the configuration
	run   *process

	// collects: GC without errors must have removed these.
	collects []*attachment
	orphans  []id
}

func (o *op) String() string {
	if o.att == nil {
		return o.verb + " " + o.net.name
	}
	return fmt.Sprintf("%s %s", o.verb, o.att)
}

// env is that of the next plugin.
func (o *op) env() []string {
	env := []string{"CNI_COMMAND=" + o.verb}
	if o.att != nil {
		env = append(env, "CNI_CONTAINERID="+o.att.cid, "CNI_IFNAME="+o.att.ifName, "CNI_NETNS="+netnsPath(o.att.pod.netns))
	}
	return env
}

// stdin is that of the next plugin.
func (o *op) stdin() string {
	more := object{}
	for k, v := range o.more {
		more[k] = v
	}
	if o.prev != nil {
		more["prevResult"] = o.prev
	}
	if o.steps[0].ports && o.att != nil && (o.verb == "ADD" || o.verb == "CHECK") {
		more["runtimeConfig"] = object{"portMappings": o.att.asked}
	}
	return o.net.stdin(o.steps[0], more)
}

// set changes the condition of an attachment.
func (s *storm) set(a *attachment, c condition) {
	s.clock++
	a.now, a.when = c, s.clock
	if c != unclear {
		a.dead = false
	}
	if c != living {
		a.result, a.addrs, a.ports = nil, nil, nil
	}
}

// added holds the result of an ADD against those of all others.
func (s *storm) added(o *op) {
	var r result
	if err := json.Unmarshal(o.prev, &r); err != nil || len(r.IPs) == 0 {
		s.t.Errorf("%s: result %s: %v", o, o.prev, err)
		return
	}
	a := o.att
	if o.again {
		if string(o.prev) != string(a.result) {
			s.t.Errorf("%s, again: result %s, first %s", o, o.prev, a.result)
		}
		return
	}
	ports := r.PortMappings
	if ports == nil {
		ports = a.asked
	}
	for _, other := range s.atts {
		if other.now != living || other == a {
			continue
		}
		for _, addr := range r.addrs() {
			for _, taken := range other.addrs {
				if other.net == a.net && addr == taken {
					s.t.Errorf("%s was given %s, which %s has", o, addr, other)
				}
			}
		}
		if meet(ports, other.ports) {
			s.t.Errorf("%s was given ports %v, %s has %v", o, ports, other, other.ports)
		}
	}
	s.set(a, living)
	a.result, a.addrs, a.ports = o.prev, r.addrs(), ports
}

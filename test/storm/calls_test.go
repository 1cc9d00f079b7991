package storm

import (
	"maps"
	"slices"
	"strings"
)

// The codes that a storm may bring about.
const (
	codeExhausted = 100
	codeTaken     = 101
)

// begin starts the first plugin of an operation.
func (s *storm) begin(o *op) {
	s.clock++
	o.began, o.steps = s.clock, slices.Clone(o.net.plugins)
	if o.verb == "DEL" {
		slices.Reverse(o.steps)
	}
	if a := o.att; a != nil {
		a.busy++
		a.mess = a.mess || a.busy > 1
		if o.verb == "DEL" && a.now == living {
			s.set(a, unclear)
		}
	}
	s.running = append(s.running, o)
	s.step(o)
}

func (s *storm) step(o *op) {
	run := s.start(o.steps[0].binary, o.env(), o.stdin())
	o.run = run
	go func() { // o is the storm's until it has it back
		run.wait()
		s.ended <- o
	}()
}

// next waits for a plugin to end and goes on with its operation.
func (s *storm) next() {
	o := <-s.ended
	fail, err := o.run.failure()
	if err != nil {
		s.t.Errorf("%s: %v", o, err)
	}
	well := !o.run.killed && fail.Code == 0
	if well && o.verb == "ADD" {
		o.prev = slices.Clone(o.run.stdout.Bytes())
	} else if well && o.run.stdout.Len() > 0 {
		s.t.Errorf("%s: %s printed %q", o, o.run.plugin, &o.run.stdout)
	}
	if o.steps = o.steps[1:]; well && len(o.steps) > 0 {
		s.step(o)
		return
	}
	s.running = slices.DeleteFunc(s.running, func(r *op) bool { return r == o })
	s.calls++
	s.end(o, fail)
}

// end draws the conclusions.
func (s *storm) end(o *op, fail failure) {
	what, a := "", o.att
	switch {
	case o.run.killed:
		what = " killed"
	case fail.Code != 0:
		what = " failed"
	}
	if a == nil {
		s.counts[o.verb+what]++
		s.endOfNetwork(o, fail)
		return
	}
	if a.busy--; a.mess {
		s.counts[o.verb+" at the same time as others"+what]++
		if a.busy == 0 {
			a.mess = false
			s.set(a, unclear)
		}
		return
	}
	s.counts[o.verb+what]++
	switch {
	case o.verb == "CHECK" || o.again:
		if fail.Code != 0 {
			s.t.Errorf("%s of what lives: code %d: %s", o, fail.Code, fail.Msg)
		} else if o.again && !o.run.killed {
			s.added(o)
		}
	case o.run.killed:
		s.set(a, unclear)
		a.dead = false // an attachment that is half forgotten is not provably dead
	case fail.Code != 0:
		s.failed(o, fail)
	case o.verb == "ADD":
		s.added(o)
	default:
		s.set(a, gone)
	}
}

// failed holds the reason for which an operation failed against what is.
func (s *storm) failed(o *op, fail failure) {
	a := o.att
	switch {
	case o.verb == "ADD" && fail.Code == codeExhausted && a.net.room > 0:
		if n := s.holders(a.net, o.began); n < a.net.room {
			s.t.Errorf("%s: %s; but there are %d attachments for %d addresses", o, fail.Msg, n, a.net.room)
		}
		s.counts["pool full"]++
	case o.verb == "ADD" && fail.Code == codeTaken && strings.Contains(fail.Msg, "host port"):
		if !s.held(fail.Msg, o) {
			s.t.Errorf("%s: %s; but no living attachment has it", o, fail.Msg)
		}
		s.counts["port taken"]++
	default:
		s.t.Errorf("%s: code %d: %s", o, fail.Code, fail.Msg)
	}
	if a.now == gone && len(a.net.plugins) == 1 {
		s.set(a, gone) // still: ADD fails cleanly
	} else {
		s.set(a, unclear)
	}
}

// holders counts the attachments of a network that may have had an address at
// some time since began. The dead do not count: their addresses are free.
func (s *storm) holders(n *network, began int) int {
	count := 0
	for _, a := range s.atts {
		if a.net == n && (a.busy > 0 || a.when > began || a.now != gone && !a.dead) {
			count++
		}
	}
	return count
}

// held says whether the attachment that the message of a taken port names may
// have had it at some time since the operation began.
func (s *storm) held(msg string, o *op) bool {
	names := func(owner string) bool { return strings.Contains(msg, ":"+owner+`"`) }
	for _, a := range s.atts {
		if names(a.String()) {
			return a.busy > 0 || a.when > o.began || a.now != gone && !a.dead
		}
	}
	for i, when := range o.net.orphans {
		if names(o.net.name + "/" + i.cid + "/" + i.ifName) {
			return when > o.began
		}
	}
	return false
}

// collect is a GC of one of the two kinds: with the list of those that are to
// stay, or without. Either collects the orphans; the first those that are
// unclear, too.
func (s *storm) collect(n *network) *op {
	o := &op{verb: "GC", net: n, orphans: slices.Collect(maps.Keys(n.orphans))}
	if s.chance(3) {
		return o
	}
	n.collecting++
	valid := []object{}
	for _, a := range s.atts {
		switch {
		case a.net != n || a.now == gone && a.busy == 0:
		case a.now == unclear && a.busy == 0:
			a.busy++
			o.collects = append(o.collects, a)
		default:
			valid = append(valid, object{"containerID": a.cid, "ifname": a.ifName})
		}
	}
	if len(valid) == 0 { // would be the end of the network
		valid = append(valid, object{"containerID": "none", "ifname": "eth0"})
	}
	o.more = object{"cni.dev/valid-attachments": valid}
	return o
}

// endOfNetwork ends a verb that is for a whole network.
func (s *storm) endOfNetwork(o *op, fail failure) {
	full := o.verb == "STATUS" && fail.Code == 50 && o.net.room > 0
	if fail.Code != 0 && (!full || s.holders(o.net, o.began) < o.net.room) {
		s.t.Errorf("%s: code %d: %s", o, fail.Code, fail.Msg)
	}
	if o.more != nil {
		o.net.collecting--
	}
	well := !o.run.killed && fail.Code == 0
	for _, a := range o.collects {
		a.busy--
		switch {
		case a.busy > 0: // another call came while GC ran
		case well && !a.mess:
			s.set(a, gone)
		default:
			s.set(a, unclear)
		}
		a.mess = a.mess && a.busy > 0
	}
	if well {
		for _, i := range o.orphans {
			delete(o.net.orphans, i)
		}
	}
}

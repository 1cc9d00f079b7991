package storm

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// scale is how much of a storm there is.
type scale struct {
	containers int // with two attachments each
	atOnce     int
	calls      int           // at least
	lasts      time.Duration // at least
	look       int           // at the world, after so many calls
}

// storm is the one that calls plugins. Everything of it belongs to the test's
// goroutine; others only wait for processes.
type storm struct {
	host
	scale
	rng     *rand.Rand
	nets    []*network
	pods    []*pod
	atts    []*attachment
	running []*op
	ended   chan *op
	clock   int
	names   int // of containers so far
	calls   int // that ended
	counts  map[string]int
}

func TestStorm(t *testing.T) {
	t.Parallel()
	size := scale{containers: 24, atOnce: 16, calls: 350, look: 25}
	if long := os.Getenv("LIBNET_STORM"); long != "" {
		lasts, err := time.ParseDuration(long)
		if err != nil {
			t.Fatalf("LIBNET_STORM: %v", err)
		}
		size = scale{containers: 250, atOnce: 32, calls: 1, lasts: lasts, look: 200}
	}
	s := newStorm(t, size)
	before := s.snapshot()
	s.blow()
	s.inspect(s.pods)
	s.calm()
	if left := s.snapshot(); !slices.Equal(before, left) {
		t.Errorf("the host is not as before:\nleft behind: %q\nmissing: %q", without(left, before), without(before, left))
	}
	for _, what := range slices.Sorted(maps.Keys(s.counts)) {
		t.Logf("%6d %s", s.counts[what], what)
	}
}

func newStorm(t *testing.T, size scale) *storm {
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("LIBNET_STORM_SEED"), strconv.FormatInt(time.Now().UnixNano(), 10)), 10, 64)
	if err != nil {
		t.Fatalf("LIBNET_STORM_SEED: %v", err)
	}
	t.Logf("LIBNET_STORM_SEED=%d", seed)
	s := &storm{
		host: newHost(t), scale: size, rng: rand.New(rand.NewPCG(seed, 0)), nets: networks(size.containers),
		ended: make(chan *op), counts: map[string]int{},
	}
	for _, n := range s.nets {
		n.orphans = map[id]int{}
		for _, p := range n.plugins {
			if p.conf["encryption"] != nil {
				s.withKey(n.stdin(p, nil))
			}
		}
	}
	bare := len(s.nets) - 1 // is the network of eth1
	for i := range size.containers {
		p := &pod{netns: fmt.Sprintf("pod%d", i)}
		s.newNetns(p.netns)
		cid := s.name()
		p.atts = []*attachment{
			{id: id{cid, "eth0"}, net: s.nets[i%bare], pod: p},
			{id: id{cid, "eth1"}, net: s.nets[bare], pod: p},
		}
		s.pods, s.atts = append(s.pods, p), append(s.atts, p.atts...)
	}
	return s
}

// name returns a new one for a container.
func (s *storm) name() string {
	s.names++
	return fmt.Sprintf("c%d", s.names)
}

// chance is true once in n times.
func (s *storm) chance(n int) bool { return s.rng.IntN(n) == 0 }

// blow calls plugins at random until it is enough, and waits for the last.
func (s *storm) blow() {
	start := time.Now()
	for s.calls < s.scale.calls || time.Since(start) < s.lasts {
		for len(s.running) < s.atOnce {
			s.begin(s.choose())
		}
		s.next()
		if s.chance(12) {
			victim := s.running[s.rng.IntN(len(s.running))]
			_ = victim.run.cmd.Process.Kill() // it may have ended just now
		}
		if s.calls%s.look == 0 {
			s.inspect(s.sample())
		}
		if s.t.Failed() {
			break
		}
	}
	for len(s.running) > 0 {
		s.next()
	}
	s.t.Logf("%d calls in %s", s.calls, time.Since(start).Round(time.Millisecond))
}

// sample is some of the pods.
func (s *storm) sample() []*pod {
	var some []*pod
	for range 20 {
		some = append(some, s.pods[s.rng.IntN(len(s.pods))])
	}
	return some
}

// choose returns what to do next. Now and then a container is lost on the way.
func (s *storm) choose() *op {
	for {
		n := s.nets[s.rng.IntN(len(s.nets))]
		switch s.rng.IntN(60) {
		case 0:
			return s.collect(n)
		case 1:
			return &op{verb: "STATUS", net: n}
		case 2:
			s.lose(s.pods[s.rng.IntN(len(s.pods))])
		}
		a := s.atts[s.rng.IntN(len(s.atts))]
		if a.busy > 0 && !s.chance(20) {
			continue
		}
		if o := s.act(a); o.verb != "ADD" || o.again || a.net.collecting == 0 {
			return o
		}
	}
}

// act chooses a verb for an attachment.
func (s *storm) act(a *attachment) *op {
	o := &op{verb: "ADD", net: a.net, att: a}
	roll := s.rng.IntN(100)
	switch {
	case a.busy > 0 && roll < 50:
		o.verb = "DEL"
	case a.busy > 0:
	case a.now == gone && roll < 6, a.now == unclear && roll < 50:
		o.verb = "DEL"
	case a.now == living && roll < 45:
		o.verb, o.prev = "CHECK", a.result
	case a.now == living && roll < 88:
		o.verb = "DEL"
		if s.chance(2) {
			o.prev = a.result
		}
	case a.now == living:
		o.again = true
	}
	if o.verb == "ADD" && !o.again && a.busy == 0 && a.net.ports {
		a.asked = somePorts(s.rng)
	}
	return o
}

// lose ends a pod, whose namespace's path the next one gets. Half of its
// containers come again under their name, the others are forgotten: only GC can
// know of them.
func (s *storm) lose(p *pod) {
	if slices.ContainsFunc(p.atts, func(a *attachment) bool { return a.busy > 0 }) {
		return
	}
	s.counts["pods lost"]++
	s.loseNetns(p.netns)
	s.newNetns(p.netns)
	forget := s.chance(2) && !slices.ContainsFunc(p.atts, func(a *attachment) bool { return a.now == unclear })
	cid := s.name()
	for _, a := range p.atts {
		lived := a.now == living
		switch {
		case forget:
			s.set(a, gone)
			if lived {
				a.net.orphans[a.id] = s.clock
			}
			a.cid = cid
		case lived:
			s.set(a, unclear)
			a.dead = true
		}
	}
}

package engine

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/guard"
	"github.com/libnet-cni/libnet/internal/state"
)

// stage lets two actors work in one world, one at a time: the second one begins
// between two steps of the first and goes on until it ends or waits for a lock
// that the first one has; then the first one goes on to its end, and then what is
// left of the second. So each order in which the kernel and the locks let two
// processes meet at a step is tried, and always the same.
type stage struct {
	at, steps int // the second one begins before step at of the first, from 1
	second    func()
	turn      map[int]chan struct{}
	now       int // which of them works
	state     [2]progress
	idle      int // how often the second one has been asked to go on in vain
	deadlock  bool
}

type progress int

const (
	waiting progress = iota // has not begun
	working
	blocked
	ended
)

// play runs first, and second before step at of it. It returns how many steps the
// first one had.
func (w *world) play(at int, first, second func()) (steps int, deadlock bool) {
	s := &stage{at: at, second: second, turn: map[int]chan struct{}{0: make(chan struct{}), 1: make(chan struct{})}}
	w.stage = s
	defer func() { w.stage = nil }()
	s.state[0] = working
	first()
	s.state[0] = ended
	switch s.state[1] {
	case waiting:
		s.now = 1
		second()
	case blocked:
		s.resume(1)
	}
	return s.steps, s.deadlock
}

// between is called before each step, by the actor whose turn it is.
func (s *stage) between() {
	s.idle = 0
	if s.now != 0 {
		return
	}
	s.steps++
	if s.steps != s.at || s.state[1] != waiting {
		return
	}
	s.now, s.state[1] = 1, working
	go func() {
		s.second()
		s.state[1], s.now = ended, 0
		s.turn[0] <- struct{}{}
	}()
	<-s.turn[0]
}

// resume gives the turn to an actor that waited for a lock, until it ends or waits
// again.
func (s *stage) resume(actor int) {
	s.now, s.state[actor] = actor, working
	s.turn[actor] <- struct{}{}
	<-s.turn[0]
	s.now = 0
}

// wait gives the turn away: the actor needs a lock that the other one has.
func (s *stage) wait() {
	if s.now == 0 { // the second one has it, and goes on if what it waited for is free by now
		if s.idle++; s.state[1] != blocked || s.idle > 2 {
			s.deadlock = true
			panic("both actors wait for each other")
		}
		s.resume(1)
		return
	}
	if s.state[0] == ended {
		s.deadlock = true
		panic("an actor left a lock behind")
	}
	s.state[1], s.now = blocked, 0
	s.turn[0] <- struct{}{}
	<-s.turn[1]
}

// locks are held by actors 0 and 1: how often shared, by name, and -1 for alone.
type locks map[string]*[2]int

func (l locks) of(name string) *[2]int {
	if l[name] == nil {
		l[name] = &[2]int{}
	}
	return l[name]
}

func me(s *stage) int {
	if s == nil {
		return 0
	}
	return s.now
}

func (l locks) shared(s *stage, name string) (free func()) {
	self := me(s)
	for l.of(name)[1-self] < 0 {
		s.wait()
	}
	if l.of(name)[self] < 0 {
		panic("an actor waits for its own lock " + name)
	}
	l.of(name)[self]++
	return func() { l.of(name)[self]-- }
}

func (l locks) exclusive(s *stage, name string) (free func()) {
	self := me(s)
	for l.of(name)[1-self] != 0 {
		s.wait()
	}
	if l.of(name)[self] != 0 {
		panic("an actor waits for its own lock " + name)
	}
	l.of(name)[self] = -1
	return func() { l.of(name)[self] = 0 }
}

func (l locks) tryExclusive(s *stage, name string) (free func(), ok bool) {
	if l.of(name)[0] != 0 || l.of(name)[1] != 0 {
		return nil, false
	}
	return l.exclusive(s, name), true
}

// fakeGuards is the index of bridges.
type fakeGuards struct{ *world }

func (w fakeGuards) LockBridge(_ context.Context, bridge string, how int, create state.Creation) (guard.Bridge, error) {
	if _, has := w.index[bridge]; !has && create == state.OnlyExisting {
		return nil, state.ErrNotFound
	}
	take := w.locks.shared
	if how == unix.LOCK_EX {
		take = w.locks.exclusive
	}
	free := take(w.stage, "bridge "+bridge)
	if w.index[bridge] == nil {
		w.index[bridge] = map[string]state.Guard{}
	}
	b := &fakeBridge{world: w.world, bridge: bridge, free: free}
	for _, g := range w.index[bridge] {
		b.all = append(b.all, g)
	}
	return b, nil
}

func (w fakeGuards) Bridges() ([]string, error) {
	var all []string
	for bridge := range w.index {
		all = append(all, bridge)
	}
	slices.Sort(all)
	return all, nil
}

type fakeBridge struct {
	*world
	bridge string
	all    []state.Guard
	free   func()
}

func guardFile(g state.Guard) string { return fmt.Sprintf("%s:%s", g.Network, g.ID) }

func (b *fakeBridge) Len() int { return len(b.all) }

func (b *fakeBridge) Has(g state.Guard) bool {
	return slices.ContainsFunc(b.all, func(o state.Guard) bool { return guardFile(o) == guardFile(g) })
}

func (b *fakeBridge) Guards() ([]state.Guard, error) { return b.all, nil }

func (b *fakeBridge) Put(g state.Guard) error {
	return b.step(func() { b.index[b.bridge][guardFile(g)] = g })
}

func (b *fakeBridge) Delete(g state.Guard) error {
	return b.step(func() { delete(b.index[b.bridge], guardFile(g)) })
}

func (b *fakeBridge) Remove() error {
	if len(b.index[b.bridge]) == 0 {
		delete(b.index, b.bridge)
	}
	return nil
}

func (b *fakeBridge) Unlock() { b.free() }

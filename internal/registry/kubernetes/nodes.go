package kubernetes

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// nodes are the Nodes of the cluster, as far as they concern us. A reflector keeps them.
type nodes struct {
	changed chan struct{} // receives when a Node that is kept changes, or the contact is lost or there again

	mu      sync.Mutex
	all     map[string]*node
	synced  bool
	version int   // counts what changed of all
	trouble error // why the API is not heard; nil: it is
}

var _ cache.TransformingStore = (*nodes)(nil)

func newNodes() *nodes { return &nodes{changed: make(chan struct{}, 1), all: map[string]*node{}} }

func (s *nodes) give() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Transformer is what comes in goes through first.
func (s *nodes) Transformer() cache.TransformFunc {
	return func(in any) (any, error) {
		if n := nodeOf(in); n != nil {
			return n, nil
		}
		return in, nil
	}
}

// put takes a Node over, and says whether it is news.
func (s *nodes) put(in any) error {
	from := nodeOf(in) // the reflector transforms only what it keeps itself
	if from == nil {
		return fmt.Errorf("%T instead of a Node", in)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.all[from.Name]
	now := newNode(from, before)
	if before != nil && before.same(now) {
		return nil // a heartbeat
	}
	s.all[from.Name] = now
	s.version++
	s.give()
	return nil
}

// Add takes a Node over.
func (s *nodes) Add(in any) error { return s.put(in) }

// Update takes a Node over that has changed.
func (s *nodes) Update(in any) error { return s.put(in) }

// Delete forgets a Node.
func (s *nodes) Delete(in any) error {
	from := nodeOf(in) // the reflector transforms only what it keeps itself
	if from == nil {
		return fmt.Errorf("%T instead of a Node", in)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, from.Name)
	s.version++
	s.give()
	return nil
}

// Replace has these Nodes, and no others.
func (s *nodes) Replace(these []any, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]*node, len(these))
	news := !s.synced || len(these) != len(s.all)
	for _, in := range these {
		from := nodeOf(in)
		if from == nil {
			return fmt.Errorf("%T instead of a Node", in)
		}
		before := s.all[from.Name]
		now := newNode(from, before)
		news = news || before == nil || !before.same(now)
		all[from.Name] = now
	}
	s.all, s.synced = all, true
	if news {
		s.version++
		s.give()
	}
	return nil
}

// Resync has nothing to do.
func (s *nodes) Resync() error { return nil }

// note takes over whether a request was answered.
func (s *nodes) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := (err == nil) != (s.trouble == nil)
	if s.trouble = err; news {
		s.give()
	}
}

// state says whether all Nodes are known, and why the API is not heard.
func (s *nodes) state() (synced bool, version int, trouble error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.synced, s.version, s.trouble
}

// await returns once all Nodes are known and the API is heard; an error says why that is not so.
func (s *nodes) await(ctx context.Context, most time.Duration) error {
	late := time.NewTimer(most)
	defer late.Stop()
	for {
		synced, _, trouble := s.state()
		if trouble != nil || synced {
			return trouble
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changed:
		case <-late.C:
			return fmt.Errorf("no Nodes were received within %s", most)
		}
	}
}

func (s *nodes) view(self string) overlay.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return view(s.all, self)
}

// own is what is kept of a Node; nil: there is none.
func (s *nodes) own(name string) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[name]
}

package names

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/libnet-cni/libnet/internal/capture"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/resolver"
	"github.com/libnet-cni/libnet/internal/responder"
	"github.com/libnet-cni/libnet/internal/state"
)

// Config is what a Service works with.
type Config struct {
	// StateDir is where the records of networks are; empty: the default.
	StateDir string
	// Limit is how many queries per second of one container are looked at, over
	// UDP; more pass untouched. 0: no limit.
	Limit int
	// Queries has a line in the log for each query.
	Queries bool
	Log     *slog.Logger
}

// Service answers queries while Run runs.
type Service struct {
	conf   Config
	log    *slog.Logger
	table  resolver.Table
	follow *state.Follower
	counts *counts
	kernel *responder.Responder // only counts

	mu       sync.Mutex
	places   map[place]home
	tried    bool             // to begin a capture
	moves    uint64           // changes of places
	captured uint64           // moves that the capture knows of
	capture  *capture.Capture // nil: it could not be begun
	fault    error            // why queries are not answered; nil: they are
	said     string           // of fault, last
	others   others
	services services
	wrong    error // why the records cannot be followed; nil: they are
}

// place is an attachment, and home where it is and may ask from.
type (
	place struct{ network, container, ifName string }
	home  struct {
		netns    string
		id       netns.ID
		prefixes []netip.Prefix // of its addresses
		named    bool           // its network has names
	}
)

// errNotBegun is the state before the first query is captured.
var errNotBegun = errors.New("queries are not captured yet")

// again is how soon what failed is tried again.
const again = 2 * time.Second

// New returns a Service that follows the records from now on.
func New(c Config) *Service {
	s := &Service{conf: c, log: c.Log, counts: newCounts(), places: map[place]home{}, kernel: responder.New(state.New(c.StateDir).Path(), nil), others: newOthers(), services: services{dir: state.New(c.StateDir)}, fault: errNotBegun}
	s.fault = cmp.Or(s.begin(), s.fault) // Run tries again
	return s
}

// begin follows the records, unless that is done already.
func (s *Service) begin() (err error) {
	if s.follow == nil {
		s.follow, err = state.New(s.conf.StateDir).Follow()
	}
	return err
}

// Run answers queries until ctx ends. A fault is logged, told by Err, and tried again;
// meanwhile queries pass.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for err := s.begin(); err != nil; err = s.begin() { // other programs may have all of inotify
		s.tell(err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	defer func() { _ = s.follow.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = s.follow.Close() })
	defer stop()
	events := make(chan struct{}, 1)
	go s.events(ctx, events)
	defer s.setCapture(nil)
	for {
		s.look()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-events:
		case <-tick.C:
		}
	}
}

// events hands on that something changed.
func (s *Service) events(ctx context.Context, to chan<- struct{}) {
	for ctx.Err() == nil {
		if err := s.follow.Wait(); err != nil {
			return // closed
		}
		s.update()
		select {
		case to <- struct{}{}:
		default:
		}
	}
}

// look has the queries captured of those that may ask.
func (s *Service) look() {
	s.update()
	s.tell(s.ensure())
}

// tell keeps why queries are not answered, nil for an answer to each, and logs what is new.
func (s *Service) tell(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault = err; err == nil {
		s.fault = s.wrong
	}
	text := ""
	if s.fault != nil {
		text = s.fault.Error()
	}
	switch {
	case text == s.said:
	case text != "":
		s.log.Error("queries for names of containers are not answered", "error", text)
	default:
		s.log.Info("queries for names of containers are answered")
	}
	s.said = text
}

// ensure has a capture, of the queries of those that may ask. Without a network that has
// names it is no fault if there can be none, and is not tried again.
func (s *Service) ensure() error {
	s.mu.Lock()
	now, named, tried := s.capture, s.named() > 0, s.tried
	s.tried = true
	s.mu.Unlock()
	if now != nil {
		select {
		case <-now.Done(): // by itself
			s.log.Error("capture of DNS queries has ended and is begun anew", "error", now.Err())
			s.setCapture(nil)
			now, tried = nil, false
		default:
		}
	}
	if now == nil {
		if tried && !named {
			return nil
		}
		made, err := capture.Start(capture.Config{Respond: s.respond, Look: s.update, Looker: s.looker, Inside: s.inside, Group: link.GroupNamed, Early: s.early, Limit: s.conf.Limit})
		if err != nil {
			if !named {
				s.log.Warn("DNS queries of containers could not be captured", "error", err)
				return nil
			}
			return err
		}
		s.setCapture(made)
		now = made
		s.log.Info("DNS queries of containers are captured")
	}
	return cmp.Or(s.set(now), now.Err())
}

// set has those queries captured that are for us.
func (s *Service) set(c *capture.Capture) error {
	var as uint64
	err := c.Set(func() []netip.Prefix {
		s.mu.Lock()
		defer s.mu.Unlock()
		as = s.moves
		return s.askers()
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.captured = max(s.captured, as)
	}
	return err
}

// early has the addresses captured of those that came a moment ago.
func (s *Service) early() {
	s.update()
	s.mu.Lock()
	now, done := s.capture, s.captured == s.moves
	s.mu.Unlock()
	if now != nil && !done {
		_ = s.set(now) // look says so
	}
}

// named is how many attachments have names.
func (s *Service) named() (n int) {
	for _, h := range s.places {
		if h.named {
			n++
		}
	}
	return n
}

// setCapture closes the capture that there was.
func (s *Service) setCapture(c *capture.Capture) {
	s.mu.Lock()
	before := s.capture
	s.capture, s.captured = c, 0
	s.mu.Unlock()
	if before != nil {
		if err := before.Close(); err != nil {
			s.log.Warn("rules for DNS queries", "error", err)
		}
	}
}

// askers returns from where queries are captured: the subnets of networks with names,
// so that a container is seen from its first packet on; and of a container that is on
// such a network, its addresses on all others.
func (s *Service) askers() []netip.Prefix {
	named := map[string]bool{}
	for p, h := range s.places {
		if h.named {
			named[p.container] = true
		}
	}
	seen := map[netip.Prefix]bool{}
	var all []netip.Prefix
	for p, h := range s.places {
		for _, prefix := range h.prefixes {
			switch {
			case h.named:
				prefix = prefix.Masked()
			case named[p.container]:
				prefix = netip.PrefixFrom(prefix.Addr(), prefix.Addr().BitLen())
			default:
				continue
			}
			if !seen[prefix] {
				seen[prefix] = true
				all = append(all, prefix)
			}
		}
	}
	return all
}

// update brings the table to what the records say now.
func (s *Service) update() {
	err := s.follow.Changes(func(c state.Change) {
		at := place{c.Network, c.ContainerID, c.IfName}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.moves++
		s.others.note(at, c.Record)
		s.services.again = true
		if c.Record == nil {
			delete(s.places, at)
			s.table.Delete(resolver.Endpoint{Network: c.Network, Container: c.ContainerID, IfName: c.IfName})
			return
		}
		s.places[at] = homeOf(*c.Record)
		if c.Record.Phase == state.PhaseReady {
			s.table.Put(endpointOf(*c.Record))
		} else {
			s.table.Delete(resolver.Endpoint{Network: c.Network, Container: c.ContainerID, IfName: c.IfName})
		}
	}, s.updateServices)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, state.ErrCorrupt): // set aside: it is told once
		s.log.Error("record of an attachment cannot be read: its names are not answered", "error", err)
	case errors.Is(err, os.ErrClosed):
	default:
		s.wrong = err
	}
}

// looker returns update for a thread of the capture, which asks the kernel for nothing while
// no record changes. Where io_uring is not allowed it asks each time.
func (s *Service) looker() (look, done func()) {
	b, err := newBell(s.follow.Descriptor())
	if err != nil {
		s.log.Debug("each query has the records looked at", "reason", err)
		return s.update, func() {}
	}
	look = func() {
		if b.rang() || s.follow.Again() {
			s.update()
		}
	}
	return look, func() { _ = b.close() }
}

func homeOf(r state.Endpoint) home {
	h := home{netns: r.Netns, id: netns.ID(r.NetnsID), named: r.Names != nil}
	for _, a := range r.Addresses {
		if a.Prefix.IsValid() {
			h.prefixes = append(h.prefixes, a.Prefix)
		}
	}
	return h
}

func endpointOf(r state.Endpoint) resolver.Endpoint {
	e := resolver.Endpoint{Network: r.Network, Container: r.ContainerID, IfName: r.IfName, Bridge: r.Bridge}
	if r.Names != nil {
		e.Names, e.Domain = r.Names.Own, r.Names.Domain
	}
	e.Addresses, e.Gateways = r.NamedAddrs()
	return e
}

// respond answers a query. The records were looked at since it came: an ADD that had
// returned is known, and so is a DEL.
func (s *Service) respond(q capture.Query) []byte {
	by := resolver.UDP
	if q.TCP {
		by = resolver.TCP
	}
	r, asker := s.table.Answer(resolver.Query{Bridge: q.Bridge, From: q.From, Message: q.Message, By: by}, q.Room)
	s.counts.add(by, r.Outcome)
	if s.conf.Queries {
		name, qtype := resolver.QuestionOf(q.Message)
		s.log.Info("query", "container", asker.Container, "network", asker.Network, "from", q.From, "server", q.To,
			"name", name, "type", qtype, "outcome", r.Outcome.String())
	}
	return r.Message
}

// errNoHome says that a container cannot be entered.
var errNoHome = errors.New("no container that is known has the address")

// inside calls fn in the network namespace of the container that has an address.
func (s *Service) inside(from netip.Addr, fn func() error) error {
	a, known := s.table.Asker("", from)
	s.mu.Lock()
	h := s.places[place{a.Network, a.Container, a.IfName}]
	s.mu.Unlock()
	if !known || h.netns == "" {
		return fmt.Errorf("%s: %w", from, errNoHome)
	}
	n, err := netns.Open(h.netns)
	if err != nil {
		return err
	}
	defer func() { _ = n.Close() }()
	id, err := n.ID()
	if err != nil {
		return err
	}
	if id != h.id { // the path is another container's by now
		return fmt.Errorf("%s: %w", from, errNoHome)
	}
	return n.Do(fn)
}

// Err says why names are not answered; nil: they are, or no network has any.
func (s *Service) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

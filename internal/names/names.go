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
	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/resolver"
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

	mu      sync.Mutex
	places  map[place]home
	capture *capture.Capture // nil: no network has names
	fault   error            // why queries are not answered; nil: they are
	said    string           // of fault, last
	wrong   error            // why the records cannot be followed; nil: they are
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

// again is how soon what failed is tried again.
const again = 2 * time.Second

// New returns a Service that follows the records from now on.
func New(c Config) (*Service, error) {
	f, err := state.New(c.StateDir).Follow()
	if err != nil {
		return nil, err
	}
	return &Service{conf: c, log: c.Log, follow: f, counts: newCounts(), places: map[place]home{}}, nil
}

// Run answers queries until ctx ends. A fault is logged, told by Err, and tried again;
// meanwhile queries pass.
func (s *Service) Run(ctx context.Context) error {
	defer func() { _ = s.follow.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = s.follow.Close() })
	defer stop()
	events := make(chan struct{}, 1)
	go s.events(ctx, events)
	defer s.setCapture(nil)
	tick := time.NewTicker(again)
	defer tick.Stop()
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
	s.mu.Lock()
	want, now := s.askers(), s.capture
	s.mu.Unlock()
	err := s.ensure(want, now)
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

// ensure starts a capture if there is need and none, and sets its prefixes.
func (s *Service) ensure(want []netip.Prefix, now *capture.Capture) error {
	if now != nil {
		select {
		case <-now.Done(): // by itself
			s.log.Error("capture of DNS queries has ended and is begun anew", "error", now.Err())
			s.setCapture(nil)
			now = nil
		default:
		}
	}
	if now == nil {
		if len(want) == 0 {
			return nil
		}
		made, err := capture.Start(capture.Config{Respond: s.respond, Inside: s.inside, Limit: s.conf.Limit})
		if err != nil {
			return err
		}
		s.setCapture(made)
		now = made
		defer func() { s.log.Info("DNS queries of containers are captured", "from", want) }()
	}
	return cmp.Or(now.Set(want), now.Err())
}

// setCapture closes the capture that there was.
func (s *Service) setCapture(c *capture.Capture) {
	s.mu.Lock()
	before := s.capture
	s.capture = c
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
		if c.Record == nil {
			delete(s.places, at)
			s.table.Delete(c.Network, c.ContainerID, c.IfName)
			return
		}
		s.places[at] = homeOf(*c.Record)
		if c.Record.Phase == state.PhaseReady {
			s.table.Put(endpointOf(*c.Record))
		} else {
			s.table.Delete(c.Network, c.ContainerID, c.IfName)
		}
	})
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
	for _, a := range r.Addresses {
		if a.Prefix.IsValid() {
			e.Addresses = append(e.Addresses, a.Prefix.Addr())
		}
		if a.Gateway.IsValid() {
			e.Gateways = append(e.Gateways, a.Gateway)
		}
	}
	return e
}

// respond answers a query. It looks at the records first: an ADD that has returned
// is known, and so is a DEL.
func (s *Service) respond(q capture.Query) []byte {
	s.update()
	by := resolver.UDP
	if q.TCP {
		by = resolver.TCP
	}
	var r resolver.Reply
	asker, known := s.table.Asker(q.Bridge, q.From)
	if known {
		r = s.table.Respond(asker, q.Message, by)
	} else {
		r.Outcome = resolver.Foreign
	}
	s.counts.add(by, r.Outcome)
	if s.conf.Queries {
		s.log.Info("query", "container", asker.Container, "network", asker.Network, "from", q.From, "server", q.To,
			"name", r.Name(), "type", r.Type(), "outcome", string(r.Outcome))
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

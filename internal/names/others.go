package names

import (
	"slices"

	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/resolver"
	"github.com/libnet-cni/libnet/internal/state"
)

// others is what a Service exchanges with those of other hosts.
type others struct {
	shared  map[string]bool          // networks that span hosts
	own     map[place]overlay.Named  // of this host, on whatever network
	news    map[place]bool           // of own, what changed since Own
	changed chan struct{}            // with room for one
	of      map[overlay.NamedID]bool // of other hosts, in the table
	well    map[place][]string       // of own: overlay.Named.Well
}

func newOthers() others {
	return others{own: map[place]overlay.Named{}, news: map[place]bool{}, changed: make(chan struct{}, 1), of: map[overlay.NamedID]bool{}, well: map[place][]string{}}
}

// note takes over what a record says of this host's attachment; nil: it is gone.
func (o *others) note(at place, r *state.Endpoint) {
	_, was := o.own[at]
	delete(o.own, at)
	if r != nil && r.Phase == state.PhaseReady && r.Names != nil {
		one := overlay.Named{
			NamedID: overlay.NamedID{Network: at.network, Container: at.container, IfName: at.ifName},
			Names:   r.Names.Own, Domain: r.Names.Domain,
		}
		for _, a := range r.Addresses {
			if a.Prefix.IsValid() {
				one.Addresses = append(one.Addresses, a.Prefix.Addr())
			}
		}
		one.Well = o.well[at]
		o.own[at] = one
	} else if !was {
		return
	}
	if o.shared[at.network] {
		o.tell(at)
	}
}

// Well takes over by which services' checks an attachment of this host is well.
func (s *Service) Well(network, container, ifName string, services []string) {
	at := place{network: network, container: container, ifName: ifName}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.others
	if delete(o.well, at); len(services) > 0 {
		o.well[at] = services
	}
	if one, has := o.own[at]; has && !slices.Equal(one.Well, services) {
		one.Well = services
		if o.own[at] = one; o.shared[network] {
			o.tell(at)
		}
	}
}

func (o *others) tell(at place) {
	o.news[at] = true
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// Share says which networks span several hosts: the names of their containers are told
// to the other hosts. A network of that name which another kind of plugin has on each
// host apart is none.
func (s *Service) Share(networks []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.others.shared
	s.others.shared = map[string]bool{}
	for _, n := range networks {
		s.others.shared[n] = true
	}
	for at := range s.others.own {
		if before[at.network] != s.others.shared[at.network] {
			s.others.tell(at)
		}
	}
}

// Own returns the attachments of this host that others may find: those that changed since
// the last call, or all of them. One that is gone has no names.
func (s *Service) Own(all bool) (these []overlay.Named) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.others
	if all {
		clear(o.news)
		for at := range o.own {
			if o.shared[at.network] {
				o.news[at] = true
			}
		}
	}
	for at := range o.news {
		one := o.own[at]
		one.NamedID = overlay.NamedID{Network: at.network, Container: at.container, IfName: at.ifName}
		if !o.shared[at.network] {
			one.Names = nil
		}
		these = append(these, one)
	}
	clear(o.news)
	return these
}

// Changed receives when Own may have more.
func (s *Service) Changed() <-chan struct{} { return s.others.changed }

// Others takes over what other hosts have: all of it, or what changed of it.
func (s *Service) Others(these []overlay.Named, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := map[overlay.NamedID]bool{}
	if all {
		for id := range s.others.of {
			gone[id] = true
		}
	}
	for _, one := range these {
		gone[one.NamedID] = len(one.Names) == 0
		if len(one.Names) == 0 {
			continue
		}
		s.others.of[one.NamedID] = true
		s.table.Put(resolver.Endpoint{
			Node: one.Node, Network: one.Network, Container: one.Container, IfName: one.IfName,
			Domain: one.Domain, Names: one.Names, Addresses: one.Addresses,
		})
	}
	for id, is := range gone {
		if is {
			delete(s.others.of, id)
			s.table.Delete(resolver.Endpoint{Node: id.Node, Network: id.Network, Container: id.Container, IfName: id.IfName})
		}
	}
}

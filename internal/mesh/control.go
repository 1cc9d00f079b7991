package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/internal/service"
)

// patience is how long this host may take to follow what lnctl had written.
const patience = 5 * time.Second

// Do does what lnctl asks for. What changes a definition returns once this host has followed.
func (m *Mesh) Do(ctx context.Context, do string, r service.Request) (s service.Shared, err error) {
	m.mu.Lock()
	n, ours := m.networks[r.Network]
	m.mu.Unlock()
	if !ours {
		return s, fmt.Errorf("network %q is none that the ln-agent of this host keeps", r.Network)
	}
	switch do {
	case service.DoCreate:
		s, err = m.create(ctx, n, r)
	case service.DoRead:
		return m.conf.Registry.ReadService(ctx, r.Network, r.Name)
	case service.DoPut:
		s, err = m.put(ctx, n, r.Shared)
	case service.DoRemove:
		if err := m.conf.Registry.DeleteService(ctx, r.Network, r.Name); err != nil {
			return s, err
		}
		return s, m.await(ctx, keyOf(r.Service), 0)
	}
	if err != nil {
		return s, err
	}
	return s, m.await(ctx, keyOf(s.Service), s.Revision)
}

func (m *Mesh) create(ctx context.Context, n Network, r service.Request) (service.Shared, error) {
	m.mu.Lock()
	v := m.view
	m.mu.Unlock()
	if v == nil {
		return service.Shared{}, errors.New("etcd has not been reached yet")
	}
	if n.Refused != nil && (r.Auto || len(r.VIPs) > 0) {
		return service.Shared{}, n.Refused
	}
	if r.Auto {
		r.VIPs = []netip.Addr{netip.IPv4Unspecified()} // for Check: there will be one
	}
	if err := n.complete(&r.Service); err != nil {
		return service.Shared{}, err
	}
	if r.Auto {
		r.VIPs = nil
	}
	return m.conf.Registry.CreateService(ctx, *v, r.Service, r.Auto)
}

// put writes a definition, with the hosts of the containers that have a weight.
func (m *Mesh) put(ctx context.Context, n Network, s service.Shared) (service.Shared, error) {
	if err := n.complete(&s.Service); err != nil {
		return s, err
	}
	homes := map[string]string{}
	for id := range s.Weights {
		homes[id] = s.Homes[id]
	}
	m.mu.Lock()
	for _, one := range m.byName[selection{s.Network, strings.ToLower(s.Select)}] {
		if _, weighs := homes[one.Container]; weighs {
			homes[one.Container] = one.Node
		}
	}
	m.mu.Unlock()
	for id, node := range homes {
		if node == "" {
			homes[id] = m.conf.Node // lnctl knows it, and no other host has it
		}
	}
	s.Homes = maps.Clone(homes)
	return m.conf.Registry.PutService(ctx, s)
}

// await waits until this host has a service at a revision; 0: until it has it no more.
func (m *Mesh) await(ctx context.Context, k key, revision int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for known := false; ; {
		m.mu.Lock()
		have, has := m.applied[k]
		_, defined := m.defs[k]
		err, turn := m.errs[k], m.turn
		m.mu.Unlock()
		switch {
		case revision > 0 && have >= revision, revision == 0 && !has:
			return nil
		case revision > 0 && known && !defined:
			return errors.New("the service was removed meanwhile")
		}
		known = known || defined
		select {
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			return fmt.Errorf("the definition is written, but this host has not followed yet: %w", err)
		case <-turn:
		}
	}
}

// complete says which key of a definition cannot be on a network, and sets what is left open.
func (n Network) complete(s *service.Service) error {
	if s.Health.Is() && n.NoHost {
		return fmt.Errorf("%w: check %s: network %q keeps its hosts out, which would check the containers", service.ErrInvalid, s.Health, s.Network)
	}
	switch {
	case len(s.Published) == 0:
		s.External = ""
	case n.Internal:
		return fmt.Errorf("%w: publish %s: network %q is internal: nothing comes in from outside", service.ErrInvalid, s.Published[0], s.Network)
	case s.External == "":
		s.External = service.ExternalNAT
	case s.External == service.ExternalPreserve:
		if err := n.cannotPreserve(); err != nil {
			return err
		}
	}
	for _, p := range s.Published {
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			return fmt.Errorf("%w: publish %s: want a port without an address: it is that of every host of network %q", service.ErrInvalid, p, s.Network)
		}
	}
	return s.Check()
}

// cannotPreserve says why no service of a network can preserve the addresses of clients; nil: they
// can. WireGuard takes from a host what has an address of that host alone, and drops what has a
// client's. What comes by the segment, past the tunnel, gets no mark: the answer would not go back by
// the host that was asked.
func (n Network) cannotPreserve() error {
	switch {
	case n.Encrypted:
		return fmt.Errorf("%w: external preserve: network %q is encrypted, and WireGuard lets no address of a client outside through; want nat or local", service.ErrInvalid, n.Name)
	case n.Direct:
		return fmt.Errorf("%w: external preserve: network %q has directRouting, and answers to a client outside find back to the host that was asked by the tunnel alone; want nat or local, or directRouting false on all hosts", service.ErrInvalid, n.Name)
	}
	return nil
}

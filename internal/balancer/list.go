package balancer

import (
	"context"
	"errors"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/sorting"
	"github.com/libnet-cni/libnet/internal/state"
)

// Found is a service and its backends.
type Found struct {
	service.Service
	Backends []service.Backend
	// Connections counts those of each port since the service was made, or its rules were
	// written anew; in the order of the ports, over all addresses, with what came by ports of the host.
	Connections []uint64
}

// List returns the services of a network, of all if it is empty, in the order of their
// names, and what could not be read, joined.
func (s *Services) List(ctx context.Context, network string) ([]Found, error) {
	ids, err := s.dir.Services()
	errs := []error{err}
	var all []Found
	for _, id := range ids {
		if network != "" && id.Network != network {
			continue
		}
		found, err := s.look(ctx, id)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		all, errs = append(all, found), append(errs, err)
	}
	return all, errors.Join(errs...)
}

// Look returns one service; ErrNotFound if there is none.
func (s *Services) Look(ctx context.Context, network, name string) (Found, error) {
	id, err := s.find(network, name)
	if err != nil {
		return Found{}, err
	}
	found, err := s.look(ctx, id)
	if errors.Is(err, state.ErrNotFound) { // removed meanwhile
		err = notFound(network, name)
	}
	return found, err
}

func (s *Services) look(ctx context.Context, id state.ServiceID) (found Found, err error) {
	dir, err := s.dir.LockService(ctx, id, state.OnlyExisting)
	if err != nil {
		return found, err
	}
	defer dir.Unlock()
	var r record
	if err := dir.Load(&r); err != nil {
		return found, err
	}
	found.Service = r.Service
	if found.Backends, err = state.BackendsOf[service.Backend](dir); err != nil {
		return found, err
	}
	for i := range found.Backends {
		found.Backends[i].Node = r.Node
	}
	found.Backends = append(found.Backends, r.Others...)
	sorting.Stable(found.Backends, func(a, b service.Backend) int { return strings.Compare(a.Key(), b.Key()) })
	found.Connections = make([]uint64, len(r.Ports))
	entries := r.entries()
	var ports []balance.Port
	for _, e := range entries {
		ports = append(ports, e.Port)
	}
	counts, err := s.kernel().Counts(ctx, ports)
	for i, c := range counts {
		found.Connections[entries[i].of] += c.Connections
	}
	return found, err
}

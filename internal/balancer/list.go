package balancer

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// Found is a service and its backends.
type Found struct {
	service.Service
	Backends []service.Backend
	// Led counts those that were led to each backend, in the order of Backends.
	Led []uint64
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
	var counts map[ruleset.Slot]uint64
	if len(ids) > fewServices {
		var countErr error
		counts, countErr = s.kernel().AllCounts(ctx)
		errs = append(errs, countErr)
	}
	for _, id := range ids {
		if network != "" && id.Network != network {
			continue
		}
		found, err := s.look(ctx, id, counts)
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
	found, err := s.look(ctx, id, nil)
	if errors.Is(err, state.ErrNotFound) { // removed meanwhile
		err = notFound(network, name)
	}
	return found, err
}

// fewServices are so many that the counters of each are asked for, and not those of all.
const fewServices = 16

// look reads one service; without counts it asks for its own.
func (s *Services) look(ctx context.Context, id state.ServiceID, counts map[ruleset.Slot]uint64) (found Found, err error) {
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
	slices.SortFunc(found.Backends, func(a, b service.Backend) int { return strings.Compare(a.Key(), b.Key()) })
	return found, s.count(ctx, r, &found, counts)
}

// count reads the counters of a service.
func (s *Services) count(ctx context.Context, r record, found *Found, counts map[ruleset.Slot]uint64) error {
	found.Connections, found.Led = make([]uint64, len(r.Ports)), make([]uint64, len(found.Backends))
	var elems []balance.Elem
	var adds []*uint64 // to which each of them does
	for _, e := range r.entries() {
		elems, adds = append(elems, s.kernel().Count(e.Port)), append(adds, &found.Connections[e.of])
		for i, b := range found.Backends {
			for _, led := range s.ledTo(e, b) {
				elems, adds = append(elems, led), append(adds, &found.Led[i])
			}
		}
	}
	if counts != nil {
		for i, e := range elems {
			*adds[i] += counts[e.Slot()]
		}
		return nil
	}
	all, err := s.kernel().Counts(ctx, elems)
	for i, n := range all {
		*adds[i] += n
	}
	return err
}

package balancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// Restore brings the kernel to what the records say of all services.
func (s *Services) Restore(ctx context.Context) error {
	if s == nil {
		return nil
	}
	ids, err := s.dir.Services()
	errs := []error{err}
	for round := 0; round < maxRounds; round++ {
		again := false
		for _, id := range ids {
			fresh, err := s.changeLocked(ctx, id, func(*state.Service, *changing) error { return nil })
			if err != nil {
				errs = append(errs, fmt.Errorf("service %q of network %q: %w", id.Name, id.Network, err))
			}
			again = again || fresh && len(ids) > 1
		}
		if !again { // else what came before was lost with the tables
			break
		}
	}
	return errors.Join(errs...)
}

// maxRounds bounds how often all is begun anew as the tables went meanwhile.
const maxRounds = 5

// Lost says that the tables of services are gone or broken, though there are services.
func (s *Services) Lost(ctx context.Context) error {
	if s == nil {
		return nil
	}
	ids, err := s.dir.Services()
	if err != nil {
		return err
	}
	for _, id := range ids {
		var r record
		if _, err := s.dir.PeekService(id, &r, "", ""); err != nil || len(r.VIPs) == 0 {
			continue // of none are rules
		}
		whole, err := s.kernel().Whole(ctx)
		if err == nil && !whole {
			err = errors.New("rules of services are missing: lnctl repair puts them back")
		}
		return err
	}
	return nil
}

// Fault is something about a service that is not as the records say.
type Fault struct{ Service, Found string }

// String is both, for a line.
func (f Fault) String() string {
	if f.Service == "" {
		return f.Found
	}
	return f.Service + ": " + f.Found
}

// Faults compares every service with the kernel. It changes nothing.
func (s *Services) Faults(ctx context.Context) (all []Fault, err error) {
	ids, err := s.dir.Services()
	errs := []error{err}
	known := map[string]bool{}
	for _, id := range ids {
		found, err := s.faultsOf(ctx, id, known)
		errs = append(errs, err)
		if len(found) > 0 {
			all = append(all, Fault{id.Network + "/" + id.Name, strings.Join(found, "; ")})
		}
	}
	strays, err := s.strays(ctx, known)
	if len(strays) > 0 {
		all = append(all, Fault{"", fmt.Sprintf("%d elements of no service, as %s", len(strays), strays[0])})
	}
	return all, errors.Join(append(errs, err)...)
}

// strays returns elements in our sets that no service has.
func (s *Services) strays(ctx context.Context, known map[string]bool) ([]balance.Elem, error) {
	list, err := s.kernel().List(ctx)
	return slices.DeleteFunc(list, func(e balance.Elem) bool { return known[slot(e)] }), err
}

func slot(e balance.Elem) string { return e.Set.Name + "\x00" + string(e.Key) }

func (s *Services) faultsOf(ctx context.Context, id state.ServiceID, known map[string]bool) (found []string, err error) {
	dir, err := s.dir.LockService(ctx, id, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Unlock()
	var r record
	if err := dir.Load(&r); errors.Is(err, state.ErrNotFound) {
		return nil, nil // the call that was to make it was killed
	} else if err != nil {
		return nil, err
	}
	backends, err := state.BackendsOf[service.Backend](dir)
	if err != nil || len(r.VIPs) == 0 {
		return nil, err
	}
	for _, b := range backends {
		if rec, err := s.dir.LoadEndpoint(r.Network, b.ContainerID, b.IfName); state.Missing(err) {
			found = append(found, "backend "+b.Key()+" is gone")
		} else if err == nil && !slices.Equal(rec.Addrs(), b.Addresses) {
			found = append(found, "backend "+b.Key()+" has other addresses now")
		}
	}
	recs, err := s.dir.Endpoints(r.Network)
	for _, rec := range recs {
		has := slices.ContainsFunc(backends, func(b service.Backend) bool { return b.ContainerID == rec.ContainerID && b.IfName == rec.IfName })
		if rec.Phase == state.PhaseReady && selects(id, rec) && !has {
			found = append(found, "container "+rec.ContainerID+" is no backend")
		}
	}
	lacks, addrErr := s.host.LacksServiceAddrs(r.holder(), r.VIPs)
	if len(lacks) > 0 && (len(backends) > 0 || r.Shared) {
		found = append(found, fmt.Sprintf("%s lacks the address %s", r.holder(), lacks[0]))
	}
	mac, macErr := s.host.DeviceMAC(r.Device)
	want := s.elements(r, backends, mac)
	for _, e := range want {
		known[slot(e)] = true
	}
	missing, _, diffErr := s.kernel().Differs(ctx, want, nil)
	if len(missing) > 0 {
		found = append(found, fmt.Sprintf("%d of %d rules are missing or changed, as %s", len(missing), len(want), missing[0]))
	}
	return found, errors.Join(err, addrErr, macErr, diffErr)
}

// Repair brings records and kernel of all services to what the attachments say, and removes
// elements of no service. It returns what it found.
func (s *Services) Repair(ctx context.Context) (repaired []Fault, err error) {
	if s == nil {
		return nil, nil
	}
	faults, err := s.Faults(ctx)
	if err != nil || len(faults) == 0 {
		return nil, err
	}
	ids, err := s.dir.Services()
	errs := []error{err}
	for _, id := range ids {
		errs = append(errs, s.weed(ctx, id), s.gather(ctx, id))
	}
	errs = append(errs, s.Restore(ctx))
	known := map[string]bool{}
	for _, id := range ids {
		_, err := s.faultsOf(ctx, id, known)
		errs = append(errs, err)
	}
	strays, err := s.strays(ctx, known)
	errs = append(errs, err)
	if len(strays) > 0 && err == nil {
		_, err = s.kernel().Apply(ctx, nil, strays)
		errs = append(errs, err)
	}
	return faults, errors.Join(errs...)
}

// weed takes backends out whose attachments are gone.
func (s *Services) weed(ctx context.Context, id state.ServiceID) error {
	return s.change(ctx, id, func(_ *state.Service, c *changing) error {
		c.leave(func(b service.Backend) bool {
			_, err := s.dir.LoadEndpoint(id.Network, b.ContainerID, b.IfName)
			return state.Missing(err)
		})
		return nil
	})
}

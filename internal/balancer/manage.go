package balancer

import (
	"context"
	"errors"
	"fmt"

	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// Errors of this package, for errors.Is.
var (
	// ErrExists says that there is a service of that name on the network.
	ErrExists = errors.New("service exists")
	// ErrNotFound says that there is no such service.
	ErrNotFound = errors.New("no such service")
)

// Create makes a service, with the containers that are there as backends. The definition has
// been checked, and its addresses are its own. device is the interface by which packets of
// the network's containers come to the host. ErrExists if there is one of that name.
func (s *Services) Create(ctx context.Context, def service.Service, device string) (err error) {
	if _, err := s.find(def.Network, def.Name); !errors.Is(err, ErrNotFound) {
		return errors.Join(err, fmt.Errorf("%w: %q on network %q", ErrExists, def.Name, def.Network))
	}
	r := record{Service: def, Device: device}
	fresh, err := s.create(ctx, r)
	if err != nil {
		return errors.Join(err, s.Remove(context.WithoutCancel(ctx), def.Network, def.Name))
	}
	if fresh {
		if err := s.Restore(ctx); err != nil {
			return err
		}
	}
	return errors.Join(s.gather(ctx, idOf(def)), s.dir.NoteServices())
}

func idOf(def service.Service) state.ServiceID {
	return state.ServiceID{Network: def.Network, Select: def.Select, Name: def.Name}
}

// create writes the record: every ADD that ends from now on finds it.
func (s *Services) create(ctx context.Context, r record) (fresh bool, err error) {
	dir, err := s.dir.LockService(ctx, idOf(r.Service), state.Create)
	if err != nil {
		return false, err
	}
	defer dir.Unlock()
	if err := errors.Join(dir.ClearBackends(), dir.Save(r)); err != nil {
		return false, err
	}
	return s.bring(ctx, changing{record: r, was: r}, nil)
}

// gather makes backends of the attachments that are there. Each is owned meanwhile: a DEL of
// it comes before or after.
func (s *Services) gather(ctx context.Context, id state.ServiceID) error {
	recs, err := s.dir.Endpoints(id.Network)
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside; doctor tells
	}
	errs := []error{err}
	for _, rec := range recs {
		if selects(id, rec) {
			errs = append(errs, s.gatherOne(ctx, id, rec))
		}
	}
	return errors.Join(errs...)
}

func selects(id state.ServiceID, rec state.Endpoint) bool {
	return rec.Names != nil && service.Service{Select: id.Select}.Selects(rec.Names.Own)
}

func (s *Services) gatherOne(ctx context.Context, id state.ServiceID, rec state.Endpoint) error {
	release, err := s.dir.Own(ctx, rec.Network, rec.ContainerID, rec.IfName, state.OnlyExisting)
	if err != nil {
		return err
	}
	defer release()
	rec, err = s.dir.LoadEndpoint(rec.Network, rec.ContainerID, rec.IfName)
	if state.Missing(err) {
		return nil
	}
	if err != nil || rec.Phase != state.PhaseReady || !selects(id, rec) {
		return err
	}
	if err := s.host.SetHairpin(rec.Netns, rec.Inside()); err != nil {
		return err
	}
	return s.change(ctx, id, joining(rec))
}

// find returns where a service is; ErrNotFound if there is none.
func (s *Services) find(network, name string) (state.ServiceID, error) {
	ids, err := s.dir.ServicesOf(network)
	for _, id := range ids {
		if id.Name == name && s.dir.HasService(id) {
			return id, err
		}
	}
	return state.ServiceID{}, errors.Join(err, fmt.Errorf("%w: %q on network %q", ErrNotFound, name, network))
}

// Update changes the definition of a service by fn; its network, name, selection and
// addresses stay.
func (s *Services) Update(ctx context.Context, network, name string, fn func(*service.Service) error) error {
	id, err := s.find(network, name)
	if err != nil {
		return err
	}
	return s.change(ctx, id, func(dir *state.Service, c *changing) error {
		def := c.Service
		if err := fn(&def); err != nil {
			return err
		}
		def.Network, def.Name, def.Select, def.VIPs, def.Leased = c.Network, c.Name, c.Select, c.VIPs, c.Leased
		if err := def.Check(); err != nil {
			return err
		}
		c.Service, c.left = def, c.before // what of the backends the ports of before needed
		return dir.Save(c.record)
	})
}

// Remove removes a service and all of it that is in the kernel. Connections that it led stay.
// The last one takes our tables along.
func (s *Services) Remove(ctx context.Context, network, name string) error {
	id, err := s.find(network, name)
	if err != nil {
		return err
	}
	fresh, err := s.remove(ctx, id)
	if err != nil {
		return fmt.Errorf("service %q of network %q: %w", name, network, err)
	}
	if fresh {
		if err := s.Restore(ctx); err != nil {
			return err
		}
	}
	if err := s.dir.NoteServices(); err != nil {
		return err
	}
	if ids, err := s.dir.Services(); err != nil || len(ids) > 0 {
		return err
	}
	return s.kernel().Drop(ctx)
}

func (s *Services) remove(ctx context.Context, id state.ServiceID) (fresh bool, err error) {
	dir, err := s.dir.LockService(ctx, id, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Unlock()
	var r record
	if err := dir.Load(&r); err != nil && !state.Missing(err) {
		return false, err
	}
	backends, err := state.BackendsOf[service.Backend](dir)
	if err != nil {
		return false, err
	}
	gone := s.keys(r)
	for _, b := range backends {
		if err := s.forget(&gone, r, b); err != nil {
			return false, err
		}
	}
	if fresh, err = s.takeAway(ctx, gone); err != nil {
		return false, err
	}
	return fresh, errors.Join(s.host.RemoveServiceAddrs(r.holder(), r.VIPs), dir.Remove())
}

// takeAway removes elements, unless our tables are gone.
func (s *Services) takeAway(ctx context.Context, gone []balance.Elem) (fresh bool, err error) {
	_, there, err := s.kernel().Differs(ctx, nil, gone)
	if err != nil || len(there) == 0 {
		return false, err
	}
	return s.kernel().Apply(ctx, nil, there)
}

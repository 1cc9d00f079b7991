package balancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/sentinel"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// Errors of this package, for errors.Is.
var (
	// ErrExists says that there is a service of that name on the network.
	ErrExists error = &sentinel.Error{Text: "service exists"}
	// ErrNotFound says that there is no such service.
	ErrNotFound error = &sentinel.Error{Text: "no such service"}
)

// Create makes a service, with the containers that are there as backends. The definition has
// been checked, and its addresses are its own. device is the interface by which packets of
// the network's containers come to the host. ErrExists if there is one of that name; a published
// port that another one has is a *publish.PortHeldError. Then nothing is changed.
func (s *Services) Create(ctx context.Context, def service.Service, device string) (err error) {
	if _, err := s.find(def.Network, def.Name); !errors.Is(err, ErrNotFound) {
		return errors.Join(err, fmt.Errorf("%w: %q on network %q", ErrExists, def.Name, def.Network))
	}
	if len(def.Published) > 0 { // before a rule leads there
		if err := s.ports.TakeForService(ctx, publish.ServicePortsOf(def, device)); err != nil {
			return err
		}
	}
	fresh, err := s.create(ctx, record{Service: def, Device: device})
	if err == nil {
		err = s.gather(ctx, idOf(def))
	}
	if err != nil {
		if undo := s.Remove(context.WithoutCancel(ctx), def.Network, def.Name); !errors.Is(undo, ErrNotFound) {
			err = errors.Join(err, undo)
		}
		return err
	}
	if fresh {
		if err := s.Restore(ctx); err != nil {
			return err
		}
	}
	return s.dir.NoteServices()
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
	return s.bring(ctx, &changing{record: r, dir: dir})
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
	return s.join(ctx, id, rec)
}

// find returns where a service is; ErrNotFound if there is none.
func (s *Services) find(network, name string) (state.ServiceID, error) {
	ids, err := s.dir.ServicesOf(network)
	for _, id := range ids {
		if strings.EqualFold(id.Name, name) && s.dir.HasService(id) {
			return id, err
		}
	}
	return state.ServiceID{}, errors.Join(err, notFound(network, name))
}

func notFound(network, name string) error {
	return fmt.Errorf("%w: %q on network %q", ErrNotFound, name, network)
}

// Update changes the definition of a service by fn, which must give the same when it is called
// again; its network, name, selection and addresses stay. What an earlier call that was killed
// left undone is done. A published port that another one has is a *publish.PortHeldError, and
// then nothing is changed.
func (s *Services) Update(ctx context.Context, network, name string, fn func(*service.Service) error) error {
	id, err := s.find(network, name)
	if err != nil {
		return err
	}
	var r record
	if _, err := s.dir.PeekService(id, &r, "", ""); err != nil {
		if errors.Is(err, state.ErrNotFound) { // removed meanwhile
			return notFound(network, name)
		}
		return err
	}
	was := publish.ServicePortsOf(r.Service, r.Device)
	def, err := updated(r.Service, fn)
	if err != nil {
		return err
	}
	now := publish.ServicePortsOf(def, r.Device)
	if len(now.Ports) > 0 && !slices.Equal(def.Published, r.Published) {
		if err := s.ports.TakeForService(ctx, now); err != nil {
			return err
		}
	}
	err = s.change(ctx, id, unix.LOCK_EX, func(c *changing) (err error) {
		was := c.Service
		if c.Service, err = updated(was, fn); err != nil {
			return err
		}
		if !slices.Equal(was.Ports, c.Ports) || !slices.Equal(was.Published, c.Published) || was.Affinity != c.Affinity {
			c.Was = append(c.Was, was) // until the kernel has forgotten it
		}
		return c.dir.Save(c.record)
	})
	if err != nil {
		return errors.Join(err, s.leavePorts(context.WithoutCancel(ctx), was))
	}
	return errors.Join(s.leavePorts(ctx, now), s.gather(ctx, id))
}

// leavePorts frees the ports of the host that are not among those of the service. A service that
// never had one has cost nothing.
func (s *Services) leavePorts(ctx context.Context, to publish.ServicePorts) error {
	if s.ports.VerifyService(ctx, to) == nil {
		return nil
	}
	return s.ports.LeaveToService(ctx, to)
}

func updated(s service.Service, fn func(*service.Service) error) (service.Service, error) {
	def := s
	if err := fn(&def); err != nil {
		return s, err
	}
	def.Network, def.Name, def.Select, def.VIPs, def.Leased = s.Network, s.Name, s.Select, s.VIPs, s.Leased
	return def, def.Check()
}

// Remove removes a service and all of it that is in the kernel. Connections that it led stay.
// The last one takes our tables along.
func (s *Services) Remove(ctx context.Context, network, name string) error {
	id, err := s.find(network, name)
	if err == nil {
		err = s.change(ctx, id, unix.LOCK_EX, func(c *changing) error {
			c.removed = true
			return nil
		})
	}
	if errors.Is(err, state.ErrCorrupt) { // repair takes what the kernel has of it
		err = s.discard(ctx, id)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	leaveErr := s.ports.LeaveToService(ctx, publish.ServicePorts{Network: network, Service: name})
	return errors.Join(err, leaveErr, s.dir.NoteServices(), s.dropUnused(ctx))
}

// dropUnused removes what the last service leaves. A service that is being made has a directory
// before it is in the kernel.
func (s *Services) dropUnused(ctx context.Context) error {
	unused := func() (bool, error) {
		there, err := s.dir.AnyService()
		return !there, err
	}
	if is, err := unused(); !is || err != nil {
		return err
	}
	return errors.Join(s.kernel().Drop(ctx, unused), s.dir.NoteServices())
}

// discard removes the records of a service that cannot be read.
func (s *Services) discard(ctx context.Context, id state.ServiceID) error {
	return s.discardIf(ctx, id, func() bool { return true })
}

func (s *Services) discardIf(ctx context.Context, id state.ServiceID, is func() bool) error {
	dir, err := s.dir.LockService(ctx, id, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Unlock()
	if !is() {
		return nil
	}
	return dir.Remove()
}

// Has says whether there is a service of that name.
func (s *Services) Has(network, name string) (bool, error) {
	if s == nil {
		return false, nil
	}
	_, err := s.find(network, name)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Tidy removes what is left of services of a network that no call finished to make or to remove:
// their directories, and with the last service of the host the rules.
func (s *Services) Tidy(ctx context.Context, network string) error {
	ids, err := s.dir.ServicesOf(network)
	errs := []error{err}
	for _, id := range ids {
		if !s.dir.HasService(id) {
			errs = append(errs, s.discardIf(ctx, id, func() bool { return !s.dir.HasService(id) }))
		}
	}
	return errors.Join(append(errs, s.dropUnused(ctx))...)
}

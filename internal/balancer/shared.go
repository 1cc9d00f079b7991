package balancer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"

	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// Followed is a service of a network that spans hosts, as this host has it.
type Followed struct {
	service.Service
	// Device is the interface by which packets of the network's containers come to the host.
	Device string
	// Node is the name of this host.
	Node string
	// Others are its backends on other hosts. Those of this host come with ADD and go with
	// DEL, as on a network of one host.
	Others []service.Backend
}

// loopback has the addresses of services that are shared: the bridge comes with the first
// container and goes with the last one, and a packet to a service without backends has to end
// at the host all the same.
const loopback = "lo"

// holder is the interface that has the service's addresses.
func (r record) holder() string {
	if r.Shared {
		return loopback
	}
	return r.Device
}

// ensureAddrs gives the host the service's addresses, and returns the MAC address of the
// bridge; nil if there is none.
func (s *Services) ensureAddrs(r record) (net.HardwareAddr, error) {
	if !r.Shared {
		return s.host.EnsureServiceAddrs(r.Device, r.VIPs)
	}
	if err := s.host.EnsureLocalAddrs(r.VIPs); err != nil {
		return nil, err
	}
	return s.host.DeviceMAC(r.Device)
}

// Follow brings records and kernel to a definition and the backends on other hosts, each in one
// step: a call that is killed leaves either as before or as after, and the next one does the
// rest. A service of that name which is not shared is ErrExists, and stays.
func (s *Services) Follow(ctx context.Context, f Followed) error {
	err := s.follow(ctx, f)
	if err != nil {
		return fmt.Errorf("service %q of network %q: %w", f.Name, f.Network, err)
	}
	return nil
}

func (s *Services) follow(ctx context.Context, f Followed) error {
	id := idOf(f.Service)
	if before, err := s.find(f.Network, f.Name); err == nil && !strings.EqualFold(before.Select, id.Select) {
		if err := s.Unfollow(ctx, f.Network, f.Name); err != nil { // it was removed, and another one made
			return err
		}
	}
	made, fresh, err := s.followLocked(ctx, id, record(f))
	if err != nil {
		return err
	}
	if fresh {
		if err := s.Restore(ctx); err != nil {
			return err
		}
	}
	if made {
		err = s.gather(ctx, id)
	}
	if made || len(f.VIPs) == 0 {
		err = errors.Join(err, s.dir.NoteServices())
	}
	return err
}

// followLocked is Follow under the service's lock. made says that it is new on this host.
func (s *Services) followLocked(ctx context.Context, id state.ServiceID, now record) (made, fresh bool, err error) {
	dir, err := s.dir.LockService(ctx, id, state.Create)
	if err != nil {
		return false, false, err
	}
	defer dir.Unlock()
	c := changing{record: now}
	err = dir.Load(&c.was)
	made = state.Missing(err)
	switch {
	case made:
		c.was = now
		err = dir.ClearBackends()
	case err == nil && !c.was.Shared:
		err = fmt.Errorf("%w: this host has one of that name to itself", ErrExists)
	}
	if err != nil {
		return false, false, err
	}
	backends, err := state.BackendsOf[service.Backend](dir)
	if err != nil {
		return false, false, err
	}
	if !reflect.DeepEqual(c.was.Ports, now.Ports) || !reflect.DeepEqual(c.was.VIPs, now.VIPs) {
		c.left = backends // what of them the ports of before needed
	}
	if made || !reflect.DeepEqual(c.was, now) {
		if err := dir.Save(now); err != nil {
			return false, false, err
		}
	}
	fresh, err = s.bring(ctx, c, backends)
	if !reflect.DeepEqual(c.was.VIPs, now.VIPs) && err == nil {
		err = s.host.RemoveServiceAddrs(c.was.holder(), without(c.was.VIPs, now.VIPs))
	}
	return made, fresh, err
}

func without(all, these []netip.Addr) (left []netip.Addr) {
	for _, a := range all {
		kept := false
		for _, b := range these {
			kept = kept || a == b
		}
		if !kept {
			left = append(left, a)
		}
	}
	return left
}

// Unfollow removes a shared service from this host; none, or one that is not shared, is success.
func (s *Services) Unfollow(ctx context.Context, network, name string) error {
	id, err := s.find(network, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	var r record
	if err == nil {
		_, err = s.dir.PeekService(id, &r, "", "")
	}
	if errors.Is(err, state.ErrNotFound) || err == nil && !r.Shared {
		return nil
	}
	if err != nil {
		return err
	}
	if err = s.Remove(ctx, network, name); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Shared returns the names of the services of a network that this host follows.
func (s *Services) Shared(network string) (names []string, err error) {
	ids, err := s.dir.ServicesOf(network)
	for _, id := range ids {
		var r record
		if _, readErr := s.dir.PeekService(id, &r, "", ""); readErr == nil && r.Shared {
			names = append(names, r.Name)
		}
	}
	return names, err
}

// Rejoin makes backends of the containers of this host that a service selects and does not have,
// as the call that was to see to it was killed.
func (s *Services) Rejoin(ctx context.Context, network string) error {
	if !s.dir.HasServices(network) {
		return nil
	}
	recs, err := s.dir.Endpoints(network)
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside; doctor tells
	}
	errs := []error{err}
	for _, rec := range recs {
		if rec.Names == nil {
			continue
		}
		ids, err := s.dir.ServicesFor(network, rec.Names.Own)
		errs = append(errs, err)
		for _, id := range ids {
			var r record
			if has, err := s.dir.PeekService(id, &r, rec.ContainerID, rec.IfName); err == nil && r.Shared && !has {
				errs = append(errs, s.gatherOne(ctx, id, rec))
			}
		}
	}
	return errors.Join(errs...)
}

// HasContainer says whether a container is attached to a network of this host.
func (s *Services) HasContainer(network, containerID string) (bool, error) {
	recs, err := s.dir.Endpoints(network)
	for _, rec := range recs {
		if rec.ContainerID == containerID {
			return true, nil
		}
	}
	return false, err
}

package balancer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/publish"
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
	// Well are the keys of the backends on this host whose checks succeed, in order.
	Well []string
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

// takePorts takes the published ports of this host before a rule leads there. Where another one has
// them, the service goes without. Until release is called, once the record tells of the ports, no
// repair takes them for what a killed call left.
func (s *Services) takePorts(ctx context.Context, id state.ServiceID, f *Followed) (release func(), err error) {
	var has record
	release = func() {}
	if len(f.Published) == 0 {
		return release, nil
	}
	if _, err := s.dir.PeekService(id, &has, "", ""); err == nil && slices.Equal(has.Published, f.Published) && slices.Equal(has.VIPs, f.VIPs) {
		return release, nil
	}
	container, ifName := service.Lease(f.Name)
	owned, err := s.dir.Own(ctx, f.Network, container, ifName, state.OnlyExisting)
	if err == nil {
		release = owned
		err = s.ports.TakeForService(ctx, publish.ServicePortsOf(f.Service, f.Device))
	}
	if err != nil {
		f.Published = nil
		return release, err
	}
	// As ADD does, which has not been called on a host without containers.
	return release, s.host.Forward(ctx, slices.ContainsFunc(f.VIPs, netip.Addr.Is4), slices.ContainsFunc(f.VIPs, netip.Addr.Is6))
}

// Unfollow removes a shared service, which selects a name, from this host; none, or one that is
// not shared, is success. Note is to be called at last.
func (s *Services) Unfollow(ctx context.Context, network, name, selected string) error {
	id := state.ServiceID{Network: network, Select: selected, Name: name}
	var r record
	_, err := s.dir.PeekService(id, &r, "", "")
	if errors.Is(err, state.ErrNotFound) || err == nil && !r.Shared {
		return nil
	}
	if errors.Is(err, state.ErrCorrupt) {
		return s.discard(ctx, id)
	}
	if err != nil {
		return err
	}
	err = s.change(ctx, id, unix.LOCK_EX, func(c *changing) error {
		c.removed = true
		return nil
	})
	if err == nil && len(r.Published) > 0 {
		err = s.ports.LeaveToService(ctx, publish.ServicePorts{Network: network, Service: name})
	}
	return err
}

// Note has names follow after changes of shared services, and removes our tables after the last
// service.
func (s *Services) Note(ctx context.Context) error {
	return errors.Join(s.dir.NoteServices(), s.dropUnused(ctx))
}

// Shared returns the services of a network that this host follows, as they are there.
func (s *Services) Shared(network string) (all []service.Service, err error) {
	ids, err := s.dir.ServicesOf(network)
	for _, id := range ids {
		var r record
		if _, readErr := s.dir.PeekService(id, &r, "", ""); readErr == nil && r.Shared {
			all = append(all, r.Service)
		}
	}
	return all, err
}

// UnfollowAll removes all shared services of a network from this host.
func (s *Services) UnfollowAll(ctx context.Context, network string) error {
	all, err := s.Shared(network)
	errs := []error{err}
	for _, one := range all {
		errs = append(errs, s.Unfollow(ctx, network, one.Name, one.Select))
	}
	if len(all) > 0 {
		errs = append(errs, s.Note(ctx))
	}
	return errors.Join(errs...)
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

// forgetFar is forget for a backend on another host.
func (s *Services) forgetFar(gone *[]balance.Elem, of record, b service.Backend, with map[string]bool) error {
	mine := s.far(of, b)
	if len(mine) == 0 {
		return nil
	}
	ids, err := s.dir.ServicesFor(of.Network, b.Names)
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	for _, id := range ids {
		var other record
		if _, err := s.dir.PeekService(id, &other, "", ""); err != nil || with[other.Name] {
			continue // what it needs is put in place with it
		}
		for _, o := range other.Others {
			for _, e := range s.far(other, o) {
				needed[slot(e)] = true
			}
		}
	}
	for _, e := range mine {
		if !needed[slot(e)] {
			*gone = append(*gone, e)
		}
	}
	return nil
}

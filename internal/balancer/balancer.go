package balancer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/balance"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// TableName is the name of the tables of nftables that have the rules of services.
const TableName = balance.TableName

// Host is the part of the kernel beside the rules.
type Host interface {
	EnsureServiceAddrs(device string, addrs []netip.Addr) (net.HardwareAddr, error)
	EnsureLocalAddrs(addrs []netip.Addr) error
	Forward(ctx context.Context, v4, v6 bool) error
	RemoveServiceAddrs(device string, addrs []netip.Addr) error
	LacksServiceAddrs(device string, addrs []netip.Addr) ([]netip.Addr, error)
	DeviceMAC(device string) (net.HardwareAddr, error)
	SetHairpin(netns, ifName string) error
}

// Ports are the published ports of the host, which services share with containers.
type Ports interface {
	TakeForService(context.Context, publish.ServicePorts) error
	LeaveToService(context.Context, publish.ServicePorts) error
	OpenToService(publish.ServicePorts) error
	VerifyService(context.Context, publish.ServicePorts) error
}

// Services are the services of this host. A nil Services has none.
type Services struct {
	dir   *state.Dir
	host  Host
	ports Ports

	once   sync.Once
	tables *balance.Tables // see kernel
}

// New opens nothing and costs nothing.
func New(dir *state.Dir, host Host, ports Ports) *Services {
	return &Services{dir: dir, host: host, ports: ports}
}

// kernel is what of services is in nftables. It is made at the first call: most processes
// meet no service.
func (s *Services) kernel() *balance.Tables {
	s.once.Do(func() { s.tables = balance.New() })
	return s.tables
}

// Close closes the sockets that earlier calls left open, after the last of these.
func (s *Services) Close() error {
	s.once.Do(func() {})
	if s.tables == nil {
		return nil
	}
	return s.tables.Close()
}

func backendOf(rec state.Endpoint) service.Backend {
	b := service.Backend{ContainerID: rec.ContainerID, IfName: rec.IfName, Addresses: rec.Addrs()}
	if rec.Names != nil {
		b.Names = rec.Names.Own
	}
	return b
}

// Joined makes an attachment, which is complete and recorded, a backend of the services that
// select it. Without services on its network this is one look for a directory.
func (s *Services) Joined(ctx context.Context, rec state.Endpoint) error {
	if s == nil || rec.Names == nil || !s.dir.HasServices(rec.Network) {
		return nil
	}
	ids, err := s.dir.ServicesFor(rec.Network, rec.Names.Own)
	if err != nil || len(ids) == 0 {
		return err
	}
	if err := s.host.SetHairpin(rec.Netns, rec.Inside()); err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.join(ctx, id, rec); err != nil {
			return err
		}
	}
	return nil
}

func (s *Services) join(ctx context.Context, id state.ServiceID, rec state.Endpoint) error {
	var of record
	err := s.change(ctx, id, unix.LOCK_SH, func(c *changing) error {
		of = c.record
		return c.dir.PutBackend(rec.ContainerID, rec.IfName, backendOf(rec))
	})
	if err != nil || len(of.Published) == 0 {
		return err
	}
	return s.ports.OpenToService(publish.ServicePortsOf(of.Service, of.Device))
}

// Left takes an attachment, which is about to go, out of all services. Connections that it
// has end with it.
func (s *Services) Left(ctx context.Context, rec state.Endpoint) error {
	if s == nil || !s.dir.HasServices(rec.Network) {
		return nil
	}
	ids, err := s.dir.ServicesOf(rec.Network)
	if rec.Names != nil {
		ids, err = s.dir.ServicesFor(rec.Network, rec.Names.Own)
	}
	errs := []error{err}
	for _, id := range ids {
		errs = append(errs, s.leave(ctx, id, func(b service.Backend) bool {
			return b.ContainerID == rec.ContainerID && b.IfName == rec.IfName
		}))
	}
	return errors.Join(errs...)
}

// leave has backends go out of a service.
func (s *Services) leave(ctx context.Context, id state.ServiceID, is func(service.Backend) bool) error {
	return s.change(ctx, id, unix.LOCK_EX, func(c *changing) error {
		for _, b := range c.before {
			if is(b) {
				c.left = append(c.left, b)
			}
		}
		c.same = len(c.left) == 0 && len(c.Was) == 0
		return nil
	})
}

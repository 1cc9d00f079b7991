package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/guard"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/sorting"
	"github.com/libnet-cni/libnet/internal/state"
)

// Publisher is publish.Publisher in the Controller's namespace. It puts back rules of
// others that it finds lost.
type Publisher struct {
	c       *Controller
	network string
	p       *publish.Publisher
}

// Publisher returns the one for a network. The errors: ErrInvalidName, *ConfigError.
func (c *Controller) Publisher(network string, cfg model.PublishConfig) (*Publisher, error) {
	p, err := c.Ports().Publisher(network, cfg)
	if err != nil {
		return nil, err
	}
	return &Publisher{c: c, network: network, p: p}, nil
}

// Publish is that of publish.Publisher.
func (p *Publisher) Publish(ctx context.Context, pub publish.Publication) (_ []model.PortMapping, err error) {
	leave, err := p.c.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	got, restored, err := p.p.Publish(ctx, pub)
	of := state.Endpoint{Network: pub.ID.Network, ContainerID: pub.ID.ContainerID, IfName: pub.ID.IfName}
	if restored && p.c.Ports().HasOthers(of) {
		p.c.mendRules(ctx)
	}
	return got, err
}

// Verify is that of publish.Publisher.
func (p *Publisher) Verify(ctx context.Context, pub publish.Publication) (err error) {
	leave, err := p.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	return p.p.Verify(ctx, pub)
}

// Remove is that of publish.Publisher.
func (p *Publisher) Remove(ctx context.Context, id model.ID) (err error) {
	leave, err := p.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	return p.p.Remove(ctx, id)
}

// Collect is that of publish.Publisher.
func (p *Publisher) Collect(ctx context.Context, keep func(life.Holder) bool) (err error) {
	leave, err := p.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	return p.p.Collect(ctx, keep)
}

// Status says why nothing could be published now; nil if something could. Rules that are
// missing it puts back.
func (p *Publisher) Status(ctx context.Context) (err error) {
	leave, err := p.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	err = p.p.Available()
	if dirErr := p.c.sandboxes.Writable(); dirErr != nil {
		err = errors.Join(err, fmt.Errorf("state directory: %w", dirErr))
	}
	if err == nil {
		p.putLostRulesBack(ctx)
	}
	return err
}

// servicePorts are the published ports of this host for package balancer. What others have lost
// is put back.
type servicePorts struct{ c *Controller }

var _ balancer.Ports = servicePorts{}

func (p servicePorts) TakeForService(ctx context.Context, s publish.ServicePorts) error {
	restored, err := p.c.Ports().TakeForService(ctx, s)
	if restored {
		_, _ = p.c.Repair(ctx)
	}
	return err
}

func (p servicePorts) LeaveToService(ctx context.Context, s publish.ServicePorts) error {
	return p.c.Ports().LeaveToService(ctx, s)
}

func (p servicePorts) OpenToService(s publish.ServicePorts) error {
	return p.c.Ports().OpenToService(s)
}

func (p servicePorts) VerifyService(ctx context.Context, s publish.ServicePorts) error {
	return p.c.Ports().VerifyService(ctx, s)
}

// FreeService frees what a service that there is not has of the network: addresses and ports of
// the host, as a call that was killed left them. The caller owns the service's lease.
func (n *Network) FreeService(ctx context.Context, name string) (freed bool, err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return false, err
	}
	defer leave(&err)
	if has, err := n.c.services.Has(n.def.Name, name); has || err != nil {
		return false, err
	}
	id := model.ID{Network: n.def.Name}
	id.ContainerID, id.IfName = service.Lease(name)
	if pool, ours := n.ipam.(*address.Pool); ours {
		held, err := pool.Lookup(ctx, id)
		if freed = len(held) > 0; freed {
			err = pool.Remove(ctx, id)
		}
		if err != nil {
			return false, err
		}
	}
	return freed, n.c.Ports().LeaveToService(ctx, publish.ServicePorts{Network: n.def.Name, Service: name})
}

// tidyServices is FreeService for all of the network, and returns what had been left. One that
// another call is making is left to that.
func (n *Network) tidyServices(ctx context.Context) (names []string, err error) {
	if n.c.services == nil {
		return nil, nil
	}
	left, err := n.c.Ports().ServicesOf(n.def.Name)
	errs := []error{err, n.c.services.Tidy(ctx, n.def.Name)}
	if pool, ours := n.ipam.(*address.Pool); ours {
		held, err := pool.Held(ctx)
		errs = append(errs, err)
		for _, owner := range held {
			if name, is := service.OfLease(owner.ContainerID, owner.IfName); is {
				left = append(left, name)
			}
		}
	}
	sorting.Ordered(left)
	for _, name := range slices.Compact(left) {
		if has, err := n.c.services.Has(n.def.Name, name); has || err != nil {
			errs = append(errs, err)
			continue
		}
		id, ifName := service.Lease(name)
		release, owned, err := n.c.endpoints.TryOwn(n.def.Name, id, ifName)
		if err != nil || !owned {
			errs = append(errs, err)
			continue
		}
		freed, err := n.FreeService(ctx, name)
		release()
		if errs = append(errs, err); freed {
			names = append(names, name)
		}
	}
	return names, errors.Join(errs...)
}

// book has the guards of all bridges.
func (c *Controller) book() *guard.Book { return c.Ports().Guard }

// Ports are the published ports of this host. They are made once, of the Controller's
// parts.
func (c *Controller) Ports() *publish.Ports {
	c.makePorts.Do(func() {
		book := &guard.Book{Index: c.guards, Networks: c.networks, Endpoints: c.endpoints, Bridges: c.bridges, Tunnels: c.basis, Links: c.links, Rules: c.rules}
		c.ports = &publish.Ports{
			Boot: c.boot, Endpoints: c.endpoints, Publications: c.publications(), Networks: c.networks, Standby: c.standby,
			Guard: book, Host: c.published, Flush: c.flush,
		}
	})
	return c.ports
}

// publications are the records of all Publishers.
func (c *Controller) publications() *state.Dir {
	return state.New(filepath.Join(c.stateDir, "portmap"))
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/libnet-cni/libnet/internal/guard"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/publish"
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

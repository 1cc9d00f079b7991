package graph

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/operator"
)

// Look asks this host. What cannot be read is in the error, beside the rest.
func Look(ctx context.Context, o *operator.Operator) (Host, error) {
	name, err := os.Hostname()
	h := Host{Host: name, Networks: []Network{}}
	networks, listErr := o.Networks(ctx)
	errs := []error{err, listErr}
	for _, n := range networks {
		drawn, err := network(ctx, o, n)
		h.Networks, errs = append(h.Networks, drawn), append(errs, err)
	}
	return h, errors.Join(errs...)
}

func network(ctx context.Context, o *operator.Operator, n *engine.Network) (Network, error) {
	c := n.Config()
	drawn := Network{Name: n.Name(), Driver: n.Driver(), Bridge: c.Bridge, Internal: c.IsInternal(), Subnets: []string{}, Peers: []string{}, Containers: []Container{}}
	for _, s := range n.Subnets() {
		drawn.Subnets = append(drawn.Subnets, s.String())
	}
	for _, node := range c.Tunnel.Nodes {
		if node.Address != c.Tunnel.Self {
			drawn.Peers = append(drawn.Peers, node.Address.String())
		}
	}
	pool, err := o.Pool(ctx, n)
	if errors.Is(err, operator.ErrNoPool) {
		err = nil
	}
	for _, set := range pool.Sets { // of both families the smaller one is what runs out
		if drawn.Capacity == 0 || set.Capacity < drawn.Capacity {
			drawn.Held, drawn.Capacity = set.Held, set.Capacity
		}
	}
	endpoints, listErr := n.Endpoints(ctx)
	errs := []error{err, listErr}
	alive := false
	for _, e := range endpoints {
		a := o.Inspect(e)
		drawn.Containers = append(drawn.Containers, container(ctx, e, a))
		alive = alive || a.Life == operator.Alive
	}
	if alive {
		if err := n.Unplugged(ctx); err != nil {
			drawn.Problem = firstLine(err)
		}
	}
	return drawn, errors.Join(errs...)
}

func container(ctx context.Context, e *engine.Endpoint, a operator.Attachment) Container {
	rec := e.Record()
	c := Container{ID: a.ID.ContainerID, Interface: rec.Inside(), Addresses: []string{}, Ports: []string{}}
	if rec.Names != nil && len(rec.Names.Own) > 0 {
		c.Name = rec.Names.Own[0]
	}
	for _, addr := range a.Addresses {
		c.Addresses = append(c.Addresses, addr.Addr().String())
	}
	for _, p := range rec.Ports {
		c.Ports = append(c.Ports, fmt.Sprintf("%s → %d/%s", console.Where(p.HostIP, p.HostPort, p.HostPortEnd), p.ContainerPort, p.Protocol))
	}
	switch a.Life {
	case operator.Alive:
		if err := e.Verify(ctx); err != nil {
			c.Problem = firstLine(err)
		}
	case operator.Dead:
		c.Problem = "dead: " + a.Why
	default:
		c.Problem = string(a.Life)
	}
	return c
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

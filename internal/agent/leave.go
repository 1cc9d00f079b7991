package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/overlay"
)

// Membership is what Leave needs of a registry; etcd.Registry has it.
type Membership interface {
	View(ctx context.Context) (overlay.View, error)
	Leave(ctx context.Context, network string) error
	Forget(ctx context.Context) error
}

// Leaving is what this host is to leave.
type Leaving struct {
	Networks []netconf.AgentNetwork // that are configured
	Only     []string               // names; none: all there are, and for good
	Node     string
	StateDir string // of networks that are not configured any more
	// Force leaves networks that have living containers, which are cut off.
	Force    Force
	Registry Membership
	Log      *slog.Logger
}

// Force says whether living containers are an obstacle.
type Force bool

// Leave gives this host's blocks back and takes its tunnels away. No agent may
// be at work.
func (l Leaving) Leave(ctx context.Context) error {
	v, err := l.Registry.View(ctx)
	if err != nil {
		return err
	}
	names, err := l.names(v)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := l.refuseUsed(ctx, name); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := l.leave(ctx, v, name); err != nil {
			return ofNetwork(name, err)
		}
	}
	if len(l.Only) > 0 {
		return nil
	}
	return l.Registry.Forget(ctx)
}

func (l Leaving) names(v overlay.View) ([]string, error) {
	all := map[string]bool{}
	for name := range v.Networks {
		if len(v.Own(name, l.Node)) > 0 {
			all[name] = true
		}
	}
	dirs := map[string]bool{l.StateDir: true}
	for _, n := range l.Networks {
		dirs[cmp.Or(n.StateDir, l.StateDir)] = true
	}
	for dir := range dirs {
		if err := within(dir, func(c *engine.Controller) error {
			names, err := c.NodeFiles()
			for _, name := range names {
				all[name] = true
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	for _, name := range l.Only {
		if !all[name] {
			return nil, fmt.Errorf("this host, node %s, has no part in network %s", l.Node, name)
		}
	}
	if len(l.Only) > 0 {
		return l.Only, nil
	}
	return slices.Sorted(maps.Keys(all)), nil
}

func within(dir string, fn func(*engine.Controller) error) error {
	c, err := engine.New(engine.WithStateDir(dir), engine.SpansHosts())
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(c)
}

// conf returns a network as it is configured, or what is known of one that is
// not any more.
func (l Leaving) conf(name string) netconf.AgentNetwork {
	n := netconf.AgentNetwork{Name: name}
	if i := slices.IndexFunc(l.Networks, func(n netconf.AgentNetwork) bool { return n.Name == name }); i >= 0 {
		n = l.Networks[i]
	}
	n.StateDir = cmp.Or(n.StateDir, l.StateDir)
	return n
}

func (l Leaving) refuseUsed(ctx context.Context, name string) error {
	if l.Force {
		return nil
	}
	return within(l.conf(name).StateDir, func(c *engine.Controller) error {
		n, err := c.Network(name)
		if errors.Is(err, model.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		all, err := n.Endpoints(ctx)
		for _, e := range all {
			if h := e.Holder(); !c.Dead(h) {
				return fmt.Errorf("network %s has living containers here, one is %s: remove them first, or see --force", name, h.ID.ContainerID)
			}
		}
		return err
	})
}

func (l Leaving) leave(ctx context.Context, v overlay.View, name string) error {
	own := v.Own(name, l.Node)
	n := l.conf(name)
	err := within(n.StateDir, func(c *engine.Controller) error {
		f, err := c.NodeFile(name)
		if errors.Is(err, model.ErrNotReady) || err == nil && len(f.Nodes) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		net, err := c.DefineNetwork("overlay", name, engine.WithConfig(f.Apply(n.Config)))
		if err != nil {
			return err
		}
		return net.Disconnect(ctx)
	})
	if err != nil {
		return err
	}
	if err := errors.Join(leaveReturns(ctx, name), leaveServices(ctx, n.StateDir, name)); err != nil {
		return err
	}
	if err := errors.Join(l.Registry.Leave(ctx, name), keyStore{n.StateDir, name}.keep()); err != nil {
		return err
	}
	l.Log.Info("left", "network", name, "blocks", own)
	return nil
}

// leaveServices takes what this host has of a network's services away.
func leaveServices(ctx context.Context, stateDir, network string) error {
	return within(stateDir, func(c *engine.Controller) error {
		return c.Services().UnfollowAll(ctx, network)
	})
}

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// RemoveNetwork removes a network that has no container: its bridge, if libnet
// made it, its tunnel, rules, record, and what dead containers left of it. It
// needs no configuration, and no record where the bridge or the rules tell of the
// network. ErrNotFound if nothing does; ErrNetworkInUse, naming them, if
// containers that are not provably dead are attached or have leases of it.
func (c *Controller) RemoveNetwork(ctx context.Context, name string) (err error) {
	leave, err := c.enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	if err := model.ValidateName("network name", name); err != nil {
		return err
	}
	n, err := c.networkLeft(ctx, name)
	if err != nil {
		return err
	}
	err = n.Collect(ctx, func(h life.Holder) bool { return !c.Dead(h) }, KeepNetwork)
	if err != nil {
		return err
	}
	if err := n.inUse(ctx); err != nil {
		return err
	}
	err = n.dissolve(ctx)
	if errors.Is(err, state.ErrInUse) { // an ADD came meanwhile
		return cmp.Or(n.inUse(ctx), fmt.Errorf("%w: %q", model.ErrNetworkInUse, name))
	}
	return err
}

// inUse is ErrNetworkInUse with the containers that the network has.
func (n *Network) inUse(ctx context.Context) error {
	users := map[string]bool{}
	holders, err := n.holders(ctx)
	for id := range holders {
		users[id.ContainerID+" "+id.IfName] = true
	}
	if pool, ok := n.ipam.(*address.Pool); ok && err == nil {
		held, heldErr := pool.Held(ctx)
		for _, o := range held {
			users[strings.TrimSpace(o.ContainerID+" "+o.IfName)] = true
		}
		err = heldErr
	}
	if err != nil || len(users) == 0 {
		return err
	}
	return fmt.Errorf("%w: %q: %s: remove these containers first", model.ErrNetworkInUse, n.name, strings.Join(slices.Sorted(maps.Keys(users)), ", "))
}

// networkLeft returns a network by its record, else by what the kernel has of it.
func (c *Controller) networkLeft(ctx context.Context, name string) (*Network, error) {
	n, err := c.Network(name)
	if err == nil || !errors.Is(err, model.ErrNotFound) && !errors.Is(err, state.ErrCorrupt) {
		return n, err
	}
	left := &Network{c: c, name: name, driver: plan.DriverBridge}
	owned, listErr := c.links.List(ctx, model.NetworkOwner(name))
	if listErr != nil {
		return nil, listErr
	}
	for _, o := range owned {
		if o.Bridge && o.Owner == model.NetworkOwner(name) {
			left.config.Bridge = o.Name
		}
	}
	recorded, recErr := c.recorder.Recorded(ctx)
	if recErr != nil {
		return nil, recErr
	}
	fw, ruled := recorded.Networks[firewall.Key(model.NetworkOwner(name))]
	overlay := Network{c: c, name: name, driver: plan.DriverOverlay}
	if has, err := overlay.hasTunnel(); err != nil {
		return nil, err
	} else if has {
		left.driver = plan.DriverOverlay
	}
	if left.config.Bridge == "" && !ruled && left.driver == plan.DriverBridge && len(owned) == 0 {
		return nil, err
	}
	left.config.Bridge = cmp.Or(left.config.Bridge, fw.Bridge, model.BridgeName(name))
	return left, nil
}

// PruneNetworks is RemoveNetwork for each network that has no container. Those in
// use are passed over. It returns the names of those removed, and goes on after
// errors.
func (c *Controller) PruneNetworks(ctx context.Context) (removed []string, err error) {
	leave, err := c.enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	names, err := c.networkNames(ctx)
	errs := []error{err}
	for _, name := range names {
		switch err := c.RemoveNetwork(ctx, name); {
		case err == nil:
			removed = append(removed, name)
		case errors.Is(err, model.ErrNotFound): // it went meanwhile
		case !errors.Is(err, model.ErrNetworkInUse):
			errs = append(errs, fmt.Errorf("network %q: %w", name, err))
		}
	}
	return removed, errors.Join(errs...)
}

// networkNames are those of all networks that a record, a link or rules tell of.
func (c *Controller) networkNames(ctx context.Context) ([]string, error) {
	names := map[string]bool{}
	recs, err := c.networks.Networks()
	for _, rec := range recs {
		names[rec.Name] = true
	}
	owned, listErr := c.links.List(ctx, model.OwnerPrefix)
	for _, o := range owned {
		if name := networkOf(o.Owner); name != "" {
			names[name] = true
		}
	}
	recorded, ruleErr := c.recorder.Recorded(ctx)
	for owner := range recorded.Networks {
		if name := networkOf(owner); name != "" {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), errors.Join(err, listErr, ruleErr)
}

package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// RemoveNetwork removes a network that has no container: its bridge, if libnet
// made it, its tunnel, rules, record, and what dead containers left of it. It
// needs no configuration, and no record where the bridge or the rules tell of the
// network. ErrNotFound if nothing does; ErrNetworkInUse, naming them, if
// containers that are not provably dead are attached or have leases of it, or it has services.
func (o *Operator) RemoveNetwork(ctx context.Context, name string) (err error) {
	leave, err := o.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	if err := model.ValidateName("network name", name); err != nil {
		return err
	}
	if dir := o.elsewhere(name); dir != "" {
		return fmt.Errorf("network %q is not of %s: its configuration has \"stateDir\": %q: lnctl network rm %s --state-dir %s", name, o.StateDir, dir, name, dir)
	}
	n, err := o.networkLeft(ctx, name)
	if err != nil {
		return err
	}
	err = n.Collect(ctx, func(h life.Holder) bool { return !o.Dead(h) }, engine.KeepNetwork)
	if err != nil {
		return err
	}
	if err := o.inUse(ctx, n); err != nil {
		return err
	}
	err = n.Dissolve(ctx)
	if errors.Is(err, state.ErrInUse) { // an ADD came meanwhile
		return cmp.Or(o.inUse(ctx, n), fmt.Errorf("%w: %q", model.ErrNetworkInUse, name))
	}
	return err
}

// inUse is ErrNetworkInUse with the containers that the network has.
func (o *Operator) inUse(ctx context.Context, n *engine.Network) error {
	users := map[string]bool{}
	services, err := o.Services().List(ctx, n.Name())
	if err != nil {
		return err
	}
	for _, s := range services {
		return fmt.Errorf("%w: %q: service %q: lnctl service rm %s --network %s comes first", model.ErrNetworkInUse, n.Name(), s.Name, s.Name, n.Name())
	}
	holders, err := n.Holders(ctx)
	for _, h := range holders {
		users[strings.TrimSpace(h.ID.ContainerID+" "+h.ID.IfName)] = true
	}
	if pool, ok := n.IPAM().(*address.Pool); ok && err == nil {
		held, heldErr := pool.Held(ctx)
		for _, owner := range held {
			users[strings.TrimSpace(owner.ContainerID+" "+owner.IfName)] = true
		}
		err = heldErr
	}
	if err != nil || len(users) == 0 {
		return err
	}
	return fmt.Errorf("%w: %q: %s: remove these containers first", model.ErrNetworkInUse, n.Name(), strings.Join(slices.Sorted(maps.Keys(users)), ", "))
}

// networkLeft returns a network by its record, else by what the kernel has of it.
func (o *Operator) networkLeft(ctx context.Context, name string) (*engine.Network, error) {
	n, err := o.Network(name)
	if err == nil || !errors.Is(err, model.ErrNotFound) && !errors.Is(err, state.ErrCorrupt) {
		return n, err
	}
	owned, listErr := o.kernel.List(ctx, model.NetworkOwner(name))
	if listErr != nil {
		return nil, listErr
	}
	driver, bridge := plan.DriverBridge, ""
	for _, l := range owned {
		if l.Bridge && l.Owner == model.NetworkOwner(name) {
			bridge = l.Name
		}
	}
	recorded, recErr := o.nft.Recorded(ctx)
	if recErr != nil {
		return nil, recErr
	}
	fw, ruled := recorded.Networks[firewall.Key(model.NetworkOwner(name))]
	for _, device := range (&plan.Network{Name: name, Driver: plan.DriverOverlay}).TunnelNames() {
		has, hasErr := o.kernel.HasTunnel(device, model.NetworkOwner(name))
		if hasErr != nil && !errors.Is(hasErr, netlink.ErrExists) {
			return nil, hasErr
		}
		if has && hasErr == nil {
			driver = plan.DriverOverlay
		}
	}
	if bridge == "" && !ruled && driver == plan.DriverBridge && len(owned) == 0 {
		return nil, err
	}
	return o.Left(name, driver, cmp.Or(bridge, fw.Bridge, model.BridgeName(name))), nil
}

// PruneNetworks is RemoveNetwork for each network that has no container. Those in
// use are passed over. It returns the names of those removed, and goes on after
// errors.
func (o *Operator) PruneNetworks(ctx context.Context) (removed []string, err error) {
	leave, err := o.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	names, err := o.networkNames(ctx)
	errs := []error{err}
	for _, name := range names {
		if o.elsewhere(name) != "" {
			continue
		}
		switch err := o.RemoveNetwork(ctx, name); {
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
func (o *Operator) networkNames(ctx context.Context) ([]string, error) {
	names := map[string]bool{}
	recs, err := o.networks.Networks()
	for _, rec := range recs {
		names[rec.Name] = true
	}
	owned, listErr := o.kernel.List(ctx, model.OwnerPrefix)
	for _, o := range owned {
		if name := model.NetworkOf(o.Owner); name != "" {
			names[name] = true
		}
	}
	recorded, ruleErr := o.nft.Recorded(ctx)
	for owner := range recorded.Networks {
		if name := model.NetworkOf(owner); name != "" {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), errors.Join(err, listErr, ruleErr)
}

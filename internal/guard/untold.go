package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// Unrecorded says which containers no record tells enough of: to put back what they
// need after a flush, or to know whether their bridge was closed. Those of the network closed,
// whose guard is in place by its configuration, are in own. Where each bridge that libnet
// made is of a network with a record, it lists no other links: its cost does not grow with
// the number of containers.
func (k *Book) Unrecorded(ctx context.Context, closed string) (own, others error) {
	orphans, err := k.Networks.Orphans()
	errs := []error{err}
	for _, name := range orphans {
		errs = append(errs, fmt.Errorf("network %q has containers and no record: lnctl repair writes it", name))
	}
	made, err := k.Bridges.Bridges(ctx, model.OwnerPrefix)
	made = slices.DeleteFunc(made, func(o link.Owned) bool {
		name, ok := model.ParseNetworkOwner(o.Owner)
		return !ok || k.Networks.Recorded(name)
	})
	if errs = append(errs, err); len(made) == 0 {
		return errors.Join(errs...), nil
	}
	links, err := k.Links.List(ctx, model.OwnerPrefix)
	errs = append(errs, err)
	var open []error
	for _, br := range made {
		for _, o := range links {
			id, ok := model.ParseOwner(o.Owner)
			if !ok || o.Bridge || o.Master != br.Name || k.Networks.Recorded(id.Network) || slices.Contains(orphans, id.Network) {
				continue
			}
			err := fmt.Errorf("bridge %s: no record tells of %s %s in network %q (link %s): lnctl repair writes it", br.Name, id.ContainerID, id.IfName, id.Network, o.Name)
			if id.Network == closed {
				errs = append(errs, err)
			} else {
				open = append(open, fmt.Errorf("%w, and STATUS and ADD of that network close the bridge", err))
			}
			break
		}
	}
	return errors.Join(errs...), errors.Join(open...)
}

// CloseUntold puts in place what the configuration of a network asks of its bridge, as a first
// ADD would, if a link of the network is on the bridge and no record tells of it: records are
// lost, and what closed the bridge may be. Nothing that is closed opens.
func (k *Book) CloseUntold(ctx context.Context, n *plan.Network) error {
	if n.GuardID() == nothing() || !k.hasBridge(ctx, n) {
		return nil
	}
	rules := k.Rules.Of(string(n.Config.Backend))
	if stands, err := k.stands(ctx, n); stands || err != nil {
		return err
	}
	if untold, err := k.untold(ctx, n); !untold || err != nil {
		return err
	}
	g, err := k.Hold(ctx, n, true)
	if err != nil {
		return err
	}
	g.Rules.Exact = firewall.AddOnly
	_, err = rules.Apply(ctx, g.Rules, firewall.Endpoint{})
	return errors.Join(err, g.Free(err == nil, n.Config.Backend))
}

// stands says that the guard of the network's bridge has what the network asks for, and is in
// nf_tables. To look at iptables takes a process.
func (k *Book) stands(ctx context.Context, n *plan.Network) (bool, error) {
	rules := k.Rules.Of(string(n.Config.Backend))
	if rules != k.Rules.NFTables {
		return false, nil
	}
	b, err := k.Index.LockBridge(ctx, n.Config.Bridge, unix.LOCK_SH, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer b.Unlock()
	if !b.Has(state.Guard{Network: n.Name, ID: n.GuardID()}) {
		return false, nil
	}
	want, err := joined(n, b)
	return err == nil && rules.Intact(ctx, want) == nil, err
}

// untold says that a link of the network is on its bridge of which no record tells.
func (k *Book) untold(ctx context.Context, n *plan.Network) (bool, error) {
	links, err := k.Links.List(ctx, model.OwnerPrefix)
	if err != nil {
		return false, err
	}
	for _, o := range links {
		id, ok := model.ParseOwner(o.Owner)
		if !ok || o.Bridge || o.Master != n.Config.Bridge || id.Network != n.Name {
			continue
		}
		_, err := k.Endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
		if state.Missing(err) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

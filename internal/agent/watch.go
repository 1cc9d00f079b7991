package agent

import (
	"context"
	"errors"

	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/returnpath"
	"github.com/libnet-cni/libnet/internal/tunnel"
)

// watch calls changed after each change of the host's links, addresses, routes and
// forwarding that may concern a tunnel or a bridge of any network, until ctx ends. It is
// about the network namespace of the thread that calls it.
func watch(ctx context.Context, changed func()) error {
	w, err := tunnel.Watch(plan.TunnelPrefix)
	if err != nil {
		return err
	}
	defer w.Close()
	return w.Run(ctx, changed)
}

// watchRules calls removed whenever something of our nftables rules has been
// removed, by whomever, until ctx ends. It is about the network namespace of the
// thread that calls it.
func watchRules(ctx context.Context, removed func()) error {
	w, err := nft.Watch()
	if err != nil {
		return err
	}
	defer w.Close()
	return w.Run(ctx, removed)
}

// watchTable is watchRules for other tables of ours, of this name.
func watchTable(ctx context.Context, name string, removed func()) error {
	w, err := nft.WatchTable(name, false, nil)
	if err != nil {
		return err
	}
	defer w.Close()
	return w.Run(ctx, removed)
}

// watchReturns calls removed whenever a rule of the routing policy that belongs to return paths has
// been removed, by whomever, until ctx ends. It is about the network namespace of the thread that
// calls it.
func watchReturns(ctx context.Context, removed func()) error {
	w, err := returnpath.Watch()
	if err != nil {
		return err
	}
	defer w.Close()
	return w.Run(ctx, removed)
}

// Instance tells this host's network namespace from every other one, and from
// what it was before the last boot.
func Instance() (string, error) {
	boot, err := life.BootID()
	if err != nil {
		return "", err
	}
	ns, err := netns.Current()
	if err != nil {
		return "", err
	}
	id, err := ns.ID()
	if err := errors.Join(err, ns.Close()); err != nil {
		return "", err
	}
	return boot + "/" + life.NetnsID(id).String(), nil
}

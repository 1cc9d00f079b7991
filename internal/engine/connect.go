package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/tunnel"
)

// Connected is what Connect did.
type Connected struct {
	MTU int // of the tunnel, in bytes
	// Peers are the network's other hosts; Lacking counts those of them that
	// cannot be reached from here.
	Peers, Lacking int
	// Up: the tunnel is there. Created: it was not.
	Up, Created bool
	// Changes counts the tunnel's entries that were added or deleted.
	Changes int
	// Dropped are the gateway addresses of blocks that this host has no more:
	// containers in them are cut off.
	Dropped []netip.Prefix
	// Restored: the rules were gone, or not whole, and with them those of the
	// network's endpoints. They are there again.
	Restored bool
}

// Connect makes the tunnel of a network and its rules, or brings them to what
// the configuration says. It is for an agent, which comes again whenever
// something changed: what fails keeps nothing else from being done, and is
// joined in the error.
func (n *Network) Connect(ctx context.Context) (done Connected, err error) {
	leave, err := n.c.enter()
	if err != nil {
		return done, err
	}
	defer leave(&err)
	n = n.own()
	t := n.config.Tunnel
	if !t.Used() {
		return Connected{}, model.BadConfig("nodes", "missing", "want the addresses of the network's hosts")
	}
	done.Peers = len(t.Nodes) - 1
	done.Lacking = done.Peers
	if err := n.resolveMTU(); err != nil {
		return done, err
	}
	done.MTU = n.config.MTU
	// A block that is another host's now: its addresses here would keep this
	// host from leading there.
	dropped, err := n.c.bridges.DropAddrs(ctx, n.config.Bridge, model.NetworkOwner(n.name), t.Reach(), t.Blocks())
	done.Dropped = dropped
	errs := []error{err}
	rules := n.c.rulesOf(string(n.config.Backend))
	lacks := rules.Intact(ctx, firewall.Network{})
	done.Restored = errors.Is(lacks, firewall.ErrMissing) || errors.Is(lacks, firewall.ErrChanged)
	if err := n.applyNetworkRules(ctx); err != nil {
		return done, errors.Join(append(errs, err)...) // the tunnel is never without its rules
	}
	if done.Restored {
		_, err := n.c.Repair(ctx)
		errs = append(errs, err)
	}
	plan := n.planTunnel()
	made, err := n.c.tunnels.MendTunnel(ctx, plan)
	if errors.Is(err, tunnel.ErrVNIInUse) || errors.Is(err, tunnel.ErrRouteConflict) {
		if cleared, clearErr := n.clearWay(ctx); cleared {
			made, err = n.c.tunnels.MendTunnel(ctx, plan)
		} else {
			errs = append(errs, clearErr)
		}
	}
	err = n.tunnelConflict(plan, err)
	done.Up, done.Created, done.Changes, done.Lacking = made.Up, made.Created, made.Changes, made.Lacking
	return done, errors.Join(append(errs, err)...)
}

// tunnelConflict says of an error about a tunnel which key is to be changed, if
// it is about one.
func (n *Network) tunnelConflict(t tunnel.Tunnel, err error) error {
	switch {
	case errors.Is(err, tunnel.ErrVNIInUse):
		return n.vniInUse(t)
	case errors.Is(err, tunnel.ErrPortInUse):
		if inUse := n.portInUse(t); inUse != nil {
			return inUse
		}
	}
	return err
}

// portInUse is a *ConfigError that names the owner of the tunnel's UDP port; nil if
// the tunnel can have it.
func (n *Network) portInUse(t tunnel.Tunnel) error {
	user, err := n.c.tunnels.PortUser(t.Local, t.Port)
	if err != nil || user == "" {
		return err
	}
	return model.BadConfig("port", t.Port, fmt.Sprintf("UDP port is in use (by %s): free it, or give this network another port, on every host", user))
}

func (n *Network) vniInUse(t tunnel.Tunnel) error {
	return model.BadConfig("vni", t.VNI, fmt.Sprintf("another VXLAN device of this host has it on UDP port %d: give this network another vni or port, on every host", t.Port))
}

// Disconnect takes away what Connect made, and the node file. The rules stay
// while the network has endpoints.
func (n *Network) Disconnect(ctx context.Context) (err error) {
	leave, err := n.c.enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	return errors.Join(n.c.DeleteNodeFile(n.name), n.removeTunnel(ctx), n.retireTunnel(ctx))
}

// Watch calls changed after each change of the host's links, addresses and
// routes that may concern a tunnel of any network, until ctx ends. It is about
// the network namespace of the thread that calls it.
func Watch(ctx context.Context, changed func()) error {
	w, err := tunnel.Watch(tunnelPrefix)
	if err != nil {
		return err
	}
	defer w.Close()
	return w.Run(ctx, changed)
}

// WatchRules calls removed whenever something of our nftables rules has been
// removed, by whomever, until ctx ends. It is about the network namespace of the
// thread that calls it.
func WatchRules(ctx context.Context, removed func()) error {
	w, err := nft.Watch()
	if err != nil {
		return err
	}
	defer w.Close()
	return w.Run(ctx, removed)
}

// Instance tells this host's network namespace from every other one, and from
// what it was before the last boot.
func Instance() (string, error) {
	boot, err := BootID()
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
	return boot + "/" + NetnsID(id).token(), nil
}

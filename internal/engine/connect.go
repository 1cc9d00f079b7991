package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/tunnel"
	"github.com/libnet-cni/libnet/internal/unwind"
	"github.com/libnet-cni/libnet/internal/wireguard"
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
	leave, err := n.c.Enter()
	if err != nil {
		return done, err
	}
	defer leave(&err)
	n = n.own()
	t := n.def.Config.Tunnel
	if !t.Used() {
		return Connected{}, model.BadConfig("nodes", "missing", "want the addresses of the network's hosts")
	}
	done.Peers = len(t.Nodes) - 1
	done.Lacking = done.Peers
	if err := n.resolveMTU(); err != nil {
		return done, err
	}
	done.MTU = n.def.Config.MTU
	// A block that is another host's now: its addresses here would keep this
	// host from leading there.
	dropped, err := n.c.bridges.DropAddrs(ctx, n.def.Config.Bridge, model.NetworkOwner(n.def.Name), t.Reach(), t.Blocks())
	done.Dropped = dropped
	errs := []error{err}
	rules := n.c.rules.Of(string(n.def.Config.Backend))
	lacks := rules.Intact(ctx, firewall.Network{})
	done.Restored = errors.Is(lacks, firewall.ErrMissing) || errors.Is(lacks, firewall.ErrChanged)
	if err := n.c.book().ApplyNetwork(ctx, n.Plan()); err != nil {
		return done, errors.Join(append(errs, err)...) // the tunnel is never without its rules
	}
	if done.Restored {
		_, err := n.c.Repair(ctx)
		errs = append(errs, err)
	}
	errs = append(errs, n.connectAll(ctx, &done))
	return done, errors.Join(errs...)
}

// connectAll mends the network's devices, the newer first, to which routes move from the older
// one. A device that it does not have any more goes at last.
func (n *Network) connectAll(ctx context.Context, done *Connected) error {
	all, err := n.tunnels()
	if err != nil {
		return err
	}
	var errs []error
	done.Up, done.Lacking = len(all) > 0, 0
	for _, t := range all {
		made, err := n.c.tunnels.MendTunnel(ctx, t)
		if errors.Is(err, tunnel.ErrVNIInUse) || errors.Is(err, tunnel.ErrRouteConflict) {
			if cleared, clearErr := n.clearWay(ctx); cleared {
				made, err = n.c.tunnels.MendTunnel(ctx, t)
			} else {
				errs = append(errs, clearErr)
			}
		}
		if made.Created {
			err = errors.Join(err, n.hastenTunnel(ctx))
		}
		errs = append(errs, n.tunnelConflict(t, err))
		done.Up, done.Created = done.Up && made.Up, done.Created || made.Created
		done.Changes, done.Lacking = done.Changes+made.Changes, max(done.Lacking, made.Lacking)
	}
	if done.Changes > 0 { // flows may lead to the address that a host had
		errs = append(errs, n.c.shortcuts.Changed())
	}
	if n.Plan().SpareTunnel() == "" {
		return errors.Join(errs...)
	}
	done.Lacking = max(done.Lacking, n.keyless())
	for _, name := range []string{n.Plan().TunnelName(), n.Plan().SpareTunnel()} {
		if !slices.ContainsFunc(all, func(t tunnel.Tunnel) bool { return t.Name == name }) {
			errs = append(errs, n.c.tunnels.RemoveTunnel(ctx, name, model.NetworkOwner(n.def.Name)))
		}
	}
	return errors.Join(errs...)
}

// keyless is how many other hosts this one has no key of by which it could send there.
func (n *Network) keyless() (count int) {
	t := n.def.Config.Tunnel
	for _, node := range t.Nodes {
		if node.Address != t.Self && (!slices.Contains(t.Epochs, node.Epoch) || node.KeyOf(node.Epoch).PublicKey.IsZero()) {
			count++
		}
	}
	return count
}

// tunnelConflict says of an error about a tunnel which key is to be changed, if
// it is about one.
func (n *Network) tunnelConflict(t tunnel.Tunnel, err error) error {
	switch {
	case errors.Is(err, tunnel.ErrNoWireGuard):
		return n.noWireGuard(err)
	case errors.Is(err, tunnel.ErrOtherKey):
		return n.otherKey(err)
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
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	return errors.Join(n.c.DeleteNodeFile(n.def.Name), n.span().remove(ctx, n), n.retireTunnel(ctx))
}

// clearWay dissolves networks of this host that stand in the way of this one's
// tunnel and have no attachment any more: those that span hosts and overlap it,
// or have its VNI. Such a network is what is left of one that got another name,
// or another subnet, since its last container went. One that has attachments, or
// that an agent keeps, is named in the error.
func (n *Network) clearWay(ctx context.Context) (cleared bool, err error) {
	recs, err := n.c.networks.Networks()
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside
	}
	errs := []error{err}
	for _, rec := range recs {
		if rec.Name == n.def.Name || rec.Driver != plan.DriverOverlay {
			continue
		}
		other, err := n.c.networkOf(rec)
		if err != nil || !n.rivals(other) {
			errs = append(errs, err)
			continue
		}
		kept, err := other.agentKeeps()
		if err == nil && !kept {
			kept = true // until it is alone
			err = n.c.endpoints.Alone(ctx, other.def.Name, func() error {
				kept = false
				return other.dissolveAlone(ctx)
			})
			if errors.Is(err, state.ErrInUse) {
				err = nil
			}
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("network %q: %w", other.def.Name, err))
		case kept:
			errs = append(errs, fmt.Errorf("network %q of this host stands in the way: it has containers, or ln-agent keeps it (see lnctl network ls, ln-agent leave)", other.def.Name))
		default:
			cleared = true
		}
	}
	return cleared, errors.Join(errs...)
}

// rivals says that two networks cannot both have a tunnel.
func (n *Network) rivals(other *Network) bool {
	t, o := n.def.Config.Tunnel, other.def.Config.Tunnel
	if t.Encrypted() == o.Encrypted() && t.Port == o.Port && (t.Encrypted() || t.VNIOf(n.def.Name) == o.VNIOf(other.def.Name)) {
		return true
	}
	return slices.ContainsFunc(t.Reach(), func(p netip.Prefix) bool { return slices.ContainsFunc(o.Reach(), p.Overlaps) })
}

// tunnels are the plans of the network's devices with what is of this host alone: the private
// keys, which no record has. The error is a *wireguard.KeyFileError.
func (n *Network) tunnels() ([]tunnel.Tunnel, error) {
	c := n.def.Config.Tunnel
	all := n.Plan().Tunnels()
	for i, t := range all {
		if t.Secure == nil {
			continue
		}
		path := c.PrivateKeyFile
		if c.Agent {
			path = wireguard.KeyPath(n.c.stateDir, n.def.Name, c.Epochs[i])
		}
		key, err := wireguard.ReadKeyFile(path)
		if c.Agent && errors.Is(err, wireguard.ErrNoKeyFile) {
			return nil, &nodefile.NotReadyError{Network: n.def.Name, File: path, Why: "is missing"}
		}
		if err != nil {
			return nil, err
		}
		t.Secure.PrivateKey, t.Secure.Socket = key, wireguard.SocketPath(n.c.stateDir, t.Name)
	}
	return all, nil
}

// ready refuses a private key that cannot be used.
func (manyHosts) ready(n *Network) error {
	if !n.def.Config.Tunnel.Encrypted() {
		return nil
	}
	_, err := n.tunnels()
	return err
}

// secureStatus says why no packet of an encrypted network could leave this host.
func (n *Network) secureStatus() error {
	all, err := n.tunnels()
	errs := []error{err}
	for _, t := range all {
		has, err := n.hasDevice(t.Name)
		if err == nil && !has {
			if err = n.noWireGuard(n.c.tunnels.CanEncrypt(t.Name)); err == nil {
				err = n.portInUse(t)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// noWireGuard says what to do where the kernel has no WireGuard.
func (n *Network) noWireGuard(err error) error {
	if !errors.Is(err, tunnel.ErrNoWireGuard) {
		return err
	}
	if n.def.Config.Tunnel.Agent {
		return &model.UnsupportedError{Key: "encryption", Value: `"wireguard"`, Err: fmt.Errorf(
			"%w: load its module wireguard, or see the log of ln-agent, which then runs wireguard-go", tunnel.ErrNoWireGuard)}
	}
	return &model.UnsupportedError{Key: "encryption", Value: `"wireguard"`, Err: fmt.Errorf(
		"%w: load its module wireguard, or run \"ln-agent wireguard\", which has wireguard-go make %s", tunnel.ErrNoWireGuard, n.Plan().TunnelName())}
}

// otherKey says in which key of the configuration the public key stands that is not this
// host's.
func (n *Network) otherKey(err error) error {
	t := n.def.Config.Tunnel
	if t.Agent {
		return fmt.Errorf("%w: ln-agent tells them of this one", err)
	}
	return &wireguard.KeyFileError{Path: t.PrivateKeyFile, Err: fmt.Errorf("%w as the publicKey of %s in nodes", err, t.Self)}
}

// Secrets are the peers of the device that a network has for an epoch of keys, as an agent keeps
// it. Without a device there are none.
func (c *Controller) Secrets(network string, epoch int) (_ []wireguard.Peer, err error) {
	leave, err := c.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	name := plan.EpochTunnel(network, epoch)
	s, err := c.tunnels.SecureState(name, wireguard.SocketPath(c.stateDir, name))
	if errors.Is(err, netlink.ErrNotFound) {
		return nil, nil
	}
	return s.Peers, err
}

// Renew makes a peer of such a device anew: whatever was with it begins at once again.
func (c *Controller) Renew(network string, epoch int, p wireguard.Peer) (err error) {
	leave, err := c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	name := plan.EpochTunnel(network, epoch)
	return c.tunnels.ChangeSecure(name, wireguard.SocketPath(c.stateDir, name), wireguard.Change{Remove: []wireguard.Key{p.PublicKey}, Set: []wireguard.Peer{p}})
}

// Retunnel makes the tunnel of a network and its rules, or mends them, by the network's
// record; without one there is nothing to be done. It is for an agent that has just made the
// device.
func (c *Controller) Retunnel(ctx context.Context, network string) (err error) {
	leave, err := c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	// As an attachment would: the network is not removed meanwhile.
	release, err := c.endpoints.Own(ctx, network, "", "", state.OnlyExisting)
	if err != nil {
		return err
	}
	defer release()
	n, err := c.Network(network)
	if errors.Is(err, model.ErrNotFound) {
		return nil
	}
	if err != nil || n.def.Driver != plan.DriverOverlay || !n.def.Config.Tunnel.Used() {
		return err
	}
	if err := n.resolveMTU(); err != nil {
		return err
	}
	var undo unwind.Stack
	defer undo.Rollback(&err)
	if err := n.span().ensure(ctx, n, &undo); err != nil {
		return err
	}
	return n.repairTunnelRules(ctx)
}

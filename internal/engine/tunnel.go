package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/tunnel"
	"github.com/libnet-cni/libnet/internal/unwind"
)

// span is what a network's reach, one host or many, makes of the steps. The program of a
// Controller without SpansHosts does not link the steps of many hosts: nothing else refers to them.
type span interface {
	// trust has the next steps do without the network's other hosts, if it can.
	trust(*Network) error
	// ready refuses what cannot be used before anything is changed.
	ready(*Network) error
	// note has later calls trust what this one has left; mtu is what became of the network's.
	note(n *Network, mtu int)
	// holds says whether this host may still give the addresses out.
	holds(*Network, []model.Address) error
	resolveMTU(*Network) error
	ensure(context.Context, *Network, *unwind.Stack) error
	verify(context.Context, *Network) error
	status(*Network) error
	remove(context.Context, *Network) error
}

// oneHost is the span of a network without a tunnel, or whose tunnel is left to other programs.
type oneHost struct{}

func (oneHost) trust(*Network) error                                  { return nil }
func (oneHost) ready(*Network) error                                  { return nil }
func (oneHost) note(*Network, int)                                    {}
func (oneHost) holds(*Network, []model.Address) error                 { return nil }
func (oneHost) resolveMTU(n *Network) error                           { return n.resolveUplinkMTU() }
func (oneHost) ensure(context.Context, *Network, *unwind.Stack) error { return nil }
func (oneHost) verify(context.Context, *Network) error                { return nil }
func (oneHost) status(*Network) error                                 { return nil }
func (oneHost) remove(context.Context, *Network) error                { return nil }

// manyHosts is the span of a network with a tunnel.
type manyHosts struct{}

// SpansHosts has the Controller make networks that span hosts, and mend their tunnels. Without
// it such networks are refused, and tunnels that are there stay as they are: bridge-ln and
// portmap-ln leave them to overlay-ln, ln-agent and lnctl, and are up to 0.4 MB smaller.
func SpansHosts() Option {
	return func(o *options) {
		o.spansHosts = func(c *Controller, h *kernel.Handle) { c.tunnels, c.many = h.Tunnels(), manyHosts{} }
	}
}

func (n *Network) span() span {
	if n.def.Driver != plan.DriverOverlay || n.c.many == nil {
		return oneHost{}
	}
	return n.c.many
}

// ensure makes the network's tunnel, whose rules are there already, or
// mends it, pushing how to undo what it made. Of one that an agent keeps only a
// missing device is made: what we know of its entries may be old by now.
func (manyHosts) ensure(ctx context.Context, n *Network, undo *unwind.Stack) error {
	if n.hosts.seen != nil {
		return nil
	}
	if !n.def.Config.Tunnel.Used() {
		return model.BadConfig("nodes", "missing", "want the addresses of the network's hosts")
	}
	agent := n.def.Config.Tunnel.Agent
	if agent {
		if has, err := n.hasDevices(); has || err != nil {
			return err
		}
		full, err := n.withPeers()
		if err == nil {
			err = full.c.book().ApplyNetwork(ctx, full.Plan())
		}
		if err != nil {
			return err
		}
		n = full
	}
	all, err := n.tunnels()
	if err != nil {
		return err
	}
	for _, t := range all {
		if agent && len(all) > 1 { // one of them may be as the agent wants it
			if has, err := n.hasDevice(t.Name); err != nil {
				return err
			} else if has {
				continue
			}
		}
		if err := n.ensureDevice(ctx, t, undo); err != nil {
			return err
		}
	}
	return nil
}

// ensureDevice makes one of the network's devices, or mends it.
func (n *Network) ensureDevice(ctx context.Context, t tunnel.Tunnel, undo *unwind.Stack) error {
	created, err := n.c.tunnels.EnsureTunnel(ctx, t)
	var rival error
	if errors.Is(err, tunnel.ErrVNIInUse) || errors.Is(err, tunnel.ErrRouteConflict) {
		var cleared bool
		if cleared, rival = n.clearWay(ctx); cleared {
			created, err = n.c.tunnels.EnsureTunnel(ctx, t)
		}
	}
	err = n.tunnelConflict(t, err)
	if errors.Is(err, tunnel.ErrRouteConflict) {
		return n.inTheWay(ctx, err, rival)
	}
	if err != nil {
		return errors.Join(err, rival)
	}
	if created {
		undo.Push(func() error {
			return n.c.tunnels.RemoveTunnel(context.WithoutCancel(ctx), t.Name, model.NetworkOwner(n.def.Name))
		})
		err = n.hastenTunnel(ctx)
	}
	return err
}

// shutOutFormerHosts takes hosts that the configuration names no more out of the rules
// that let packets in by the tunnel. An agent does that for the networks that it keeps.
// It comes before the record is written: after a kill in between the next ADD does it.
func (n *Network) shutOutFormerHosts(ctx context.Context) error {
	if n.def.Driver != plan.DriverOverlay || n.def.Config.Tunnel.Agent {
		return nil
	}
	return n.c.book().ApplyNetwork(ctx, n.Plan())
}

// inTheWay names the network whose tunnel has a route that this one needs, or says
// what clearWay found instead.
func (n *Network) inTheWay(ctx context.Context, conflict, rival error) error {
	networks, _ := n.c.Networks(ctx) // of what cannot be read nothing is said
	for _, other := range networks {
		if other.def.Name == n.def.Name || other.def.Driver != plan.DriverOverlay {
			continue
		}
		for _, block := range other.def.Config.Tunnel.Blocks() {
			if slices.ContainsFunc(n.def.Config.Tunnel.Blocks(), block.Overlaps) {
				return fmt.Errorf("%w: of network %q, which has %s, too; if it has no container any more: lnctl network rm %s", conflict, other.def.Name, block, other.def.Name)
			}
		}
	}
	return errors.Join(conflict, rival)
}

func (manyHosts) remove(ctx context.Context, n *Network) error {
	var errs []error
	for _, name := range n.Plan().TunnelNames() { // the configuration may have had another encryption
		errs = append(errs, n.c.tunnels.RemoveTunnel(ctx, name, model.NetworkOwner(n.def.Name)))
	}
	if t := n.def.Config.Tunnel; t.Agent {
		errs = append(errs, n.c.tunnels.RemoveDirect(ctx, t.Reach()))
	}
	return errors.Join(append(errs, n.c.shortcuts.Sweep(ctx))...)
}

// hasTunnel says that one of the network's devices is there.
func (n *Network) hasTunnel() (bool, error) {
	if n.def.Driver != plan.DriverOverlay {
		return false, nil
	}
	for _, name := range []string{n.Plan().TunnelName(), n.Plan().SpareTunnel()} {
		if name == "" {
			continue
		}
		has, err := n.hasDevice(name)
		if errors.Is(err, netlink.ErrExists) {
			continue
		}
		if has || err != nil {
			return has, err
		}
	}
	return false, nil
}

func (n *Network) hasDevice(name string) (bool, error) {
	return n.c.basis.HasTunnel(name, model.NetworkOwner(n.def.Name))
}

// hasDevices says that all devices are there which the network of an agent has.
func (n *Network) hasDevices() (bool, error) {
	t := n.def.Config.Tunnel
	if !t.Encrypted() {
		return n.hasDevice(n.Plan().TunnelName())
	}
	for _, epoch := range t.Epochs {
		if has, err := n.hasDevice(plan.EpochTunnel(n.def.Name, epoch)); !has || err != nil {
			return false, err
		}
	}
	return len(t.Epochs) > 0, nil // else the node file tells
}

// status says whether the tunnel's name is held by something else, or, if
// it is not there yet, its UDP port.
func (manyHosts) status(n *Network) error {
	has, err := n.hasDevice(n.Plan().TunnelName())
	if err != nil || !n.def.Config.Tunnel.Used() {
		return err
	}
	if n.def.Config.Tunnel.Encrypted() {
		return n.secureStatus()
	}
	if has {
		return nil
	}
	return n.portInUse(n.Plan().Tunnel())
}

func (manyHosts) verify(ctx context.Context, n *Network) error {
	if !n.def.Config.Tunnel.Used() {
		return nil
	}
	n, err := n.withPeers()
	if err != nil {
		return err
	}
	all, err := n.tunnels()
	errs := []error{err}
	for _, t := range all {
		errs = append(errs, n.c.tunnels.VerifyTunnel(ctx, t))
	}
	return errors.Join(errs...)
}

// repairTunnelRules puts the network's own rules in place while it has a tunnel:
// they outlive its attachments.
func (n *Network) repairTunnelRules(ctx context.Context) error {
	has, err := n.hasTunnel()
	if !has || err != nil {
		return err
	}
	if n, err = n.withPeers(); err != nil {
		return err
	}
	if err := n.c.book().ApplyNetwork(ctx, n.Plan()); err != nil && !errors.Is(err, firewall.ErrUnsupported) {
		return fmt.Errorf("network %q: %w", n.def.Name, err)
	}
	return nil
}

// resolveMTU turns AutoMTU into a number, by the routes to the peers.
func (manyHosts) resolveMTU(n *Network) error {
	t := n.def.Config.Tunnel
	if !t.Used() {
		return n.resolveUplinkMTU()
	}
	if n.hosts.seen != nil {
		n.def.Config.MTU = n.hosts.seen.MTU
		return nil
	}
	var peers []netip.Addr
	for _, node := range t.Nodes {
		if node.Address != t.Self {
			peers = append(peers, node.Address)
		}
	}
	path, err := n.c.basis.PathMTU(t.Self, peers, t.Device)
	if err != nil {
		return fmt.Errorf("MTU of the way to the network's hosts: %w", err)
	}
	mtu, least := t.MTU(path), 68
	if slices.ContainsFunc(t.Blocks(), func(b netip.Prefix) bool { return b.Addr().Is6() }) {
		least = 1280
	}
	if mtu < least {
		return model.BadConfig("mtu", "auto", fmt.Sprintf("the way to the network's hosts has MTU %d, which leaves %d inside; at least %d are needed (IPv6: 1280)", path, mtu, least))
	}
	if t.DirectRouting { // where a packet goes by the tunnel, this host says how large it may be
		mtu = path
	}
	n.def.Config.MTU = min(mtu, 65535)
	return nil
}

// completeTunnel fills in what follows from the driver.
func (s *networkSpec) completeTunnel(name string) {
	s.config.Gateway = true // the way to other hosts is a route
	t := &s.config.Tunnel
	if !t.Used() {
		return
	}
	t.VNI, t.Port = t.VNIOf(name), t.PortOf(name)
	if s.config.Backend == "" || s.config.Backend == model.BackendAuto {
		s.config.Backend = model.BackendNFTables
	}
	if s.ipam == nil && len(s.subnets) == 0 {
		for _, b := range t.Blocks() {
			WithSubnet(b)(s)
		}
	}
}

// NodeFile reads the node file of a network; ErrNotReady if there is none.
func (c *Controller) NodeFile(network string) (nodefile.File, error) {
	return nodefile.Read(c.nodeFiles, c.stateDir, network)
}

// holds is called as the last thing before this host says that an address is given: the
// process may have been stopped for so long that its block is another host's.
func (manyHosts) holds(n *Network, addrs []model.Address) error {
	if !n.def.Config.Tunnel.Agent {
		return nil
	}
	f, err := nodefile.ReadHeadIn(n.c.nodeFiles, n.c.stateDir, n.def.Name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		ours := func(b netip.Prefix) bool { return b.Contains(a.Prefix.Addr()) }
		if !slices.ContainsFunc(f.Blocks, ours) {
			return &nodefile.NotReadyError{Network: n.def.Name, File: nodefile.Path(n.c.stateDir, n.def.Name), Why: "has no block any more that " + a.Prefix.Addr().String() + " is of"}
		}
	}
	return nil
}

// SaveNodeFile writes the node file of a network, unless it is there already.
// The plugins then take addresses out of its blocks.
func (c *Controller) SaveNodeFile(f nodefile.File) (changed bool, err error) {
	data, err := f.Encode()
	if err != nil {
		return false, err
	}
	if before, err := c.nodeFiles.LoadNodes(f.Network); err == nil && bytes.Equal(before, data) {
		return false, nil
	}
	return true, c.nodeFiles.SaveNodes(f.Network, data)
}

// DeleteNodeFile has the plugins give no more addresses of a network. A missing
// file is success.
func (c *Controller) DeleteNodeFile(network string) error { return c.nodeFiles.DeleteNodes(network) }

// NodeFiles returns the names of the networks that have a node file.
func (c *Controller) NodeFiles() ([]string, error) { return c.nodeFiles.NodeFiles() }

// withPeers returns the network with the other hosts: those of the node file, where an agent keeps
// these, or those of a list that was not read.
func (n *Network) withPeers() (*Network, error) {
	if n.hosts.seen != nil {
		full := n.own()
		return full, full.readHosts()
	}
	if !n.def.Config.Tunnel.Agent || len(n.def.Config.Tunnel.Nodes) > 1 {
		return n, nil
	}
	f, err := n.c.NodeFile(n.def.Name)
	if err != nil {
		return nil, err
	}
	full := *n
	t := f.Tunnel()
	if t.Encryption != n.def.Config.Tunnel.Encryption {
		return nil, &nodefile.NotReadyError{Network: n.def.Name, File: nodefile.Path(n.c.stateDir, n.def.Name), Why: "is of a network with another encryption"}
	}
	full.def.Config.Tunnel.Nodes, full.def.Config.Tunnel.Epochs = slices.Clip(t.Nodes), t.Epochs
	return &full, nil
}

// agentKeeps says that the tunnel and its rules are an agent's.
func (n *Network) agentKeeps() (bool, error) {
	if n.def.Driver != plan.DriverOverlay {
		return false, nil
	}
	return n.c.nodeFiles.HasNodes(n.def.Name)
}

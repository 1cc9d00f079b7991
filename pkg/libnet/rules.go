package libnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/state"
)

// ruleset is rules to be applied by one of the backends.
type ruleset struct {
	backend  Backend
	network  firewall.Network
	endpoint firewall.Endpoint
}

// applyRules puts rules in place and returns the backend that holds them, and
// whether it had lost all before. Ports that a dead owner holds are taken.
func (c *Controller) applyRules(ctx context.Context, r ruleset) (used Backend, restored bool, err error) {
	if r.backend != BackendIPTables {
		restored, err = c.applyBy(ctx, c.nftables, r)
		if r.backend == BackendNFTables || !errors.Is(err, firewall.ErrUnsupported) || c.iptables.Available() != nil {
			return BackendNFTables, restored, err
		}
	}
	restored, err = c.applyBy(ctx, c.iptables, r)
	return BackendIPTables, restored, err
}

// maxDead bounds how many dead owners are removed for one attachment.
const maxDead = 100

// clearDead removes the rules of the dead owner that err is about, if it is about
// one: then what failed may be tried again.
func (c *Controller) clearDead(ctx context.Context, err error) (again bool, _ error) {
	var port *PortHeldError
	var addr *AddressHeldError
	owner := ""
	switch {
	case errors.As(err, &port):
		owner = port.Owner
	case errors.As(err, &addr):
		owner = addr.Owner
	default:
		return false, nil
	}
	if dead, err := c.deadOwner(ctx, owner); err != nil || !dead {
		return false, err
	}
	for _, either := range []rules{c.nftables, c.iptables} {
		if !either.Used() {
			continue
		}
		if err := either.Remove(ctx, firewall.Endpoint{Owner: owner}); err != nil {
			return false, err
		}
	}
	return true, nil
}

// applyBy is applyOnce with errors in libnet's terms.
func (c *Controller) applyBy(ctx context.Context, by rules, r ruleset) (restored bool, err error) {
	restored, err = c.applyOnce(ctx, by, r)
	var port *firewall.PortHeldError
	var addr *firewall.HeldError
	switch {
	case errors.As(err, &port):
		return false, &PortHeldError{Owner: port.Owner, Port: port.Port}
	case errors.As(err, &addr):
		return false, &AddressHeldError{Owner: addr.Owner, Rule: addr.Element}
	}
	return restored, err
}

// applyOnce asks the other backend, too, whose ports they are.
func (c *Controller) applyOnce(ctx context.Context, by rules, r ruleset) (restored bool, err error) {
	other := c.iptables
	if by == c.iptables {
		other = c.nftables
	}
	if len(r.endpoint.Ports) > 0 && other.Used() {
		if err := other.CheckPorts(ctx, r.endpoint); err != nil {
			return false, err
		}
	}
	return by.Apply(ctx, r.network, r.endpoint)
}

// deadOwner says whether the owner of a rule is provably gone: its record says
// so, or it has neither record nor link.
func (c *Controller) deadOwner(ctx context.Context, owner string) (bool, error) {
	for _, dir := range []endpointRecords{c.endpoints, c.publications()} {
		rec, err := findOwner(dir, owner)
		if err == nil {
			return c.dead(rec), nil
		}
		if !errors.Is(err, state.ErrNotFound) {
			return false, err
		}
	}
	id, ok := parseOwner(owner)
	if !ok {
		return false, nil // of a publication, or cut: unknown
	}
	links, err := c.links.List(ctx, id.String())
	return len(links) == 0, err
}

// findOwner looks through the records for the one of an owner in the form of
// firewall.Key.
func findOwner(dir endpointRecords, owner string) (state.Endpoint, error) {
	networks, err := dir.EndpointNetworks()
	if err != nil {
		return state.Endpoint{}, err
	}
	for _, network := range networks {
		recs, _ := dir.Endpoints(network) // what cannot be read proves nothing
		for _, rec := range recs {
			id := idOf(rec)
			if firewall.Key(id.String()) == owner || firewall.Key(publicationOwner(id)) == owner {
				return rec, nil
			}
		}
	}
	return state.Endpoint{}, state.ErrNotFound
}

// publish puts rules in place with ports chosen for those that were left open.
func (c *Controller) publish(ctx context.Context, wanted []PortMapping, rules func([]PortMapping) ruleset) (ports []PortMapping, used Backend, restored bool, err error) {
	for range maxChoices {
		if ports, err = choosePorts(c.published, wanted); err != nil {
			return nil, "", false, err
		}
		used, restored, err = c.applyRules(ctx, rules(ports))
		var held *PortHeldError
		if !errors.As(err, &held) || !isChosen(held, wanted) {
			return ports, used, restored, err
		}
	}
	return nil, "", false, err
}

// applyRules puts the endpoint's rules in place, with the guard of its bridge, and
// pushes how to take them back. Fresh says that the bridge had no guard before.
func (e *Endpoint) applyRules(ctx context.Context, p plan, undo *undoStack) (fresh bool, err error) {
	for range maxDead {
		fresh, err = e.applyGuarded(ctx, p, undo)
		if again, clearErr := e.n.c.clearDead(ctx, err); !again {
			return fresh, errors.Join(err, clearErr)
		}
	}
	return fresh, err
}

// applyGuarded is applyRules as long as no other owner stands in the way.
func (e *Endpoint) applyGuarded(ctx context.Context, p plan, undo *undoStack) (fresh bool, err error) {
	c := e.n.c
	g, err := e.n.holdGuard(ctx, p.rules)
	if err != nil {
		return false, err
	}
	if !p.rules {
		return false, e.applyOthers(ctx, g)
	}
	ports, used, restored, err := c.publish(ctx, e.Ports(), func(ports []PortMapping) ruleset {
		p.endpoint.Ports = firewallPorts(ports)
		return ruleset{e.n.config.Backend, g.rules, p.endpoint}
	})
	undo.push(func() error {
		ctx := context.WithoutCancel(ctx)
		return errors.Join(e.n.removeRules(ctx, e.rec), e.n.leaveGuard(ctx, e.rec))
	})
	if err = errors.Join(err, g.free(err == nil, used)); err != nil {
		return false, err
	}
	e.rec.Ports, e.rec.Backend = savedPorts(ports), string(used)
	if restored {
		e.restored = true
		return g.fresh, c.repairGuards(ctx)
	}
	return g.fresh, nil
}

// applyOthers has the guard in place that others have on the bridge of an endpoint
// without rules. After a flush all rules come back, as with any other endpoint.
func (e *Endpoint) applyOthers(ctx context.Context, g guarded) error {
	c := e.n.c
	if err := g.free(true, e.n.config.Backend); err != nil || !g.shared {
		return err
	}
	restored, err := c.repairGuard(ctx, e.n.config.Bridge)
	if err != nil || !restored {
		return err
	}
	e.restored = true
	return c.repairGuards(ctx)
}

// openLocalhost has 127.0.0.0/8 lead to published ports, once the bridge is there.
func (e *Endpoint) openLocalhost(p plan) error {
	if !p.localnet {
		return nil
	}
	_, err := e.n.c.published.SetRouteLocalnet(e.rec.Bridge, true)
	return err
}

// isChosen says that another choice can help: a port that is held is none of
// those asked for by number.
func isChosen(held *PortHeldError, asked []PortMapping) bool {
	free := false
	for _, m := range asked {
		free = free || m.HostPort == 0
		if m.HostPort != 0 && held.Port == m.firewall().String() {
			return false
		}
	}
	return free
}

// reapply puts the rules of an attachment in place by the backend that holds them.
// The network may have another bridge by now than the attachment.
func (e *Endpoint) reapply(ctx context.Context) error {
	if e.rec.Bridge != "" && e.rec.Bridge != e.n.config.Bridge {
		at := *e.n
		at.config.Bridge = e.rec.Bridge
		e.n = &at
	}
	p, err := e.plan()
	if err != nil || !p.rules {
		return err
	}
	network, err := e.n.verifiable(ctx, e.rec)
	if err != nil {
		return err
	}
	_, err = e.n.c.applyBy(ctx, e.n.c.rulesOf(e.rec.Backend), ruleset{network: network, endpoint: p.endpoint})
	return err
}

// removeRules removes an endpoint's rules.
func (n *Network) removeRules(ctx context.Context, rec state.Endpoint) error {
	if !rec.Rules {
		return nil
	}
	return n.c.removeBy(ctx, rec.Backend, n.config.Backend, n.heldBy(rec))
}

// tables owns nothing: what is removed of it is our tables, if nothing is in them.
func (n *Network) tables() firewall.Network {
	return firewall.Network{Name: networkOwner(n.name), Exact: firewall.ExactBridge}
}

// retireRules removes the rules of an endpoint that goes. With the last one of the
// network our tables go in the same transaction if nothing else is in them, as the
// kernel takes its time for each one that deletes something.
func (n *Network) retireRules(ctx context.Context, rec state.Endpoint) error {
	has, err := n.c.endpoints.HasEndpoint(n.name, rec)
	if has || err != nil || !rec.Rules {
		return errors.Join(err, n.removeRules(ctx, rec))
	}
	if publishesLocalhost(portsOf(rec)) {
		if err := n.c.closeLocalhost(ctx, rec); err != nil {
			return err
		}
	}
	return n.c.removeLastBy(ctx, rec.Backend, n.config.Backend, n.tables(), n.heldBy(rec))
}

// heldBy says by what an endpoint's rules are found: where the record does not
// tell, by their comment.
func (n *Network) heldBy(rec state.Endpoint) firewall.Endpoint {
	fw := firewall.Endpoint{Owner: idOf(rec).String(), Port: rec.HostName, Tunnel: n.tunnelName()}
	if rec.Phase == state.PhaseReady {
		fw.Bridge, fw.Addrs, fw.Ports = rec.Bridge, addrsOf(rec), firewallPorts(portsOf(rec))
		fw.MAC, _ = net.ParseMAC(rec.MAC)
	}
	return fw
}

func addrsOf(rec state.Endpoint) []netip.Addr {
	all := []netip.Addr{}
	for _, a := range rec.Addresses {
		all = append(all, a.Prefix.Addr())
	}
	return all
}

// endFlows ends what conntrack knows of connections by the ports of an
// attachment that went elsewhere before it had them, and of those to targets.
func (c *Controller) endFlows(ctx context.Context, rec state.Endpoint, targets []netip.Addr) error {
	if len(rec.Ports) == 0 {
		return nil
	}
	filter := conntrack.Filter{Targets: targets}
	for _, m := range portsOf(rec) {
		if protocols[m.Protocol] == firewall.TCP || m.HostPort == 0 {
			continue // a TCP client begins anew, and others use the port elsewhere; 0 was not chosen yet
		}
		filter.Flows = append(filter.Flows, conntrack.Flow{
			Protocol: uint8(protocols[m.Protocol]), HostIP: m.HostIP, First: uint16(m.HostPort), Last: uint16(m.HostPortEnd),
		})
	}
	if err := c.flush(ctx, filter); err != nil && !errors.Is(err, conntrack.ErrUnsupported) {
		return fmt.Errorf("flush connections by published ports: %w", err)
	}
	return nil
}

// endEarlier ends what conntrack knows of connections to the addresses of an
// endpoint from before its bridge led to them, which its rules would let in.
func (c *Controller) endEarlier(ctx context.Context, p plan) error {
	if !p.v4 && !p.v6 {
		return nil // the host does not lead there
	}
	err := c.flush(ctx, conntrack.Filter{Targets: p.endpoint.Addrs})
	if err != nil && !errors.Is(err, conntrack.ErrUnsupported) {
		return fmt.Errorf("flush connections from before: %w", err)
	}
	return nil
}

// retireTunnel removes the rules of the network's tunnel, which is gone, unless it
// has endpoints.
func (n *Network) retireTunnel(ctx context.Context) error {
	err := n.c.endpoints.Alone(ctx, n.name, func() error {
		return errors.Join(n.c.removeNetworkBy(ctx, "", n.config.Backend, firewall.Network{Name: networkOwner(n.name)}), n.dropGuard(ctx, state.Endpoint{Bridge: n.config.Bridge}))
	})
	if errors.Is(err, state.ErrInUse) {
		return nil
	}
	return err
}

// hasLocalhost says that another endpoint than gone, or a publication, has a port
// that 127.0.0.0/8 leads to by gone's bridge, the guards of which are b, if any.
func (c *Controller) hasLocalhost(b bridgeGuards, gone state.Endpoint) (bool, error) {
	opens := func(rec state.Endpoint) bool {
		same := idOf(rec) == idOf(gone) && rec.HostName == gone.HostName // of a publication that is empty
		return rec.Bridge == gone.Bridge && !same && publishesLocalhost(portsOf(rec))
	}
	recs, err := c.publicationRecords()
	if slices.ContainsFunc(recs, opens) {
		return true, nil
	}
	names := []string{gone.Network}
	if b != nil {
		all, guardsErr := b.Guards()
		err = errors.Join(err, guardsErr)
		for _, g := range all {
			names = append(names, g.Network)
		}
	}
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside
	}
	for _, name := range names {
		has, endpointsErr := c.endpoints.AnyEndpoint(name, opens)
		if has || endpointsErr != nil {
			return has, endpointsErr
		}
	}
	return false, err
}

// closeLocalhost switches route_localnet of an endpoint's bridge off, unless another
// endpoint or a publication has a port that 127.0.0.0/8 leads to by it. The lock
// keeps those out that are about to have one.
func (c *Controller) closeLocalhost(ctx context.Context, gone state.Endpoint) error {
	b, err := c.guards.LockBridge(ctx, gone.Bridge, unix.LOCK_EX, state.OnlyExisting)
	switch {
	case err == nil:
		defer b.Unlock()
	case !errors.Is(err, state.ErrNotFound):
		return err
	}
	has, err := c.hasLocalhost(b, gone)
	if has || err != nil {
		return err
	}
	_, err = c.published.SetRouteLocalnet(gone.Bridge, false)
	return err
}

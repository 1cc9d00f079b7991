package engine

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/policy"
	"github.com/libnet-cni/libnet/internal/state"
)

// ruleset is rules to be applied by one of the backends.
type ruleset struct {
	backend  model.Backend
	member   *Network // whose rules, with the guard of its bridge, hold; nil: none
	endpoint firewall.Endpoint
	rec      state.Endpoint     // of the attachment; zero: of a network only
	chosen   []firewall.PortMap // ports that were chosen, and can be others
	waits    waitFor
	fresh    bool // the bridge had no guard before
}

// waitFor says whose ports an attachment may wait for.
type waitFor uint8

const (
	waitForContainer waitFor = iota // for those of other attachments of the container
	waitForAny                      // for another container's, too: it waits for them already
)

// applyRules puts rules in place and returns the backend that holds them, and
// whether it had lost all before. Ports that a dead owner holds are taken; for
// those of another attachment of the container r waits: they come into its Standby.
func (c *Controller) applyRules(ctx context.Context, r *ruleset) (used model.Backend, restored bool, err error) {
	if r.backend != model.BackendIPTables {
		restored, err = c.applyBy(ctx, c.nftables, r)
		if r.backend == model.BackendNFTables || !errors.Is(err, firewall.ErrUnsupported) || c.iptables.Available() != nil {
			return model.BackendNFTables, restored, err
		}
	}
	restored, err = c.applyBy(ctx, c.iptables, r)
	return model.BackendIPTables, restored, err
}

// maxDead bounds how many owners of ports are met for one attachment.
const maxDead = 100

func (c *Controller) applyBy(ctx context.Context, by rules, r *ruleset) (restored bool, err error) {
	for range maxDead {
		restored, err = c.applyOnce(ctx, by, r)
		var port *firewall.PortHeldError
		var addr *firewall.HeldError
		switch {
		case errors.As(err, &port):
			settled, settleErr := c.settleHeld(ctx, r, port)
			if settleErr != nil || !settled {
				return false, errors.Join(&PortHeldError{Owner: port.Owner, Port: port.Port, all: port.All}, settleErr)
			}
		case errors.As(err, &addr):
			dead, deadErr := c.takeFromDead(ctx, r.rec, addr.Owner)
			if deadErr != nil || !dead {
				return false, errors.Join(&AddressHeldError{Owner: addr.Owner, Rule: addr.Element}, deadErr)
			}
		default:
			return restored, err
		}
	}
	return restored, err
}

// applyOnce asks the other backend, too, whose ports they are. The guard cannot
// change meanwhile.
func (c *Controller) applyOnce(ctx context.Context, by rules, r *ruleset) (restored bool, err error) {
	other, used := c.iptables, model.BackendNFTables
	if by == c.iptables {
		other, used = c.nftables, model.BackendIPTables
	}
	if len(r.endpoint.Ports) > 0 && other.Used() {
		if err := other.CheckPorts(ctx, r.endpoint); err != nil {
			return false, err
		}
	}
	if r.member == nil {
		return by.Apply(ctx, firewall.Network{}, r.endpoint)
	}
	g, err := r.member.holdFor(ctx, r.rec)
	if err != nil {
		return false, err
	}
	if g.fresh || !policy.Closes(g.rules) { // else connections from the time without rules have to end
		r.endpoint.First = func() bool { return c.isFirst(r.rec) }
	}
	restored, err = by.Apply(ctx, g.rules, r.endpoint)
	r.fresh = r.fresh || g.fresh
	return restored, errors.Join(err, g.free(err == nil, used))
}

// applyRules puts the endpoint's rules in place, with the guard of its bridge, and
// pushes how to take them back. Fresh says that the bridge had no guard before. The
// caller has the lock of lockPorts.
func (e *Endpoint) applyRules(ctx context.Context, p plan, undo *undoStack) (fresh bool, err error) {
	c := e.n.c
	if !p.rules {
		g, err := e.n.holdGuard(ctx, false)
		if err != nil {
			return false, err
		}
		return false, e.applyOthers(ctx, g)
	}
	undo.push(func() error {
		ctx := context.WithoutCancel(ctx)
		return errors.Join(e.n.removeRules(ctx, e.rec), e.n.leaveGuard(ctx, e.rec))
	})
	done, err := c.publish(ctx, e.Ports(), func(ports []PortMapping) ruleset {
		p.endpoint.Ports = firewallPorts(ports)
		return ruleset{backend: e.n.config.Backend, member: e.n, endpoint: p.endpoint, rec: e.rec}
	})
	if err != nil {
		return false, err
	}
	e.rec.Ports, e.rec.Backend = savedPorts(done.ports), string(done.backend)
	if len(e.rec.Ports) > 0 {
		undo.push(func() error { return c.setWaiting(e.rec, nil) })
		if err := c.setWaiting(e.rec, done.standby); err != nil {
			return false, err
		}
	}
	e.standby = done.standby
	if done.restored {
		e.restored = true
		return done.fresh, c.repairGuards(ctx, firewall.AddOnly)
	}
	return done.fresh, nil
}

// applyOthers has the guard in place that others have on the bridge of an endpoint
// without rules. After a flush all rules come back, as with any other endpoint.
func (e *Endpoint) applyOthers(ctx context.Context, g guarded) error {
	c := e.n.c
	if err := g.free(true, e.n.config.Backend); err != nil || !g.shared {
		return err
	}
	restored, err := c.repairGuard(ctx, e.n.config.Bridge, firewall.AddOnly)
	if err != nil || !restored {
		return err
	}
	e.restored = true
	return c.repairGuards(ctx, firewall.AddOnly)
}

// openLocalhost has 127.0.0.0/8 lead to published ports, once the bridge is there.
func (e *Endpoint) openLocalhost(p plan) error {
	if !p.localnet {
		return nil
	}
	_, err := e.n.c.published.SetRouteLocalnet(e.rec.Bridge, true)
	return err
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
	r := ruleset{member: e.n, endpoint: p.endpoint, rec: e.rec}
	restored, err := e.n.c.reapply(ctx, e.rec.Backend, r)
	e.restored = e.restored || restored
	return err
}

// reapply puts the rules of an attachment in place as they were: what it waited
// for it waits for. Restored says that those of others may be gone.
func (c *Controller) reapply(ctx context.Context, backend string, r ruleset) (restored bool, err error) {
	release, err := c.lockPorts(ctx, r.rec)
	if err != nil {
		return false, err
	}
	defer release()
	before, err := c.waiting(r.rec)
	if err != nil {
		return false, err
	}
	r.endpoint.Standby = before
	if restored, err = c.applyBy(ctx, c.rulesOf(backend), &r); err != nil {
		return restored, err
	}
	if len(r.endpoint.Standby) == len(before) {
		return restored, nil
	}
	return restored, c.setWaiting(r.rec, r.endpoint.Standby)
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
	return firewall.Network{Name: model.NetworkOwner(n.name), Guard: guardOwner(""), Exact: firewall.ExactBridge}
}

// retireRules removes the rules of an endpoint that goes. With the last one of the
// network our tables go in the same transaction if nothing else is in them, as the
// kernel takes its time for each one that deletes something.
func (n *Network) retireRules(ctx context.Context, rec state.Endpoint) error {
	if rec.Rules && publishesLocalhost(portsOf(rec)) {
		if err := n.c.closeLocalhost(ctx, rec); err != nil {
			return err
		}
	}
	has, err := n.c.endpoints.HasEndpoint(n.name, rec)
	if has || err != nil || !rec.Rules {
		return errors.Join(err, n.removeRules(ctx, rec))
	}
	return n.c.removeLastBy(ctx, rec.Backend, n.config.Backend, n.tables(), n.heldBy(rec))
}

// heldBy says by what an endpoint's rules are found: where the record does not
// tell, by their comment.
func (n *Network) heldBy(rec state.Endpoint) firewall.Endpoint {
	fw := firewall.Endpoint{Owner: idOf(rec).String(), Port: rec.HostName, Tunnel: n.tunnelName()}
	if rec.Phase == state.PhaseReady {
		fw.Bridge, fw.Addrs, fw.Ports = rec.Bridge, addrsOf(rec), n.c.portsHeldBy(rec)
		fw.MAC, _ = net.ParseMAC(rec.MAC)
	}
	return fw
}

// portsHeldBy are the ports by whose keys the rules of a record are found; nil
// where parts of them are on standby: then they are found by their comment.
func (c *Controller) portsHeldBy(rec state.Endpoint) []firewall.PortMap {
	if standby, err := c.waiting(rec); len(standby) > 0 || err != nil {
		return nil
	}
	return firewallPorts(portsOf(rec))
}

func addrsOf(rec state.Endpoint) []netip.Addr {
	all := []netip.Addr{}
	for _, a := range rec.Addresses {
		all = append(all, a.Prefix.Addr())
	}
	return all
}

// retireTunnel removes the rules of the network's tunnel, which is gone, unless it
// has endpoints.
func (n *Network) retireTunnel(ctx context.Context) error {
	err := n.c.endpoints.Alone(ctx, n.name, func() error {
		return errors.Join(n.c.removeNetworkBy(ctx, "", n.config.Backend, firewall.Network{Name: model.NetworkOwner(n.name)}), n.dropGuard(ctx, state.Endpoint{Bridge: n.config.Bridge}))
	})
	if errors.Is(err, state.ErrInUse) {
		return nil
	}
	return err
}

// hasLocalhost says that another endpoint than gone, or a publication, has a port
// that 127.0.0.0/8 leads to by gone's bridge, the guards of which are b, if any.
func (c *Controller) hasLocalhost(b bridgeGuards, gone state.Endpoint) (bool, error) {
	other := func(rec state.Endpoint) bool {
		same := idOf(rec) == idOf(gone) && rec.HostName == gone.HostName // of a publication that is empty
		return rec.Bridge == gone.Bridge && !same
	}
	recs, err := c.publicationRecords()
	if slices.ContainsFunc(recs, func(rec state.Endpoint) bool { return other(rec) && c.publicationOpens(rec) }) {
		return true, nil
	}
	names := []string{gone.Network}
	var all []state.Guard
	if b != nil {
		var guardsErr error
		all, guardsErr = b.Guards()
		err = errors.Join(err, guardsErr)
		for _, g := range all {
			names = append(names, g.Network)
		}
	}
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside
	}
	for _, name := range names {
		has, endpointsErr := c.endpoints.AnyEndpoint(name, func(rec state.Endpoint) bool { return other(rec) && c.opensLocalhost(rec, all) })
		if has || endpointsErr != nil {
			return has, endpointsErr
		}
	}
	return false, err
}

// opensLocalhost says that 127.0.0.0/8 leads to ports of an endpoint by its record,
// as plan says it of one that is made now. In which gateway mode its ports are
// published the guard tells that it came with, which is one of guards, else its
// network's record; where nothing tells, they are open.
func (c *Controller) opensLocalhost(rec state.Endpoint, guards []state.Guard) bool {
	hairpin := rec.OwnRules == nil || !rec.OwnRules.NoHairpin
	// The record of an ADD under way may not have its addresses yet.
	ipv4 := rec.Phase != state.PhaseReady || slices.ContainsFunc(addrsOf(rec), netip.Addr.Is4)
	if !hairpin || !ipv4 || !publishesLocalhost(portsOf(rec)) {
		return false
	}
	i := slices.IndexFunc(guards, func(g state.Guard) bool { return g.Network == rec.Network && g.ID == rec.Guard })
	if i >= 0 {
		var asked firewall.Network
		return json.Unmarshal(guards[i].Rules, &asked) != nil || asked.IPv4 != firewall.Routed
	}
	n, err := c.Network(rec.Network)
	return err != nil || n.config.GatewayModeIPv4 != model.GatewayRouted
}

// publicationOpens is opensLocalhost for the record of a publication.
func (c *Controller) publicationOpens(rec state.Endpoint) bool {
	p, err := c.publisherOf(rec)
	return err != nil || p.opensLocalhost(rec)
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

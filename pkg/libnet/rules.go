package libnet

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/state"
)

// ruleset is rules to be applied by one of the backends.
type ruleset struct {
	backend  Backend
	network  firewall.Network
	endpoint firewall.Endpoint
	rec      state.Endpoint     // of the attachment; zero: of a network only
	chosen   []firewall.PortMap // ports that were chosen, and can be others
	waits    waitFor
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
func (c *Controller) applyRules(ctx context.Context, r *ruleset) (used Backend, restored bool, err error) {
	if r.backend != BackendIPTables {
		restored, err = c.applyBy(ctx, c.nftables, r)
		if r.backend == BackendNFTables || !errors.Is(err, firewall.ErrUnsupported) || c.iptables.Available() != nil {
			return BackendNFTables, restored, err
		}
	}
	restored, err = c.applyBy(ctx, c.iptables, r)
	return BackendIPTables, restored, err
}

// maxDead bounds how many owners of ports are met for one attachment.
const maxDead = 100

func (c *Controller) applyBy(ctx context.Context, by rules, r *ruleset) (restored bool, err error) {
	for range maxDead {
		restored, err = c.applyOnce(ctx, by, *r)
		var held *firewall.PortHeldError
		if !errors.As(err, &held) {
			return restored, err
		}
		settled, settleErr := c.settleHeld(ctx, r, held)
		if settleErr != nil || !settled {
			return false, errors.Join(&PortHeldError{Owner: held.Owner, Port: held.Port, all: held.All}, settleErr)
		}
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

// applyRules puts the endpoint's rules in place and pushes how to take them back.
// The caller has the lock of lockPorts.
func (e *Endpoint) applyRules(ctx context.Context, p plan, undo *undoStack) error {
	c := e.n.c
	done, err := c.publish(ctx, e.Ports(), func(ports []PortMapping) ruleset {
		p.endpoint.Ports = firewallPorts(ports)
		return ruleset{backend: e.n.config.Backend, network: p.network, endpoint: p.endpoint, rec: e.rec}
	})
	if err != nil {
		return err
	}
	e.rec.Ports, e.rec.Backend = savedPorts(done.ports), string(done.backend)
	e.restored = e.restored || done.restored
	undo.push(func() error { return e.n.removeRules(context.WithoutCancel(ctx), e.rec) })
	if len(e.rec.Ports) > 0 {
		undo.push(func() error { return c.setWaiting(e.rec, nil) })
		if err := c.setWaiting(e.rec, done.standby); err != nil {
			return err
		}
	}
	e.standby = done.standby
	if !p.localnet {
		return nil
	}
	_, err = c.published.SetRouteLocalnet(e.rec.Bridge, true)
	return err
}

// reapply puts the rules of an attachment in place by one backend.
func (e *Endpoint) reapply(ctx context.Context, backend string) error {
	p, err := e.plan()
	if err != nil || !p.rules {
		return err
	}
	r := ruleset{network: p.network, endpoint: p.endpoint, rec: e.rec}
	return e.n.c.reapply(ctx, backend, r)
}

// reapply puts the rules of an attachment in place as they were: what it waited
// for it waits for.
func (c *Controller) reapply(ctx context.Context, backend string, r ruleset) error {
	release, err := c.lockPorts(ctx, r.rec)
	if err != nil {
		return err
	}
	defer release()
	before, err := c.waiting(r.rec)
	if err != nil {
		return err
	}
	r.endpoint.Standby = before
	if _, err := c.applyBy(ctx, c.rulesOf(backend), &r); err != nil {
		return err
	}
	if len(r.endpoint.Standby) == len(before) {
		return nil
	}
	return c.setWaiting(r.rec, r.endpoint.Standby)
}

// changeRules brings the rules of a network, as they were by its last record,
// to what its configuration says now.
func (n *Network) changeRules(ctx context.Context, before state.Network) error {
	old, err := n.c.networkOf(before)
	if err == nil {
		n, err = n.withPeers()
	}
	if err != nil || !old.config.needsRules() && !n.config.needsRules() {
		return err
	}
	recs, err := n.c.endpoints.Endpoints(n.name)
	if errors.Is(err, state.ErrCorrupt) {
		err = nil
	}
	errs := []error{err}
	moved := cmp.Or(old.config.Backend, BackendAuto) != cmp.Or(n.config.Backend, BackendAuto)
	for _, rec := range recs {
		if rec.Rules && rec.Phase == state.PhaseReady && moved {
			errs = append(errs, n.moveRules(ctx, rec))
		}
	}
	if moved {
		return errors.Join(append(errs, n.c.removeNetworkBy(ctx, "", old.config.Backend, n.planRules()))...)
	}
	return errors.Join(append(errs, n.c.rulesOf(string(n.config.Backend)).ApplyNetwork(ctx, n.planRules()))...)
}

// moveRules has the network's backend of today hold what another one held.
func (n *Network) moveRules(ctx context.Context, rec state.Endpoint) error {
	e := &Endpoint{n: n, rec: rec}
	p, err := e.plan()
	if err != nil {
		return err
	}
	release, err := n.c.lockPorts(ctx, rec)
	if err != nil {
		return err
	}
	defer release()
	r := ruleset{backend: n.config.Backend, network: p.network, endpoint: p.endpoint, rec: rec}
	if r.endpoint.Standby, err = n.c.waiting(rec); err != nil {
		return err
	}
	used, _, err := n.c.applyRules(ctx, &r)
	if err != nil || string(used) == rec.Backend {
		return err
	}
	err = n.removeRules(ctx, rec)
	e.rec.Backend = string(used)
	return errors.Join(err, e.save())
}

// removeRules removes an endpoint's rules.
func (n *Network) removeRules(ctx context.Context, rec state.Endpoint) error {
	if !rec.Rules {
		return nil
	}
	return n.c.removeBy(ctx, rec.Backend, n.config.Backend, n.heldBy(rec))
}

// retireRules removes the rules of an endpoint that goes, and with the last
// one's those of the network.
func (n *Network) retireRules(ctx context.Context, rec state.Endpoint) error {
	if !rec.Rules {
		return nil
	}
	last, err := n.lastOne(ctx, rec, func() error {
		return n.c.removeLastBy(ctx, rec.Backend, n.config.Backend, n.planRules(), n.heldBy(rec))
	})
	if last {
		return err
	}
	return errors.Join(err, n.removeRules(ctx, rec))
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

// retire removes the rules of the network if it has no attachment; those of a
// tunnel go with it.
func (n *Network) retire(ctx context.Context, backend string) error {
	_, err := n.lastOne(ctx, state.Endpoint{}, func() error {
		return n.c.removeNetworkBy(ctx, backend, n.config.Backend, n.planRules())
	})
	return err
}

// lastOne calls remove, which takes away the network's rules, if there is no
// attachment but rec, which may be the zero Endpoint, and no tunnel, which is
// never without its rules. Last says that it did.
func (n *Network) lastOne(ctx context.Context, rec state.Endpoint, remove func() error) (last bool, err error) {
	err = n.c.endpoints.Alone(ctx, n.name, rec, func() error {
		left, err := n.c.links.List(ctx, networkOwner(n.name)) // records can be lost
		if err != nil || slices.ContainsFunc(left, func(o kernel.Owned) bool {
			id, is := parseOwner(o.Owner)
			return is && id != idOf(rec)
		}) {
			return err
		}
		if err := n.closeLocalhost(rec); err != nil {
			return err
		}
		has, err := n.hasTunnel()
		if has || err != nil {
			return err
		}
		last = true
		return remove()
	})
	return last, err
}

// closeLocalhost switches route_localnet of the bridge off before the rule goes
// that keeps strangers from 127.0.0.0/8, unless another network is on the bridge.
// The attachment gone counts no more.
func (n *Network) closeLocalhost(gone state.Endpoint) error {
	networks, err := n.c.networks.Networks()
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside
	}
	for _, o := range networks {
		if o.Bridge == n.config.Bridge && o.Name != n.name {
			return err
		}
	}
	return errors.Join(err, n.c.closeLocalhost(n.config.Bridge, gone))
}

// closeLocalhost switches route_localnet of a device off, unless an attachment
// or a publication but gone has a port that 127.0.0.0/8 leads to by it.
func (c *Controller) closeLocalhost(dev string, gone state.Endpoint) error {
	recs, err := c.publicationRecords()
	networks, netErr := c.networks.Networks()
	for _, n := range networks {
		if n.Bridge == dev {
			more, moreErr := c.endpoints.Endpoints(n.Name)
			recs, netErr = append(recs, more...), errors.Join(netErr, moreErr)
		}
	}
	if err = errors.Join(err, netErr); errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside
	}
	for _, rec := range recs {
		same := idOf(rec) == idOf(gone) && rec.HostName == gone.HostName // of a publication that is empty
		if rec.Bridge == dev && !same && publishesLocalhost(portsOf(rec)) {
			return err
		}
	}
	_, offErr := c.published.SetRouteLocalnet(dev, false)
	return errors.Join(err, offErr)
}

package libnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/kernel"
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

func (c *Controller) applyBy(ctx context.Context, by rules, r ruleset) (restored bool, err error) {
	for range maxDead {
		restored, err = c.applyOnce(ctx, by, r)
		var held *firewall.PortHeldError
		if !errors.As(err, &held) {
			return restored, err
		}
		err = &PortHeldError{Owner: held.Owner, Port: held.Port}
		dead, findErr := c.deadOwner(ctx, held.Owner)
		if findErr != nil || !dead {
			return false, errors.Join(err, findErr)
		}
		for _, either := range []rules{c.nftables, c.iptables} {
			if !either.Used() {
				continue
			}
			if err := either.Remove(ctx, firewall.Endpoint{Owner: held.Owner}); err != nil {
				return false, err
			}
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

// applyRules puts the endpoint's rules in place and pushes how to take them back.
func (e *Endpoint) applyRules(ctx context.Context, p plan, undo *undoStack) error {
	c := e.n.c
	ports, used, restored, err := c.publish(ctx, e.Ports(), func(ports []PortMapping) ruleset {
		p.endpoint.Ports = firewallPorts(ports)
		return ruleset{e.n.config.Backend, p.network, p.endpoint}
	})
	if err != nil {
		return err
	}
	e.rec.Ports, e.rec.Backend = savedPorts(ports), string(used)
	undo.push(func() error { return e.n.removeRules(context.WithoutCancel(ctx), e.rec) })
	if restored {
		c.repairOthers(ctx, e.rec)
	}
	if !p.localnet {
		return nil
	}
	_, err = c.published.SetRouteLocalnet(e.rec.Bridge, true)
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

// reapply puts the rules of an attachment in place by one backend.
func (e *Endpoint) reapply(ctx context.Context, backend string) error {
	p, err := e.plan()
	if err != nil || !p.rules {
		return err
	}
	_, err = e.n.c.applyBy(ctx, e.n.c.rulesOf(backend), ruleset{network: p.network, endpoint: p.endpoint})
	return err
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
	used, _, err := n.c.applyRules(ctx, ruleset{n.config.Backend, p.network, p.endpoint})
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

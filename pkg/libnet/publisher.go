package libnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/state"
)

// Publisher publishes ports of the host for containers whose interfaces another
// plugin makes. Its records lie apart from those of networks.
type Publisher struct {
	c       *Controller
	dir     *state.Dir
	network string
	cfg     PublishConfig
}

// Publication is a container and its ports.
type Publication struct {
	ID    ID
	Netns string       // path of the container's network namespace
	Addrs []netip.Addr // of the container; ports go to the first of each family
	Ports []PortMapping
	// Runtime is as WithRuntime has it.
	Runtime string
}

// Publisher returns the one for a network. The errors: ErrInvalidName, *ConfigError.
func (c *Controller) Publisher(network string, cfg PublishConfig) (*Publisher, error) {
	if err := errors.Join(validateName("network name", network), cfg.validate()); err != nil {
		return nil, err
	}
	return &Publisher{c: c, dir: c.publications(), network: network, cfg: cfg}, nil
}

// publications are the records of all Publishers.
func (c *Controller) publications() *state.Dir {
	return state.New(filepath.Join(c.stateDir, "portmap"))
}

// rules returns what is put in place for a publication by an interface.
func (p *Publisher) rules(id ID, device string, addrs []netip.Addr, ports []PortMapping) ruleset {
	return ruleset{backend: p.cfg.Chosen(), endpoint: firewall.Endpoint{
		Owner: publicationOwner(id), Bridge: device, Addrs: addrs, Ports: firewallPorts(ports),
		Hairpin: !p.cfg.NoHairpin, MasqueradeAll: p.cfg.MasqueradeAll, Beside: true,
		ConditionsIPv4: p.cfg.ConditionsIPv4, ConditionsIPv6: p.cfg.ConditionsIPv6, IPTables: p.cfg.iptables(),
	}}
}

// Publish publishes the ports, all or nothing, and returns them with those
// that were chosen. It is safe to repeat: what an earlier call for the same ID
// left is replaced. Without ports it does nothing but that. The errors:
// *ConfigError, *PortHeldError, ErrNoFreePort, ErrBadNetns.
func (p *Publisher) Publish(ctx context.Context, pub Publication) (_ []PortMapping, err error) {
	if err := pub.ID.Validate(); err != nil {
		return nil, err
	}
	asked, err := validatePorts(pub.Ports)
	if err != nil {
		return nil, err
	}
	rec, err := p.record(pub, asked)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil { // the lock may be all there is
			_ = p.dir.Alone(context.WithoutCancel(ctx), p.network, state.Endpoint{}, func() error { return p.dir.DeleteNetwork(p.network) })
		}
	}()
	release, err := p.dir.Own(ctx, p.network, pub.ID.ContainerID, pub.ID.IfName, state.Create)
	if err != nil {
		return nil, err
	}
	defer release()
	before, err := p.load(pub.ID)
	if err == nil {
		if before.Phase == state.PhaseReady && p.settled(ctx, before, rec) {
			return portsOf(before), nil
		}
		err = p.takeAway(ctx, before)
	}
	if err != nil && !errors.Is(err, state.ErrNotFound) || len(asked) == 0 {
		return nil, ignoreMissing(err)
	}
	var undo undoStack
	defer undo.rollback(&err)
	undo.push(func() error { return p.takeAway(context.WithoutCancel(ctx), rec) })
	if err := p.dir.CreateShared(ctx, rec); err != nil {
		return nil, err
	}
	if err := p.publish(ctx, &rec, asked); err != nil {
		return nil, refusedConditions(err)
	}
	rec.Phase = state.PhaseReady
	return portsOf(rec), p.dir.SaveEndpoint(rec)
}

func ignoreMissing(err error) error {
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	return err
}

// load returns the record of an ID; one that cannot be read is as none.
func (p *Publisher) load(id ID) (state.Endpoint, error) {
	rec, err := p.dir.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if errors.Is(err, state.ErrCorrupt) {
		err = fmt.Errorf("%w: %w", state.ErrNotFound, err)
	}
	return rec, err
}

// record is the intent to publish.
func (p *Publisher) record(pub Publication, ports []PortMapping) (state.Endpoint, error) {
	id, err := netnsID(pub.Netns)
	if err != nil {
		return state.Endpoint{}, err
	}
	rec := state.Endpoint{
		Network: pub.ID.Network, ContainerID: pub.ID.ContainerID, IfName: pub.ID.IfName,
		Phase: state.PhaseIntent, Boot: p.c.boot, Netns: pub.Netns, NetnsID: state.NetnsID(id),
		Rules: true, Runtime: pub.Runtime, Ports: savedPorts(ports), Config: p.cfg.saved(),
	}
	for _, a := range pub.Addrs {
		a = a.Unmap()
		rec.Addresses = append(rec.Addresses, state.Address{Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	return rec, nil
}

// settled says that an earlier publication is the one asked for, in place.
func (p *Publisher) settled(ctx context.Context, before, now state.Endpoint) bool {
	return before.Boot == now.Boot && NetnsID(before.NetnsID).same(NetnsID(now.NetnsID)) &&
		slices.Equal(addrsOf(before), addrsOf(now)) && bytes.Equal(before.Config, now.Config) && asked(portsOf(before), portsOf(now)) && p.verify(ctx, before) == nil
}

// publish puts the rules in place, choosing ports that were left open.
func (p *Publisher) publish(ctx context.Context, rec *state.Endpoint, wanted []PortMapping) error {
	device, err := p.device(*rec)
	if err != nil {
		return err
	}
	rec.Bridge = device
	id, addrs := idOf(*rec), addrsOf(*rec)
	ports, used, restored, err := p.c.publish(ctx, wanted, func(ports []PortMapping) ruleset {
		return p.rules(id, device, addrs, ports)
	})
	if err != nil {
		return err
	}
	rec.Ports, rec.Backend = savedPorts(ports), string(used)
	if restored {
		p.c.repairOthers(ctx, *rec)
	}
	has4 := slices.ContainsFunc(addrs, netip.Addr.Is4)
	if has4 && !p.cfg.NoHairpin && publishesLocalhost(ports) {
		_, localErr := p.c.published.SetRouteLocalnet(device, true)
		err = errors.Join(err, localErr)
	}
	return errors.Join(err, p.c.endFlows(ctx, *rec, nil))
}

// device returns the interface by which the host reaches the container.
func (p *Publisher) device(rec state.Endpoint) (string, error) {
	addrs := addrsOf(rec)
	if len(addrs) == 0 {
		return "", fmt.Errorf("%w: nothing to publish ports for", ErrNoAddresses)
	}
	return p.c.published.DeviceTo(addrs[0])
}

// reapplyPublication puts the rules of a publication in place by its record.
func (c *Controller) reapplyPublication(ctx context.Context, rec state.Endpoint) error {
	p, err := c.publisherOf(rec)
	if err != nil {
		return err
	}
	_, err = c.applyBy(ctx, c.rulesOf(rec.Backend), p.rules(idOf(rec), rec.Bridge, addrsOf(rec), portsOf(rec)))
	return err
}

// Verify changes nothing and says what differs from what Publish did; the error
// is then ErrDifferent.
func (p *Publisher) Verify(ctx context.Context, pub Publication) error {
	rec, err := p.load(pub.ID)
	if errors.Is(err, state.ErrNotFound) {
		if rec, err = p.expected(pub); err != nil || len(rec.Ports) == 0 {
			return err
		}
	}
	if err == nil {
		err = p.verify(ctx, rec)
	}
	if err != nil {
		return fmt.Errorf("%w: ports of %s %s in network %q: %w", ErrDifferent, pub.ID.ContainerID, pub.ID.IfName, p.network, err)
	}
	return nil
}

// expected is the record that should be there.
func (p *Publisher) expected(pub Publication) (state.Endpoint, error) {
	fixed := slices.DeleteFunc(slices.Clone(pub.Ports), func(m PortMapping) bool { return m.HostPort == 0 })
	ports, err := validatePorts(fixed)
	if err != nil {
		return state.Endpoint{}, err
	}
	rec, err := p.record(pub, ports)
	if err == nil && len(ports) > 0 {
		rec.Bridge, err = p.device(rec)
	}
	return rec, err
}

func (p *Publisher) verify(ctx context.Context, rec state.Endpoint) error {
	r := p.rules(idOf(rec), rec.Bridge, addrsOf(rec), portsOf(rec))
	return p.c.rulesOf(rec.Backend).Verify(ctx, r.network, r.endpoint)
}

// Remove takes away whatever was published for an ID. It needs nothing to be
// there; missing is success.
func (p *Publisher) Remove(ctx context.Context, id ID) error {
	return p.removeUnless(ctx, id, func() bool { return false })
}

// removeUnless is Remove, unless it is spared, which is asked while nobody else works on the
// publication.
func (p *Publisher) removeUnless(ctx context.Context, id ID, spared func() bool) error {
	if err := id.Validate(); err != nil {
		return nil // nothing can have been published for it
	}
	release, err := p.dir.Own(ctx, p.network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return err
	}
	defer release()
	if spared() {
		return nil
	}
	rec, err := p.load(id)
	if errors.Is(err, state.ErrNotFound) {
		rec = state.Endpoint{Network: id.Network, ContainerID: id.ContainerID, IfName: id.IfName, Rules: true}
	} else if err != nil {
		return err
	}
	return p.takeAway(ctx, rec)
}

func (p *Publisher) takeAway(ctx context.Context, rec state.Endpoint) error {
	fw := firewall.Endpoint{Owner: publicationOwner(idOf(rec))}
	if rec.Phase == state.PhaseReady {
		fw.Port, fw.Bridge, fw.Addrs, fw.Ports = noPort, rec.Bridge, addrsOf(rec), firewallPorts(portsOf(rec))
	}
	if err := errors.Join(p.removeRules(ctx, rec, fw), p.c.endFlows(ctx, rec, addrsOf(rec))); err != nil {
		return err // the record tells the next try where to look
	}
	if err := p.dir.DeleteEndpoint(rec.Network, rec.ContainerID, rec.IfName); err != nil {
		return err
	}
	// Another one may have come and gone since the rules were removed.
	_, err := p.lastOne(ctx, state.Endpoint{}, rec.Bridge, func() error {
		return errors.Join(p.c.removeNetworkBy(ctx, rec.Backend, p.cfg.Backend, p.rulesNetwork()), p.dir.DeleteNetwork(p.network))
	})
	return err
}

// removeRules removes the rules of a publication, and with the last one of the
// network all that is left of ours.
func (p *Publisher) removeRules(ctx context.Context, rec state.Endpoint, fw firewall.Endpoint) error {
	last, err := p.lastOne(ctx, rec, rec.Bridge, func() error {
		return p.c.removeLastBy(ctx, rec.Backend, p.cfg.Backend, p.rulesNetwork(), fw)
	})
	if last {
		return err
	}
	return errors.Join(err, p.c.removeBy(ctx, rec.Backend, p.cfg.Backend, fw))
}

// rulesNetwork owns what no publication of the network does.
func (p *Publisher) rulesNetwork() firewall.Network {
	return firewall.Network{Name: publicationPrefix + p.network + "/"}
}

// lastOne calls remove if the network has no publication but rec, which may be
// the zero Endpoint. Last says that it did.
func (p *Publisher) lastOne(ctx context.Context, rec state.Endpoint, bridge string, remove func() error) (last bool, err error) {
	err = p.dir.Alone(ctx, p.network, rec, func() error {
		last = true
		if bridge == "" {
			return remove()
		}
		return errors.Join(p.c.closeLocalhost(bridge, rec), remove())
	})
	return last, err
}

// noPort is the name of no interface: there is nothing to be found by it.
const noPort = "-"

// Collect removes every publication of the network that keep says no to,
// whether a record or only a rule tells of it. It goes on after errors and
// reports them joined.
func (p *Publisher) Collect(ctx context.Context, keep func(Holder) bool) error {
	recs, err := p.dir.Endpoints(p.network)
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside; the rules tell
	}
	holders := map[ID]Holder{}
	for _, rec := range recs {
		h := holderOfRecord(rec)
		holders[h.ID] = h
	}
	owners, listErr := p.c.owners(ctx, p.cfg.Backend)
	for _, owner := range owners {
		id, ok := parsePublication(owner)
		if _, known := holders[id]; ok && !known && id.Network == p.network {
			holders[id] = Holder{ID: id, Boot: p.c.boot}
		}
	}
	errs := []error{err, listErr}
	for id, h := range holders {
		if !keep(h) {
			errs = append(errs, p.removeUnless(ctx, id, func() bool { return keep(p.c.holderNow(p.dir, id)) }))
		}
	}
	return errors.Join(errs...)
}

// Status says why nothing could be published now; nil if something could.
func (p *Publisher) Status(ctx context.Context) error {
	err := p.c.rulesAvailable(p.cfg.Chosen())
	if slices.Contains([]Backend{wordsOf(p.cfg.ConditionsIPv4), wordsOf(p.cfg.ConditionsIPv6)}, BackendNFTables) {
		err = errors.Join(err, firewall.ConditionsAvailable())
	}
	if dirErr := p.c.sandboxes.Writable(); dirErr != nil {
		err = errors.Join(err, fmt.Errorf("state directory: %w", dirErr))
	}
	if err == nil {
		p.heal(ctx)
	}
	return err
}

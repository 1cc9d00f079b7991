package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/unwind"
)

// Publisher publishes ports of the host for containers whose interfaces another
// plugin makes. Its records lie apart from those of networks.
type Publisher struct {
	ports   *Ports
	dir     *state.Dir
	network string
	cfg     model.PublishConfig
}

// Publication is a container and its ports.
type Publication struct {
	ID    model.ID
	Netns string       // path of the container's network namespace
	Addrs []netip.Addr // of the container; ports go to the first of each family
	Ports []model.PortMapping
	// Runtime is as WithRuntime has it.
	Runtime string
}

// Publisher returns the one for a network. The errors: ErrInvalidName, *ConfigError.
func (k *Ports) Publisher(network string, cfg model.PublishConfig) (*Publisher, error) {
	if err := errors.Join(model.ValidateName("network name", network), cfg.Validate()); err != nil {
		return nil, err
	}
	return &Publisher{ports: k, dir: k.Publications, network: network, cfg: cfg}, nil
}

// Ruleset returns what is put in place for a publication by its record.
func (p *Publisher) ruleset(rec state.Endpoint) Ruleset {
	return Ruleset{Backend: p.cfg.Chosen(), Rec: rec, Endpoint: firewall.Endpoint{
		Owner: model.PublicationOwner(life.IDOf(rec)), Bridge: rec.Bridge, Addrs: rec.Addrs(), Ports: model.FirewallPorts(plan.PortsOf(rec)),
		Hairpin: !p.cfg.NoHairpin, MasqueradeAll: p.cfg.MasqueradeAll, Beside: true,
		ConditionsIPv4: p.cfg.ConditionsIPv4, ConditionsIPv6: p.cfg.ConditionsIPv6, IPTables: p.cfg.IPTablesOptions(),
	}}
}

// Publish publishes the ports, all or nothing, and returns them with those
// that were chosen. It is safe to repeat: what an earlier call for the same ID
// left is replaced. Without ports it does nothing but that. The errors:
// *ConfigError, *PortHeldError, ErrNoFreePort, ErrBadNetns. Restored: the rules of the
// host had been lost, and those of others still are.
func (p *Publisher) Publish(ctx context.Context, pub Publication) (got []model.PortMapping, restored bool, err error) {
	if err := pub.ID.Validate(); err != nil {
		return nil, false, err
	}
	asked, err := model.ValidatePorts(pub.Ports)
	if err != nil {
		return nil, false, err
	}
	rec, err := p.record(pub, asked)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil || len(asked) == 0 { // the lock may be all there is
			_ = p.forgetNetwork(ctx)
		}
	}()
	release, err := p.dir.Own(ctx, p.network, pub.ID.ContainerID, pub.ID.IfName, state.Create)
	if err != nil {
		return nil, false, err
	}
	defer release()
	before, err := p.load(pub.ID)
	if err == nil {
		_ = p.ports.TakeOwnFree(ctx, before) // the look at it says what that left
		if settled, err := p.settled(ctx, before, rec); settled || err != nil {
			return plan.PortsOf(before), false, err
		}
		err = p.takeAway(ctx, before)
	}
	if err != nil && !errors.Is(err, state.ErrNotFound) || len(asked) == 0 {
		return nil, false, ignoreMissing(err)
	}
	if rec.Bridge, err = p.device(rec); err != nil {
		return nil, false, err
	}
	spare, err := plain.Spare(takeAwayFiles)
	if err != nil {
		return nil, false, err
	}
	defer spare()
	var undo unwind.Stack
	defer undo.Rollback(&err)
	undo.Push(func() error {
		spare()
		return p.takeAway(context.WithoutCancel(ctx), rec)
	})
	if err := p.dir.CreateEndpoint(rec); err != nil {
		return nil, false, err
	}
	restored, err = p.publishAlone(ctx, &rec, asked)
	if err != nil {
		return nil, restored, model.RefusedConditions(err)
	}
	return plan.PortsOf(rec), restored, nil
}

// takeAwayFiles is how many files takeAway has open at once, and some more.
const takeAwayFiles = 8

// publishAlone publishes and records it while no other call works on the ports of
// the container. Others' rules are repaired after it, as that takes locks, too.
func (p *Publisher) publishAlone(ctx context.Context, rec *state.Endpoint, asked []model.PortMapping) (restored bool, err error) {
	release, err := p.ports.Lock(ctx, *rec)
	if err != nil {
		return false, err
	}
	defer release()
	if restored, err = p.publish(ctx, rec, asked); err != nil {
		return restored, err
	}
	rec.Phase = state.PhaseReady
	return restored, p.dir.SaveEndpoint(*rec)
}

func ignoreMissing(err error) error {
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	return err
}

// load returns the record of an ID; one that cannot be read is as none.
func (p *Publisher) load(id model.ID) (state.Endpoint, error) {
	rec, err := p.dir.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if errors.Is(err, state.ErrCorrupt) {
		err = fmt.Errorf("%w: %w", state.ErrNotFound, err)
	}
	return rec, err
}

// record is the intent to publish.
func (p *Publisher) record(pub Publication, ports []model.PortMapping) (state.Endpoint, error) {
	id, err := life.NetnsIDOf(pub.Netns)
	if err != nil {
		return state.Endpoint{}, err
	}
	rec := state.Endpoint{
		Network: pub.ID.Network, ContainerID: pub.ID.ContainerID, IfName: pub.ID.IfName,
		Phase: state.PhaseIntent, Boot: p.ports.Boot, Netns: pub.Netns, NetnsID: state.NetnsID(id), MountNS: life.MountNS(),
		Rules: true, Runtime: pub.Runtime, Ports: plan.SavedPorts(ports), Config: p.cfg.JSON(),
	}
	for _, a := range pub.Addrs {
		a = a.Unmap()
		rec.Addresses = append(rec.Addresses, state.Address{Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	return rec, nil
}

// settled says that an earlier publication is the one asked for, in place. Ports that a
// killed removal had closed already are opened again. It is an error if that cannot be
// looked at: the ports may be those of the living container.
func (p *Publisher) settled(ctx context.Context, before, now state.Endpoint) (bool, error) {
	same := before.Phase == state.PhaseReady && before.Boot == now.Boot && life.NetnsID(before.NetnsID).Same(life.NetnsID(now.NetnsID)) &&
		slices.Equal(before.Addrs(), now.Addrs()) && bytes.Equal(before.Config, now.Config) && model.SamePorts(plan.PortsOf(before), plan.PortsOf(now))
	if !same {
		return false, nil
	}
	err := errors.Join(p.verifyRules(ctx, before), p.OpenLocalhost(before))
	if plan.Differs(err) {
		return false, nil
	}
	return err == nil, err
}

// Choose puts the rules in place, choosing ports that were left open. Restored:
// those of the host had been lost.
func (p *Publisher) publish(ctx context.Context, rec *state.Endpoint, wanted []model.PortMapping) (restored bool, err error) {
	done, err := p.ports.Publish(ctx, p.ruleset(*rec), wanted)
	if err != nil {
		return false, err
	}
	rec.Ports, rec.Backend = plan.SavedPorts(done.Ports), string(done.Backend)
	if err := p.ports.SetWaiting(*rec, done.Standby); err != nil {
		return done.Restored, err
	}
	if err := p.LetHairpin(*rec); err != nil {
		return done.Restored, err
	}
	return done.Restored, errors.Join(p.OpenLocalhost(*rec), p.ports.EndFlows(ctx, *rec, done.Standby))
}

// device returns the interface by which the host reaches the container. The intent has it:
// by it a removal closes what a killed call opened.
func (p *Publisher) device(rec state.Endpoint) (string, error) {
	addrs := rec.Addrs()
	if len(addrs) == 0 {
		return "", fmt.Errorf("%w: nothing to publish ports for", model.ErrNoAddresses)
	}
	return p.ports.Host.DeviceTo(addrs[0])
}

// ReapplyPublication puts the rules of a publication in place by its record.
func (k *Ports) ReapplyPublication(ctx context.Context, rec state.Endpoint) error {
	p, err := k.PublisherOf(rec)
	if err != nil {
		return err
	}
	if _, err := k.Reapply(ctx, rec.Backend, p.ruleset(rec)); err != nil {
		return err
	}
	if err := p.OpenLocalhost(rec); !errors.Is(err, netlink.ErrNotFound) {
		return err
	}
	return nil // its bridge is made anew afterwards, and this with it
}

// Verify changes nothing and says what differs from what Publish did; the error
// is then ErrDifferent. Any other says that it could not look.
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
	return plan.Judged(fmt.Sprintf("ports of %s %s in network %q", pub.ID.ContainerID, pub.ID.IfName, p.network), err)
}

// expected is the record that should be there.
func (p *Publisher) expected(pub Publication) (state.Endpoint, error) {
	fixed := slices.DeleteFunc(slices.Clone(pub.Ports), func(m model.PortMapping) bool { return m.HostPort == 0 })
	ports, err := model.ValidatePorts(fixed)
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
	err := p.verifyRules(ctx, rec)
	if !p.opensLocalhost(rec) {
		return err
	}
	on, localErr := p.ports.Host.RouteLocalnet(rec.Bridge)
	switch {
	case ofService(rec) && errors.Is(localErr, netlink.ErrNotFound):
		return err
	case localErr == nil && !on:
		localErr = fmt.Errorf("%w: sysctl net.ipv4.conf.%s.route_localnet is 0, want 1: ports on 127.0.0.1 do not answer", model.ErrDifferent, rec.Bridge)
	}
	return errors.Join(err, localErr)
}

func (p *Publisher) verifyRules(ctx context.Context, rec state.Endpoint) error {
	r := p.ruleset(rec)
	return p.ports.Verify(ctx, rec, firewall.Network{}, r.Endpoint)
}

// opensLocalhost says that 127.0.0.0/8 leads to ports of the publication.
func (p *Publisher) opensLocalhost(rec state.Endpoint) bool {
	return slices.ContainsFunc(rec.Addrs(), netip.Addr.Is4) && !p.cfg.NoHairpin && model.PublishesLocalhost(plan.PortsOf(rec))
}

// OpenLocalhost lets 127.0.0.0/8 lead there, which the rules guard.
func (p *Publisher) OpenLocalhost(rec state.Endpoint) error {
	if !p.opensLocalhost(rec) {
		return nil
	}
	_, err := p.ports.Host.SetRouteLocalnet(rec.Bridge, true)
	if ofService(rec) && errors.Is(err, netlink.ErrNotFound) {
		return nil
	}
	return err
}

// ofService says that a record is of a service, whose interface may come later: with a container.
func ofService(rec state.Endpoint) bool { return isService(life.IDOf(rec)) }

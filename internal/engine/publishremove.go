package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// Remove takes away whatever was published for an ID. It needs nothing to be
// there; missing is success.
func (p *Publisher) Remove(ctx context.Context, id model.ID) (err error) {
	leave, err := p.c.enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	return p.removeUnless(ctx, id, func() bool { return false })
}

// removeUnless is Remove, unless it is spared, which is asked while no other call works on the
// publication.
func (p *Publisher) removeUnless(ctx context.Context, id model.ID, spared func() bool) error {
	if err := id.Validate(); err != nil {
		return nil // nothing can have been published for it
	}
	if err := p.removeOwned(ctx, id, spared); err != nil {
		return err
	}
	return p.forgetNetwork(ctx)
}

// forgetNetwork removes what is left of the network if nothing is published.
func (p *Publisher) forgetNetwork(ctx context.Context) error {
	err := p.dir.Alone(ctx, p.network, func() error {
		tables := firewall.Network{Name: model.PublicationPrefix + p.network + "/"} // ours go if nothing is in them
		return errors.Join(p.c.nftables.RemoveNetwork(ctx, tables), p.dir.DeleteNetwork(p.network))
	})
	if errors.Is(err, state.ErrInUse) {
		return nil
	}
	return err
}

func (p *Publisher) removeOwned(ctx context.Context, id model.ID, spared func() bool) error {
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
	fw := firewall.Endpoint{Owner: model.PublicationOwner(idOf(rec))}
	if rec.Phase == state.PhaseReady {
		fw.Port, fw.Bridge, fw.Addrs, fw.Ports = noPort, rec.Bridge, addrsOf(rec), p.c.portsHeldBy(rec)
	}
	if err := p.takeRulesAway(ctx, rec, fw); err != nil {
		return err // the record tells the next try where to look
	}
	return p.dir.DeleteEndpoint(rec.Network, rec.ContainerID, rec.IfName)
}

// takeRulesAway hands the ports over to another attachment that waits for them,
// and removes the rules.
func (p *Publisher) takeRulesAway(ctx context.Context, rec state.Endpoint, fw firewall.Endpoint) error {
	release, err := p.c.lockPortsGoing(ctx, rec)
	if err != nil {
		return err
	}
	defer release()
	if err := errors.Join(p.c.handOver(ctx, rec), p.removeRules(ctx, rec, fw), p.c.endPublished(ctx, rec)); err != nil {
		return err
	}
	return p.c.waitNoMore(rec)
}

// removeRules removes the rules of a publication.
func (p *Publisher) removeRules(ctx context.Context, rec state.Endpoint, fw firewall.Endpoint) error {
	has, err := p.dir.HasEndpoint(p.network, rec)
	if has || err != nil {
		return errors.Join(err, p.c.removeBy(ctx, rec.Backend, p.cfg.Backend, fw))
	}
	if rec.Bridge != "" {
		err = p.c.closeLocalhost(ctx, rec)
	}
	return errors.Join(err, p.c.removeBy(ctx, rec.Backend, p.cfg.Backend, fw))
}

// noPort is the name of no interface: there is nothing to be found by it.
const noPort = "-"

// Collect removes every publication of the network that keep says no to,
// whether a record or only a rule tells of it. It goes on after errors and
// reports them joined.
func (p *Publisher) Collect(ctx context.Context, keep func(Holder) bool) (err error) {
	leave, err := p.c.enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	recs, err := p.dir.Endpoints(p.network)
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside; the rules tell
	}
	holders := map[model.ID]Holder{}
	for _, rec := range recs {
		h := holderOfRecord(rec)
		holders[h.ID] = h
	}
	owners, listErr := p.c.owners(ctx, p.cfg.Backend)
	for _, owner := range owners {
		id, ok := model.ParsePublication(owner)
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
	// What a killed process left is a directory without a record, of no holder.
	errs = append(errs, p.forgetNetwork(ctx))
	return errors.Join(errs...)
}

// Status says why nothing could be published now; nil if something could.
func (p *Publisher) Status(ctx context.Context) (err error) {
	leave, err := p.c.enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	err = p.c.rulesAvailable(p.cfg.Chosen())
	if slices.Contains([]model.Backend{model.WordsOf(p.cfg.ConditionsIPv4), model.WordsOf(p.cfg.ConditionsIPv6)}, model.BackendNFTables) {
		err = errors.Join(err, nft.ConditionsAvailable())
	}
	if dirErr := p.c.sandboxes.Writable(); dirErr != nil {
		err = errors.Join(err, fmt.Errorf("state directory: %w", dirErr))
	}
	if err == nil {
		p.heal(ctx)
	}
	return err
}

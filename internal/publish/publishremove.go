package publish

import (
	"context"
	"errors"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// Remove takes away whatever was published for an ID. It needs nothing to be
// there; missing is success.
func (p *Publisher) Remove(ctx context.Context, id model.ID) error {
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
		return errors.Join(p.ports.Guard.Rules.NFTables.RemoveNetwork(ctx, tables), p.dir.DeleteNetwork(p.network))
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
	fw := firewall.Endpoint{Owner: model.PublicationOwner(life.IDOf(rec))}
	if rec.Phase == state.PhaseReady {
		fw.Port, fw.Bridge, fw.Addrs, fw.Ports = noPort, rec.Bridge, rec.Addrs(), p.ports.HeldBy(rec)
	}
	if err := p.takeRulesAway(ctx, rec, fw); err != nil {
		return err // the record tells the next try where to look
	}
	return p.dir.DeleteEndpoint(rec.Network, rec.ContainerID, rec.IfName)
}

// takeRulesAway hands the ports over to another attachment that waits for them,
// and removes the rules.
func (p *Publisher) takeRulesAway(ctx context.Context, rec state.Endpoint, fw firewall.Endpoint) error {
	release, err := p.ports.LockGoing(ctx, rec)
	if err != nil {
		return err
	}
	defer release()
	if err := errors.Join(p.ports.HandOver(ctx, rec), p.removeRules(ctx, rec, fw), p.ports.endPublished(ctx, rec)); err != nil {
		return err
	}
	return p.ports.WaitNoMore(rec)
}

// removeRules removes the rules of a publication.
func (p *Publisher) removeRules(ctx context.Context, rec state.Endpoint, fw firewall.Endpoint) error {
	has, err := p.dir.HasEndpoint(p.network, rec)
	if has || err != nil {
		return errors.Join(err, p.ports.Guard.Rules.Remove(ctx, rec.Backend, p.cfg.Backend, fw))
	}
	if rec.Bridge != "" {
		err = p.ports.CloseLocalhost(ctx, rec)
	}
	return errors.Join(err, p.ports.Guard.Rules.Remove(ctx, rec.Backend, p.cfg.Backend, fw))
}

// noPort is the name of no interface: there is nothing to be found by it.
const noPort = "-"

// Collect removes every publication of the network that keep says no to, but those of services,
// whether a record or only a rule tells of it. It goes on after errors and
// reports them joined.
func (p *Publisher) Collect(ctx context.Context, keep func(life.Holder) bool) error {
	recs, err := p.dir.Endpoints(p.network)
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside; the rules tell
	}
	holders := map[model.ID]life.Holder{}
	for _, rec := range recs {
		if h := life.OfRecord(rec); !isService(h.ID) { // no runtime knows of it
			holders[h.ID] = h
		}
	}
	owners, listErr := p.ports.Guard.Rules.Owners(ctx, p.cfg.Backend)
	for _, owner := range owners {
		id, ok := model.ParsePublication(owner)
		if _, known := holders[id]; ok && !known && id.Network == p.network && !isService(id) {
			holders[id] = life.Holder{ID: id, Boot: p.ports.Boot}
		}
	}
	errs := []error{err, listErr}
	for id, h := range holders {
		if !keep(h) {
			errs = append(errs, p.removeUnless(ctx, id, func() bool { return keep(p.holderNow(id)) }))
		}
	}
	// A killed process may leave a directory without a record, of no holder.
	errs = append(errs, p.forgetNetwork(ctx))
	return errors.Join(errs...)
}

// holderNow is the holder that a record tells of; without one, that nothing is
// known.
func (p *Publisher) holderNow(id model.ID) life.Holder {
	rec, err := p.dir.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if err != nil {
		return life.Holder{ID: id, Boot: p.ports.Boot}
	}
	return life.OfRecord(rec)
}

// Available says why no rules could be put in place now; nil if they could.
func (p *Publisher) Available() error {
	err := p.ports.Guard.Rules.Available(p.cfg.Chosen())
	if slices.Contains([]model.Backend{model.WordsOf(p.cfg.ConditionsIPv4), model.WordsOf(p.cfg.ConditionsIPv6)}, model.BackendNFTables) {
		err = errors.Join(err, nft.ConditionsAvailable())
	}
	return err
}

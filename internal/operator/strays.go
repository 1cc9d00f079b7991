package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// Elements of our sets have owners. One whose owner did not ask for it was put there by
// another program, or a person: no CHECK asks for it, and it may open what is closed.

// known is what the records tell of the owners of elements.
type known struct {
	asked []nft.Asked
	// busy are owners at work, and owners with too little in the records: each of their
	// elements may be right.
	busy map[string]bool
	recs map[string]state.Endpoint // of attachments and publications
	// bridges by the owner of their guard.
	bridges map[string]string
	// lost: attachments without a record, or indices, are there.
	lost bool
}

// known reads all records.
func (o *Operator) known(ctx context.Context) (known, error) {
	k := known{busy: map[string]bool{}, recs: map[string]state.Endpoint{}, bridges: map[string]string{}}
	errs := []error{o.knownAttachments(ctx, &k), o.knownGuards(ctx, &k)}
	errs = append(errs, o.knownRebuilt(&k))
	networks, err := o.Networks(ctx)
	errs = append(errs, ignoreCorrupt(err))
	for _, n := range networks {
		if p := n.Plan(); p.TunnelName() != "" {
			k.asked = append(k.asked, nft.Asked{Network: o.ports.Guard.InPlace(ctx, p)})
			if n.Config().Tunnel.Agent { // whose hosts come and go
				k.busy[firewall.Key(model.NetworkOwner(n.Name()))] = true
			}
		}
	}
	recs, err := o.ports.PublicationRecords()
	errs = append(errs, ignoreCorrupt(err))
	for _, rec := range recs {
		owner := firewall.Key(model.PublicationOwner(life.IDOf(rec)))
		k.recs[owner] = rec
		asked, err := o.askedByPublication(rec)
		if rec.Phase != state.PhaseReady || err != nil {
			k.busy[owner] = true
		}
		k.asked = append(k.asked, asked...)
	}
	return k, errors.Join(errs...)
}

// knownRebuilt are networks whose record was lost. What Rebuild wrote in its place does not
// tell all that the network asks for: of a tunnel, or of encryption, it has nothing.
func (o *Operator) knownRebuilt(k *known) error {
	recs, err := o.networks.Networks()
	for _, rec := range recs {
		if rec.Fingerprint == unknownConfig || rec.Fingerprint == untoldConfig {
			k.busy[firewall.Key(model.NetworkOwner(rec.Name))], k.lost = true, true
		}
	}
	return ignoreCorrupt(err)
}

func (o *Operator) knownAttachments(ctx context.Context, k *known) error {
	names, err := o.dir.EndpointNetworks()
	errs := []error{err}
	for _, name := range names {
		recs, err := o.dir.Endpoints(name)
		errs = append(errs, ignoreCorrupt(err))
		for _, rec := range recs {
			owner := firewall.Key(life.IDOf(rec).String())
			k.recs[owner] = rec
			asked, err := o.askedBy(ctx, rec)
			if rec.Phase != state.PhaseReady || err != nil {
				k.busy[owner] = true // what cannot be planned CHECK tells of
			}
			k.asked = append(k.asked, asked...)
		}
	}
	links, err := life.LinksOf(ctx, o.kernel, model.OwnerPrefix)
	for id := range links {
		if owner := firewall.Key(id.String()); k.recs[owner].Network == "" {
			k.busy[owner], k.lost = true, true
		}
	}
	return errors.Join(append(errs, err)...)
}

func (o *Operator) knownGuards(ctx context.Context, k *known) error {
	losses, err := o.losses(ctx)
	errs := []error{err}
	for _, l := range losses {
		k.busy[firewall.Key(plan.GuardOwner(l.Bridge))], k.lost = true, true
	}
	bridges, err := o.ports.Guard.Index.Bridges()
	errs = append(errs, err)
	for _, bridge := range bridges {
		owner := firewall.Key(plan.GuardOwner(bridge))
		k.bridges[owner] = bridge
		err := o.ports.Guard.Asked(ctx, bridge, func(want firewall.Network) error {
			k.asked = append(k.asked, nft.Asked{Network: want})
			return nil
		})
		if errors.Is(err, state.ErrCorrupt) {
			k.busy[owner], k.lost = true, true
			continue
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func ignoreCorrupt(err error) error {
	if errors.Is(err, state.ErrCorrupt) {
		return nil // checkRecords tells
	}
	return err
}

// askedBy is what Apply was asked for of an attachment. What waits for another one may be
// in place already.
func (o *Operator) askedBy(ctx context.Context, rec state.Endpoint) ([]nft.Asked, error) {
	if o.rules.Of(rec.Backend) != o.rules.NFTables {
		return nil, nil
	}
	of, err := o.networks.LoadNetwork(rec.Network)
	if err != nil {
		return nil, err
	}
	n, err := plan.OfRecord(of)
	if err != nil {
		return nil, err
	}
	if rec.Bridge != "" {
		n.Config.Bridge = rec.Bridge // the network may have another one by now
	}
	p, err := n.Recorded(rec)
	if err != nil {
		return nil, err
	}
	network, err := o.ports.Guard.Verifiable(ctx, n, rec)
	if err != nil {
		return nil, err
	}
	return o.withStandby(rec, nft.Asked{Network: network, Endpoint: p.Endpoint})
}

func (o *Operator) askedByPublication(rec state.Endpoint) ([]nft.Asked, error) {
	if o.rules.Of(rec.Backend) != o.rules.NFTables {
		return nil, nil
	}
	e, err := o.ports.OfPublication(rec)
	if err != nil {
		return nil, err
	}
	return o.withStandby(rec, nft.Asked{Endpoint: e})
}

func (o *Operator) withStandby(rec state.Endpoint, a nft.Asked) ([]nft.Asked, error) {
	standby, err := o.ports.Waiting(rec)
	if err != nil || len(standby) == 0 {
		return []nft.Asked{a}, err
	}
	b := a
	b.Endpoint.Standby = standby
	return []nft.Asked{a, b}, nil
}

// strays returns the elements that no record explains.
func (o *Operator) strays(ctx context.Context) ([]nft.Stray, known, error) {
	k, err := o.known(ctx)
	if err != nil {
		return nil, k, err
	}
	all, err := o.nft.Strays(ctx, k.asked)
	return slices.DeleteFunc(all, func(s nft.Stray) bool { return k.busy[s.Owner] || k.left(s) || o.others(ctx, k, s.Owner) }), k, err
}

// others says that an owner may be known to another state directory: a network that this
// one does not know, or the guard of a bridge that is there.
func (o *Operator) others(ctx context.Context, k known, owner string) bool {
	if network, ok := model.ParseNetworkOwner(owner); ok {
		return !o.dir.Recorded(network)
	}
	bridge, ok := strings.CutPrefix(owner, plan.GuardOwner(""))
	if _, here := k.bridges[owner]; !ok || here {
		return false
	}
	return !errors.Is(o.kernel.VerifyBridge(ctx, link.Bridge{Name: bridge}), netlink.ErrNotFound)
}

// left says that an element is of an attachment, which may be another state
// directory's: lost.rules tells of those.
func (k known) left(s nft.Stray) bool {
	if k.recs[s.Owner].Network != "" || !s.Listed {
		return false
	}
	_, attachment := model.ParseOwner(s.Owner)
	_, publication := model.ParsePublication(s.Owner)
	return attachment || publication
}

// checkStrays looks for elements that no record explains. It looks again, as an
// attachment may have come or gone meanwhile.
func (s survey) checkStrays(ctx context.Context) []Finding {
	const about = "elements"
	first, _, err := s.o.strays(ctx)
	if err == nil && len(first) > 0 {
		var again []nft.Stray
		again, _, err = s.o.strays(ctx)
		first = slices.DeleteFunc(first, func(a nft.Stray) bool {
			return !slices.ContainsFunc(again, func(b nft.Stray) bool { return a.Owner == b.Owner && a.String() == b.String() })
		})
	}
	if err != nil {
		return []Finding{{about, "cannot be told: " + oneLine(err), "run lnctl doctor as root"}}
	}
	var all []Finding
	for _, e := range first {
		all = append(all, Finding{about, fmt.Sprintf("%s of %q, which did not ask for it", e, e.Owner),
			"lnctl repair deletes it; look for what put it there"})
	}
	if len(all) > maxFindings {
		all = append(all[:maxFindings:maxFindings], Finding{about, fmt.Sprintf("%d more that no record explains", len(all)-maxFindings), all[0].Advice})
	}
	return all
}

// RemoveStrays deletes the elements of our sets that no record explains, and returns
// them. What keeps packets out stays while records are lost, of which it may be.
func (o *Operator) RemoveStrays(ctx context.Context) (removed []string, err error) {
	leave, err := o.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	all, k, err := o.strays(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for len(all) > 0 {
		owner := all[0].Owner
		gone, err := o.removeStrays(ctx, k, owner)
		for _, s := range gone {
			removed = append(removed, fmt.Sprintf("%s of %q", s, s.Owner))
		}
		errs = append(errs, err)
		all = slices.DeleteFunc(all, func(s nft.Stray) bool { return s.Owner == owner })
	}
	return removed, errors.Join(errs...)
}

// removeStrays looks again at what an owner has while no other call changes that.
func (o *Operator) removeStrays(ctx context.Context, before known, owner string) (removed []nft.Stray, err error) {
	remove := func() error {
		all, k, err := o.strays(ctx)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(s nft.Stray) bool { return s.Owner != owner || s.Closes && k.lost })
		if err = o.nft.RemoveStrays(ctx, all); err == nil {
			removed = all
		}
		return err
	}
	rec, recorded := before.recs[owner]
	bridge, guard := before.bridges[owner]
	switch {
	case recorded:
		dir := o.dir
		if rec.IsPublication() {
			dir = o.ports.Publications
		}
		release, err := dir.Own(ctx, rec.Network, rec.ContainerID, rec.IfName, state.OnlyExisting)
		if errors.Is(err, state.ErrNotFound) {
			return nil, nil // it has gone, and what it had
		}
		if err != nil {
			return nil, err
		}
		defer release()
		err = remove()
		return removed, err
	case guard:
		err := o.ports.Guard.Asked(ctx, bridge, func(firewall.Network) error { return remove() })
		return removed, err
	}
	if network, ok := model.ParseNetworkOwner(owner); ok { // an ADD makes rules before the record
		err = o.dir.Quiet(ctx, network, remove)
		return removed, err
	}
	err = remove()
	return removed, err
}

package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

func (k *Ports) PublicationRecords() ([]state.Endpoint, error) {
	dir := k.Publications
	networks, err := dir.EndpointNetworks()
	errs := []error{err}
	var all []state.Endpoint
	for _, network := range networks {
		recs, err := dir.Endpoints(network)
		errs = append(errs, err)
		all = append(all, recs...)
	}
	return all, errors.Join(errs...)
}

// PublisherOf returns a Publisher as the record of a publication tells.
func (k *Ports) PublisherOf(rec state.Endpoint) (*Publisher, error) {
	p := &Publisher{ports: k, dir: k.Publications, network: rec.Network}
	if len(rec.Config) > 0 {
		if err := json.Unmarshal(rec.Config, &p.cfg); err != nil {
			return nil, fmt.Errorf("record of ports of %s %s: %w", rec.ContainerID, rec.IfName, err)
		}
	}
	return p, nil
}

// OfPublication is what is put in place for a publication by its record.
func (k *Ports) OfPublication(rec state.Endpoint) (firewall.Endpoint, error) {
	p, err := k.PublisherOf(rec)
	if err != nil {
		return firewall.Endpoint{}, err
	}
	return p.ruleset(rec).Endpoint, nil
}

// VerifyPublication changes nothing and says what differs from the record.
func (k *Ports) VerifyPublication(ctx context.Context, rec state.Endpoint) error {
	p, err := k.PublisherOf(rec)
	if err == nil {
		err = p.verify(ctx, rec)
	}
	return plan.Judged(fmt.Sprintf("ports of %s %s in network %q", rec.ContainerID, rec.IfName, rec.Network), err)
}

// LetHairpin lets a container reach itself by its ports.
func (p *Publisher) LetHairpin(rec state.Endpoint) error {
	if p.cfg.NoHairpin || isService(life.IDOf(rec)) { // whose containers package balancer knows
		return nil
	}
	return p.ports.Host.SetHairpin(rec.Netns, rec.IfName)
}

// HasOthers says that there may be another network, attachment or publication.
func (k *Ports) HasOthers(rec state.Endpoint) bool {
	for _, dir := range []Records{k.Endpoints, k.Publications} {
		networks, err := dir.EndpointNetworks()
		if err != nil || slices.ContainsFunc(networks, func(name string) bool { return name != rec.Network }) {
			return true
		}
		if has, err := dir.HasEndpoint(rec.Network, rec); has || err != nil {
			return true
		}
	}
	return false
}

// isFirst says that no other attachment, network, publication or guard can have had
// rules before those of an endpoint: each is recorded before it has any.
func (k *Ports) isFirst(rec state.Endpoint) bool {
	if k.HasOthers(rec) {
		return false
	}
	if has, err := k.Publications.HasEndpoint(rec.Network, state.Endpoint{}); has || err != nil {
		return false
	}
	bridges, err := k.Guard.Index.Bridges()
	return err == nil && !slices.ContainsFunc(bridges, func(b string) bool { return b != rec.Bridge })
}

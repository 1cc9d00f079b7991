package libnet

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libnet-cni/libnet/internal/state"
)

// Repair puts the rules of every attachment, tunnel and publication in place
// again, by their records: somebody may have flushed them. What is as it should
// be stays untouched; dead attachments are left to Collect. It goes on after
// errors and reports them joined, and how many it looked at.
func (c *Controller) Repair(ctx context.Context) (looked int, err error) {
	leave, err := c.enter()
	if err != nil {
		return 0, err
	}
	defer leave(&err)
	networks, err := c.Networks(ctx)
	errs := []error{err}
	for _, n := range networks {
		errs = append(errs, n.repairTunnelRules(ctx))
		recs, err := n.c.endpoints.Endpoints(n.name)
		errs = append(errs, err)
		for _, rec := range recs {
			if rec.Phase != state.PhaseReady || !rec.Rules || c.dead(rec) {
				continue
			}
			looked++
			if err := (&Endpoint{n: n, rec: rec}).reapply(ctx, rec.Backend); err != nil {
				errs = append(errs, fmt.Errorf("network %q: %w", n.name, err))
			}
		}
	}
	published, err := c.repairPublications(ctx)
	return looked + published, errors.Join(append(errs, err)...)
}

// repairOthers is Repair after the rules were found missing for rec. What cannot
// be put back does not concern it. The first attachment of a host has no others.
func (c *Controller) repairOthers(ctx context.Context, rec state.Endpoint) {
	if c.hasOthers(rec) {
		_, _ = c.Repair(ctx)
	}
}

// hasOthers says that there may be another network, attachment or publication.
func (c *Controller) hasOthers(rec state.Endpoint) bool {
	for _, dir := range []endpointRecords{c.endpoints, c.publications()} {
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

func (c *Controller) repairPublications(ctx context.Context) (looked int, err error) {
	recs, err := c.publicationRecords()
	errs := []error{err}
	for _, rec := range recs {
		if rec.Phase != state.PhaseReady || c.dead(rec) {
			continue
		}
		looked++
		errs = append(errs, c.reapplyPublication(ctx, rec))
	}
	return looked, errors.Join(errs...)
}

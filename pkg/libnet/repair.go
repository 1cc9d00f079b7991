package libnet

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libnet-cni/libnet/internal/state"
)

// Repair puts the guard of every bridge and the rules of every attachment, tunnel
// and publication in place again, by their records, as after a flush of all rules.
// What is in place stays untouched; dead attachments are left to Collect. It goes
// on after errors and reports them joined, and how many it looked at.
func (c *Controller) Repair(ctx context.Context) (looked int, err error) {
	leave, err := c.enter()
	if err != nil {
		return 0, err
	}
	defer leave(&err)
	errs := []error{c.repairGuards(ctx)}
	networks, err := c.Networks(ctx)
	errs = append(errs, err)
	for _, n := range networks {
		errs = append(errs, n.repairTunnelRules(ctx))
		recs, err := n.c.endpoints.Endpoints(n.name)
		errs = append(errs, err)
		for _, rec := range recs {
			did, err := n.repairEndpoint(ctx, idOf(rec))
			if did {
				looked++
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("network %q: %w", n.name, err))
			}
		}
	}
	published, err := c.repairPublications(ctx)
	return looked + published, errors.Join(append(errs, err, c.takeFree(ctx))...)
}

// repairEndpoint puts the rules of an attachment in place again, unless it is gone
// by now, incomplete or dead.
func (n *Network) repairEndpoint(ctx context.Context, id ID) (looked bool, err error) {
	release, err := n.c.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return false, err
	}
	defer release()
	rec, err := n.c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if missing(err) {
		return false, nil
	}
	if err != nil || rec.Phase != state.PhaseReady || !rec.Rules || n.c.dead(rec) {
		return false, err
	}
	return true, (&Endpoint{n: n, rec: rec}).reapply(ctx)
}

// repairOthers is Repair if the endpoint found all rules flushed. What cannot be
// put back does not concern it. The caller owns no attachment. The first attachment
// of a host has no others.
func (e *Endpoint) repairOthers(ctx context.Context) {
	if e.restored && e.n.c.hasOthers(e.rec) {
		_, _ = e.n.c.Repair(ctx)
	}
	e.restored = false
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

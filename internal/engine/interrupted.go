package engine

import (
	"context"
	"errors"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/state"
)

// CollectInterrupted removes every attachment of the network whose Join or Attach
// ended in the middle, as that of a process that was killed. It waits for those that
// are under way, and goes on after errors.
func (n *Network) CollectInterrupted(ctx context.Context) (err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	recs, err := n.c.endpoints.Endpoints(n.def.Name)
	errs := []error{err}
	for _, rec := range recs {
		if interrupted(rec) {
			errs = append(errs, n.collectInterrupted(ctx, rec))
		}
	}
	return errors.Join(errs...)
}

func interrupted(rec state.Endpoint) bool {
	return rec.Phase == state.PhaseIntent || rec.Phase != state.PhaseReady && rec.Netns != ""
}

func (n *Network) collectInterrupted(ctx context.Context, rec state.Endpoint) error {
	release, err := n.c.endpoints.Own(ctx, rec.Network, rec.ContainerID, rec.IfName, state.OnlyExisting)
	if err != nil {
		return err
	}
	defer release()
	now, err := n.c.endpoints.LoadEndpoint(rec.Network, rec.ContainerID, rec.IfName)
	if state.Missing(err) {
		return nil
	}
	if err != nil || !interrupted(now) {
		return err // it came to its end meanwhile
	}
	return n.remove(ctx, life.IDOf(now), "")
}

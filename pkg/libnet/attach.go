package libnet

import (
	"context"
	"errors"

	"github.com/libnet-cni/libnet/internal/state"
)

// Attach is CreateEndpoint and Join in one, all or nothing, and safe to repeat:
// an attachment that is complete and alive in the same sandbox is returned as
// it is; what a killed process, an earlier boot or another sandbox left under
// the same ID is removed first. The network's record is written if missing.
func (n *Network) Attach(ctx context.Context, sb *Sandbox, opts ...EndpointOption) (_ *Endpoint, err error) {
	spec := n.spec(opts)
	spec.sandbox = sb
	id := ID{n.name, sb.id, spec.ifName}
	if err := id.Validate(); err != nil {
		return nil, err
	}
	release, err := n.c.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.Create)
	if err != nil {
		return nil, err
	}
	defer release()
	if e, err := n.settled(ctx, id, spec); e != nil || err != nil {
		return e, err
	}
	if err := n.chooseSubnets(ctx); err != nil {
		return nil, err
	}
	var undo undoStack
	defer undo.rollback(&err)
	if err := n.remember(ctx, &undo); err != nil {
		return nil, err
	}
	e, err := n.createEndpoint(ctx, sb.id, spec)
	if err != nil {
		return nil, err
	}
	undo.push(func() error { return n.takeAway(context.WithoutCancel(ctx), e.rec, "") })
	if err := e.Join(ctx, sb); err != nil {
		return e, err
	}
	return e, n.holdsStill(e.Addressing().Addresses)
}

// settled returns the attachment if it is there already, complete and alive.
// Anything less under the same ID is removed.
func (n *Network) settled(ctx context.Context, id ID, spec endpointSpec) (*Endpoint, error) {
	rec, err := n.c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err == nil && rec.Phase == state.PhaseReady && rec.Netns == spec.sandbox.path && !n.c.dead(rec) && spec.samePorts(rec) {
		if e := (&Endpoint{n: n, rec: rec}); e.Verify(ctx) == nil {
			return e, nil
		}
	}
	return nil, n.remove(ctx, id, "")
}

// dead says whether an attachment's container is provably gone.
func (c *Controller) dead(rec state.Endpoint) bool {
	return holderOfRecord(rec).Dead(c.boot)
}

// idOf returns whose record it is.
func idOf(rec state.Endpoint) ID { return ID{rec.Network, rec.ContainerID, rec.IfName} }

func holderOfRecord(rec state.Endpoint) Holder {
	return Holder{
		ID:      idOf(rec),
		Boot:    rec.Boot,
		Netns:   rec.Netns,
		NetnsID: NetnsID(rec.NetnsID),
		Runtime: rec.Runtime,
	}
}

// samePorts says whether a record has the ports that are asked for.
func (s endpointSpec) samePorts(rec state.Endpoint) bool {
	want, err := validatePorts(s.ports)
	return err == nil && asked(portsOf(rec), want)
}

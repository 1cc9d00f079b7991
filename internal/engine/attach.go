package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/naming"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/unwind"
)

// Attach is CreateEndpoint and Join in one, all or nothing, and safe to repeat:
// an attachment that is complete and alive in the same sandbox is returned as
// it is; what a killed process, an earlier boot or another sandbox left under
// the same ID is removed first. The network's record is written if missing, and
// brought to the network's configuration with success.
func (n *Network) Attach(ctx context.Context, sb *Sandbox, opts ...EndpointOption) (_ *Endpoint, err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	n = n.own()
	spec := n.spec(opts)
	spec.sandbox = sb
	id := model.ID{Network: n.def.Name, ContainerID: sb.id, IfName: spec.ifName}
	if err := id.Validate(); err != nil {
		return nil, err
	}
	n.c.steps.At("lock")
	release, err := n.c.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.Create)
	if err != nil {
		return nil, err
	}
	n.c.steps.At("record")
	var made madeRecord
	e, err := n.attach(ctx, sb, spec, id, &made)
	release()
	if e != nil {
		n.c.steps.At("others")
		e.repairOthers(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, n.forgetRecord(ctx, made))
	}
	return e, nil
}

// attach is Attach for a caller that owns the attachment. The endpoint is returned
// with an error, too, for what else has to be done.
func (n *Network) attach(ctx context.Context, sb *Sandbox, spec endpointSpec, id model.ID, made *madeRecord) (_ *Endpoint, err error) {
	if spec.guest {
		if err := n.refuseHost(id); err != nil {
			return nil, err
		}
	} else if err := n.c.guests.RemoveGuest(id.Network, id.ContainerID, id.IfName); err != nil {
		return nil, err
	}
	if err := n.span().trust(n); err != nil {
		return nil, err
	}
	if e, err := n.settled(ctx, id, spec); e != nil || err != nil {
		return e, err
	}
	if err := n.span().ready(n); err != nil {
		return nil, err
	}
	if err := n.chooseSubnets(ctx); err != nil {
		return nil, err
	}
	change, err := n.remember()
	asked := n.own() // the next steps resolve what the configuration left open
	*made = change == recordMade
	if err == nil && change == recordDiffers {
		err = n.c.nodeFiles.DeleteSeen(n.def.Name)
	}
	if err != nil {
		return nil, err
	}
	var undo unwind.Stack
	defer undo.Rollback(&err)
	if spec.guest { // before there is anything that a DEL of the container must take along
		undo.Push(func() error { return n.c.guests.RemoveGuest(id.Network, id.ContainerID, id.IfName) })
		if err := n.c.guests.AddGuest(id.Network, id.ContainerID, id.IfName); err != nil {
			return nil, err
		}
	}
	e, err := n.createEndpoint(ctx, sb.id, spec)
	if err != nil {
		return nil, err
	}
	undo.Push(func() error { return n.takeAway(context.WithoutCancel(ctx), e.rec, "") })
	if change != recordSame {
		release, err := n.claimSubnets(ctx, e.Addressing())
		if err != nil {
			return e, err
		}
		defer release()
	}
	if err := e.join(ctx, sb); err != nil {
		return e, err
	}
	if change == recordDiffers {
		if err := n.shutOutFormerHosts(ctx); err != nil {
			return e, err
		}
		if err := asked.saveRecord(); err != nil {
			return e, err
		}
	}
	if change != recordDiffers { // else calls of both configurations may be under way
		asked.span().note(asked, e.n.def.Config.MTU)
	}
	return e, n.span().holds(n, e.Addressing().Addresses)
}

// refuseHost refuses a guest under the ID of an attachment that is none: it is its runtime's, or
// a program's that has not joined it yet.
func (n *Network) refuseHost(id model.ID) error {
	_, err := n.c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if errors.Is(err, state.ErrNotFound) || n.c.IsGuest(id) {
		return nil
	}
	return fmt.Errorf("%w: %s is attached, and not by lnctl connect", model.ErrExists, id)
}

// settled returns the attachment if it is there already, complete and alive;
// what its host or rules lost is put back. Anything less under the same ID is
// removed, but not one that could not be looked at: it may be the living
// container's.
func (n *Network) settled(ctx context.Context, id model.ID, spec endpointSpec) (*Endpoint, error) {
	rec, err := n.c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil && !state.Missing(err) { // what cannot be decoded is as good as missing
		return nil, err
	}
	if err == nil && rec.Phase == state.PhaseReady && rec.Netns == spec.sandbox.path && !n.c.dead(rec) && spec.samePorts(rec) {
		e := &Endpoint{n: n, rec: rec}
		_ = n.c.Ports().TakeOwnFree(ctx, rec) // Verify says what it left
		err := e.Verify(ctx)
		if errors.Is(err, model.ErrDifferent) {
			err = e.restore(ctx)
		}
		if err == nil {
			return e, e.rename(ctx, spec.names)
		} else if !errors.Is(err, model.ErrDifferent) {
			return nil, err
		}
	}
	if err := n.readAllHosts(); err != nil {
		return nil, err
	}
	return nil, n.remove(ctx, id)
}

// restore puts back what a living attachment and its network lack; ErrDifferent: it has to be made
// anew. That it has to be is never said for the tunnel, which a new attachment would find as it is:
// an agent may be about to change it.
func (e *Endpoint) restore(ctx context.Context) error {
	if err := e.n.readAllHosts(); err != nil {
		return err
	}
	if err := e.mend(ctx); err != nil {
		return fmt.Errorf("%w: %w", model.ErrDifferent, err)
	}
	n := e.n.own() // its MTU stays as configured
	if err := n.resolveMTU(); err != nil {
		return err
	}
	var undo unwind.Stack // a tunnel that was missing stays
	if err := n.span().ensure(ctx, n, &undo); err != nil {
		return err
	}
	want := e.expectation()
	want.butTunnel = true
	return e.verifyAs(ctx, want)
}

// readAllHosts has the next steps look at the tunnel as a whole.
func (n *Network) readAllHosts() error {
	if n.hosts.seen == nil {
		return nil
	}
	return n.readHosts()
}

// rename records other names than the attachment has, and tells the kernel and the services.
// Whether the kernel answers stays as it is where that was left open.
func (e *Endpoint) rename(ctx context.Context, names *model.Names) error {
	c, now := e.n.c, e.rec
	chosen, err := c.names.Choose(names, e.n.def.Config.Tunnel.Agent)
	if err != nil {
		return err
	}
	if now.Names = chosen; chosen != nil {
		if e.rec.Names != nil && names.Responder == model.RespondAuto {
			chosen.Responder = e.rec.Names.Responder
		}
		if naming.ByKernel(&now) {
			if chosen.Link, err = c.links.HostIndex(ctx, e.ref()); err != nil {
				return err
			}
		}
	}
	if now.Names.Equal(e.rec.Names) {
		return nil
	}
	if err := c.services.Left(ctx, e.rec); err != nil {
		return err
	}
	if err := c.names.Rename(ctx, &e.rec, &now); err != nil {
		return err
	}
	e.rec = now
	if err := e.save(); err != nil {
		return err
	}
	return c.services.Joined(ctx, e.rec)
}

// dead says whether an attachment's container is provably gone.
func (c *Controller) dead(rec state.Endpoint) bool {
	return life.OfRecord(rec).Dead(c.boot)
}

// samePorts says whether a record has the ports that are asked for.
func (s endpointSpec) samePorts(rec state.Endpoint) bool {
	want, err := model.ValidatePorts(s.ports)
	return err == nil && model.SamePorts(plan.PortsOf(rec), want)
}

// mend puts back what an attachment needs of its host, and its rules, without
// touching its link: another program may have changed settings, or flushed rules.
func (e *Endpoint) mend(ctx context.Context) error {
	c := e.n.c
	p, err := e.plan()
	if err != nil {
		return err
	}
	if e.rec.Bridge != e.n.def.Config.Bridge {
		return model.BadConfig("bridge", e.n.def.Config.Bridge, "the attachment is on "+e.rec.Bridge)
	}
	ns, err := life.OpenNetns(e.rec.Netns)
	if err != nil {
		return err
	}
	mtu := e.n.def.Config.MTU
	defer func() {
		_ = ns.Close()
		e.n.def.Config.MTU = mtu // as configured: an ADD that follows compares it with the record's
	}()
	if p.Rules { // before what they guard
		if err := e.reapply(ctx); err != nil {
			return err
		}
	}
	var undo unwind.Stack // a bridge that was missing is made for the ADD that follows
	br, err := e.n.ensureBridge(ctx, e.bridgeUse(), &undo)
	if err != nil {
		return err
	}
	if br.Created { // what cannot be put back of others does not concern this one
		if _, mac, _ := c.reconnect(ctx, e.n, true, e.ID()); mac != nil {
			br.MAC = mac
		}
	}
	p.Link.Netns, p.Link.MTU, p.Link.State = ns, 0, br
	if _, err := c.links.Plug(ctx, p.Link); err != nil {
		return err
	}
	if err := c.links.Settle(ctx, p.Link); err != nil {
		return err
	}
	if _, err := c.names.Mend(ctx, &e.rec); err != nil {
		return err
	}
	if _, err := c.shortcuts.Mend(ctx, &e.rec, e.n.fastTunnel()); err != nil {
		return err
	}
	if p.Localnet {
		if _, err := c.published.SetRouteLocalnet(e.rec.Bridge, true); err != nil {
			return err
		}
	}
	if p.V4 || p.V6 {
		return c.bridges.Forward(ctx, p.V4, p.V6)
	}
	return nil
}

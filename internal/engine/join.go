package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/naming"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/shortcut"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/unwind"
)

// Join makes the endpoint's interface in the sandbox: the bridge if it is
// missing, the rules, then the link. On failure the endpoint is as before. The
// errors: ErrEndpointJoined, ErrNotFound for an endpoint that was removed
// meanwhile, and those of the kernel and the firewall.
func (e *Endpoint) Join(ctx context.Context, sb *Sandbox) (err error) {
	leave, err := e.n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	defer e.repairOthers(ctx) // which owns others, so after the release
	release, err := e.own(ctx)
	if err != nil {
		return err
	}
	defer release()
	if e.rec.Phase == state.PhaseReady {
		return fmt.Errorf("%w: %s", model.ErrEndpointJoined, e.rec.Netns)
	}
	e.n = e.n.own()
	if e.rec.NextName {
		return e.joinByNextName(ctx, sb)
	}
	return e.join(ctx, sb)
}

// join is Join for a caller that owns the attachment.
func (e *Endpoint) join(ctx context.Context, sb *Sandbox) (err error) {
	p, err := e.plan()
	if err != nil {
		return err
	}
	ns, err := life.OpenNetns(sb.path)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }() // what was made is not undone any more
	e.n.c.steps.At("ports")
	release, err := e.n.c.Ports().Lock(ctx, state.Endpoint{ContainerID: e.rec.ContainerID, Ports: e.rec.Ports, Phase: state.PhaseReady})
	if err != nil {
		return err
	}
	defer release() // not before the record tells that it is complete
	var undo unwind.Stack
	defer undo.Rollback(&err)
	if err := e.enter(sb, &undo); err != nil {
		return err
	}
	p.Link.Netns = ns
	if err := e.connect(ctx, p, &undo); err != nil {
		return err
	}
	e.n.c.steps.At("ready")
	ready := e.rec
	ready.Phase = state.PhaseReady
	if err := e.n.c.endpoints.SaveEndpoint(ready); err != nil {
		return err
	}
	undo.Push(func() error { return e.save() })
	// After the record: a service that is made meanwhile finds that, or is found.
	undo.Push(func() error { return e.n.c.services.Left(context.WithoutCancel(ctx), ready) })
	if err := e.n.c.services.Joined(ctx, ready); err != nil {
		return err
	}
	e.rec = ready
	return nil
}

// enter records where the endpoint is going, unless its intent says so already.
func (e *Endpoint) enter(sb *Sandbox, undo *unwind.Stack) error {
	if e.rec.Netns == sb.path && !e.rec.NextName {
		return nil
	}
	before := e.rec
	if before.NextName {
		before.LinkName = ""
	}
	undo.Push(func() error { e.rec = before; return e.save() })
	e.rec.Netns, e.rec.NetnsID, e.rec.MountNS, e.rec.Rules = sb.path, state.NetnsID(sb.netns), life.MountNS(), e.n.def.Config.NeedsRules() || len(e.rec.Ports) > 0
	p := e.n.Plan()
	e.rec.Bridge, e.rec.Guard, e.rec.Tunnel, e.rec.Spare = e.n.def.Config.Bridge, p.GuardID(), p.SecureTunnel(), p.SpareTunnel()
	return e.save()
}

// maxBridges is how often the bridge is made for one endpoint.
const maxBridges = 3

// connect makes the bridge, the rules and the link, again if another one's
// failed ADD took the bridge away that it had made.
func (e *Endpoint) connect(ctx context.Context, p plan.Attachment, undo *unwind.Stack) error {
	for try := 1; ; try++ {
		var steps unwind.Stack
		err := e.connectOnce(ctx, p, &steps)
		if err == nil {
			*undo = append(*undo, steps...)
			return nil
		}
		gone := errors.Is(err, netlink.ErrNotFound) && errors.Is(e.n.c.bridges.VerifyBridge(ctx, link.Bridge{Name: e.n.def.Config.Bridge}), netlink.ErrNotFound)
		steps.Rollback(&err)
		if !gone || try == maxBridges {
			return err
		}
	}
}

// connectOnce has the rules in place before the bridge has an address: what came
// earlier could wait for the container, or be known to conntrack, without having
// passed them.
func (e *Endpoint) connectOnce(ctx context.Context, p plan.Attachment, undo *unwind.Stack) error {
	c := e.n.c
	if err := e.n.resolveMTU(); err != nil {
		return err
	}
	c.steps.At("rules")
	fresh, err := e.applyRules(ctx, p, undo)
	if err != nil {
		return err
	}
	c.steps.At("bridge")
	br, err := e.n.ensureBridge(ctx, e.bridgeUse(), undo)
	if err != nil {
		return err
	}
	if err := e.openLocalhost(p); err != nil {
		return err
	}
	c.steps.At("connections")
	if fresh || e.restored || br.Created {
		// Connections first: until they are gone, their packets wait for neighbours.
		if err := errors.Join(e.n.c.Ports().EndUnguardedFlows(ctx, e.n.Plan(), e.rec), c.bridges.ForgetNeighbours(ctx, e.rec.Bridge)); err != nil {
			return err
		}
	}
	if err := e.n.span().ensure(ctx, e.n, undo); err != nil {
		return err
	}
	if br.Created { // what cannot be put back of others does not concern this one
		if _, mac, _ := c.reconnect(ctx, e.n, true, e.ID()); mac != nil {
			br.MAC = mac
		}
	}
	unknown, err := c.Ports().EndEarlierFlows(ctx, e.rec.Addrs(), e.rec.Bridge, br.MAC)
	if err != nil {
		return err
	}
	p.Link.Unknown = e.chosen && unknown
	p.Link.MTU, p.Link.State = e.n.def.Config.MTU, br // known now
	c.steps.At("link")
	made, err := c.links.Attach(ctx, p.Link)
	if err != nil {
		return err
	}
	undo.Push(func() error { return c.links.Detach(context.WithoutCancel(ctx), e.ref()) })
	c.steps.At("names")
	if err := e.answer(ctx, made.HostIndex, undo); err != nil {
		return err
	}
	c.steps.At("forwarding")
	if p.V4 || p.V6 {
		if err := c.bridges.Forward(ctx, p.V4, p.V6); err != nil {
			return err
		}
	}
	c.steps.At("connections")
	if err := c.Ports().EndFlows(ctx, e.rec, e.standby); err != nil {
		return err
	}
	e.rec.Links = []state.Link{
		{Name: e.rec.Bridge, MAC: br.MAC.String(), MTU: br.MTU},
		{Name: e.rec.HostName, MAC: made.HostMAC.String(), MTU: made.MTU},
		{Name: e.rec.Inside(), MAC: made.MAC.String(), MTU: made.MTU, Netns: e.rec.Netns},
	}
	if br.VLANName != "" {
		e.rec.Links = append(e.rec.Links, state.Link{Name: br.VLANName, MAC: br.VLANMAC.String()})
	}
	return e.hasten(ctx, made.HostIndex, undo)
}

// answer has the kernel answer for the endpoint's names, and answer its queries.
func (e *Endpoint) answer(ctx context.Context, index int, undo *unwind.Stack) error {
	if !naming.ByKernel(&e.rec) {
		return nil
	}
	names := *e.rec.Names
	names.Link = index
	e.rec.Names = &names
	forget := func() error { return e.n.c.names.Remove(context.WithoutCancel(ctx), &e.rec) }
	undo.Push(forget)
	whole, err := e.n.c.names.Put(ctx, &e.rec)
	e.namesLost = err == nil && !whole
	var unsupported *model.UnsupportedError
	if e.auto && errors.As(err, &unsupported) {
		e.unanswered = err
		err = forget()
		e.rec.Names.Responder, e.rec.Names.Link = "", 0
	}
	return err
}

// hasten has the endpoint's packets go the fast path, where the kernel can.
func (e *Endpoint) hasten(ctx context.Context, index int, undo *unwind.Stack) error {
	if e.n.def.Config.FastPath != model.FastPathAuto || e.slow {
		return nil
	}
	slow := func() error {
		err := e.n.c.shortcuts.Remove(context.WithoutCancel(ctx), &e.rec)
		e.rec.Fast = 0
		return err
	}
	undo.Push(slow)
	err := e.n.c.shortcuts.Put(ctx, &e.rec, index, e.n.fastTunnel())
	if shortcut.Unsupported(err) {
		return slow()
	}
	return err
}

// hastenTunnel has packets of attachments go the fast path by the network's device, which was
// made anew.
func (n *Network) hastenTunnel(ctx context.Context) error {
	name := n.fastTunnel()
	if name == "" {
		return nil
	}
	fast, err := n.c.endpoints.AnyEndpoint(n.def.Name, func(rec state.Endpoint) bool { return rec.Fast != 0 })
	if !fast || err != nil {
		return err
	}
	return n.c.shortcuts.PutTunnel(ctx, n.def.Config.Bridge, name)
}

// fastTunnel is the device by which packets may go the fast path; empty: there is none.
func (n *Network) fastTunnel() string {
	if n.def.Driver != plan.DriverOverlay || n.def.Config.Tunnel.Encrypted() {
		return ""
	}
	return n.Plan().TunnelName()
}

func (e *Endpoint) ref() link.Ref {
	return link.Ref{Owner: e.ID().String(), HostName: e.rec.HostName, IfName: e.rec.IfName}
}

// Leave removes the endpoint's interface and rules; its addresses stay
// reserved. An endpoint that has joined nothing is ErrNotJoined; an interface
// that is gone already, or the whole endpoint, is success.
func (e *Endpoint) Leave(ctx context.Context) (err error) {
	leave, err := e.n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	release, err := e.own(ctx)
	if err != nil {
		return ignoreGone(err)
	}
	defer release()
	if e.rec.Netns == "" {
		return fmt.Errorf("%w: %q", model.ErrNotJoined, e.rec.ContainerID)
	}
	if err := e.n.takeApart(ctx, e.rec, ""); err != nil {
		return err
	}
	e.rec.Phase, e.rec.Netns, e.rec.NetnsID, e.rec.Rules = state.PhaseLeased, "", state.NetnsID{}, false
	e.rec.Fast = 0
	if e.rec.NextName {
		e.rec.LinkName = ""
	}
	return e.save()
}

// ignoreGone is for what a DEL or a GC has removed before us.
func ignoreGone(err error) error {
	if errors.Is(err, model.ErrNotFound) {
		return nil
	}
	return err
}

// Delete gives the endpoint's addresses back and forgets it; one that is gone
// already is success. One that has joined a sandbox is ErrEndpointJoined.
func (e *Endpoint) Delete(ctx context.Context) (err error) {
	leave, err := e.n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	release, err := e.own(ctx)
	if err != nil {
		return ignoreGone(err)
	}
	if e.rec.Netns != "" {
		err = fmt.Errorf("%w: %q in %s", model.ErrEndpointJoined, e.rec.ContainerID, e.rec.Netns)
	} else {
		err = e.n.release(ctx, e.rec)
	}
	release()
	if err != nil {
		return err
	}
	return e.n.c.removed(ctx, e.ID())
}

// Verify changes nothing and says what differs from what Join made, joined;
// the error is then ErrDifferent, and any other says that it could not look.
// The MAC address, which a plugin that came after Join may have changed, is
// compared where SpoofCheck makes it matter.
func (e *Endpoint) Verify(ctx context.Context) (err error) {
	leave, err := e.n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	if e.rec.Netns == "" {
		return fmt.Errorf("%w: %q", model.ErrNotJoined, e.rec.ContainerID)
	}
	return e.verifyAs(ctx, e.expectation())
}

func (e *Endpoint) verifyAs(ctx context.Context, want Expectation) error {
	return e.n.verify(ctx, want, func(p *plan.Attachment) {
		if !e.n.def.Config.SpoofCheck {
			p.Link.MAC = nil
		}
	})
}

func (e *Endpoint) expectation() Expectation {
	return Expectation{ID: e.ID(), Netns: e.rec.Netns, Addressing: e.Addressing(), MAC: e.rec.MAC}
}

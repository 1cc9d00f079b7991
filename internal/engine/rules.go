package engine

import (
	"context"
	"errors"
	"net"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/guard"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/internal/unwind"
)

// applyRules puts the endpoint's rules in place, with the guard of its bridge, and
// pushes how to take them back. Fresh says that the bridge had no guard before. The
// caller has the lock of lockPorts.
func (e *Endpoint) applyRules(ctx context.Context, p plan.Attachment, undo *unwind.Stack) (fresh bool, err error) {
	c := e.n.c
	if !p.Rules {
		g, err := e.n.c.book().Hold(ctx, e.n.Plan(), false)
		if err != nil {
			return false, err
		}
		return false, e.applyOthers(ctx, g)
	}
	undo.Push(func() error {
		ctx := context.WithoutCancel(ctx)
		return errors.Join(e.n.removeRules(ctx, e.rec), e.n.c.book().Leave(ctx, e.n.Plan(), e.rec))
	})
	done, err := c.Ports().Publish(ctx, publish.Ruleset{Backend: e.n.def.Config.Backend, Member: e.n.Plan(), Endpoint: p.Endpoint, Rec: e.rec}, e.Ports())
	if err != nil {
		return false, err
	}
	e.rec.Ports, e.rec.Backend = plan.SavedPorts(done.Ports), string(done.Backend)
	if len(e.rec.Ports) > 0 {
		undo.Push(func() error { return c.Ports().SetWaiting(e.rec, nil) })
		if err := c.Ports().SetWaiting(e.rec, done.Standby); err != nil {
			return false, err
		}
	}
	e.standby = done.Standby
	if done.Restored {
		e.restored = true
		err = c.book().RepairAll(ctx, firewall.AddOnly)
	}
	if err == nil && e.n.hosts.seen != nil && (done.Restored || done.Fresh) { // those of its hosts may be gone, too
		err = e.n.repairTunnelRules(ctx)
	}
	return done.Fresh, err
}

// applyOthers has the guard in place that others have on the bridge of an endpoint
// without rules. After a flush all rules come back, as with any other endpoint.
func (e *Endpoint) applyOthers(ctx context.Context, g guard.Guarded) error {
	c := e.n.c
	if err := g.Free(true, e.n.def.Config.Backend); err != nil || !g.Shared {
		return err
	}
	restored, err := c.book().Repair(ctx, e.n.def.Config.Bridge, firewall.AddOnly)
	if err != nil || !restored {
		return err
	}
	e.restored = true
	return c.book().RepairAll(ctx, firewall.AddOnly)
}

// openLocalhost has 127.0.0.0/8 lead to published ports, once the bridge is there.
func (e *Endpoint) openLocalhost(p plan.Attachment) error {
	if !p.Localnet {
		return nil
	}
	_, err := e.n.c.published.SetRouteLocalnet(e.rec.Bridge, true)
	return err
}

// reapply puts the rules of an attachment in place by the backend that holds them.
// The network may have another bridge by now than the attachment.
func (e *Endpoint) reapply(ctx context.Context) error {
	if e.rec.Bridge != "" && e.rec.Bridge != e.n.def.Config.Bridge {
		at := *e.n
		at.def.Config.Bridge = e.rec.Bridge
		e.n = &at
	}
	p, err := e.plan()
	if err != nil || !p.Rules {
		return err
	}
	r := publish.Ruleset{Member: e.n.Plan(), Endpoint: p.Endpoint, Rec: e.rec}
	restored, err := e.n.c.Ports().Reapply(ctx, e.rec.Backend, r)
	e.restored = e.restored || restored
	return err
}

// removeRules removes the rules of endpoints, those of each backend at once.
func (n *Network) removeRules(ctx context.Context, recs ...state.Endpoint) error {
	held := map[string][]firewall.Endpoint{}
	for _, rec := range recs {
		if rec.Rules {
			held[rec.Backend] = append(held[rec.Backend], n.heldBy(rec))
		}
	}
	var errs []error
	for backend, all := range held {
		errs = append(errs, n.c.rules.Remove(ctx, backend, n.def.Config.Backend, all...))
	}
	return errors.Join(errs...)
}

// tables owns nothing: what is removed of it is our tables, if nothing is in them.
func (n *Network) tables() firewall.Network {
	return firewall.Network{Name: model.NetworkOwner(n.def.Name), Guard: plan.GuardOwner(""), Exact: firewall.ExactBridge}
}

// retireRules removes the rules of an endpoint that goes. With the last one of the
// network our tables go in the same transaction if nothing else is in them, as the
// kernel takes its time for each one that deletes something.
func (n *Network) retireRules(ctx context.Context, rec state.Endpoint) error {
	if rec.Rules && model.PublishesLocalhost(plan.PortsOf(rec)) {
		if err := n.c.Ports().CloseLocalhost(ctx, rec); err != nil {
			return err
		}
	}
	has, err := n.c.endpoints.HasEndpoint(n.def.Name, rec)
	if has || err != nil || !rec.Rules {
		return errors.Join(err, n.removeRules(ctx, rec))
	}
	return n.c.rules.RemoveLast(ctx, rec.Backend, n.def.Config.Backend, n.tables(), n.heldBy(rec))
}

// heldBy says by what an endpoint's rules are found: where the record does not
// tell, by their comment.
func (n *Network) heldBy(rec state.Endpoint) firewall.Endpoint {
	fw := firewall.Endpoint{Owner: life.IDOf(rec).String(), Port: rec.HostName, Tunnel: n.Plan().TunnelOf(rec), Spare: rec.Spare}
	if rec.Phase == state.PhaseReady {
		fw.Bridge, fw.Addrs, fw.Ports = rec.Bridge, rec.Addrs(), n.c.Ports().HeldBy(rec)
		fw.MAC, _ = net.ParseMAC(rec.MAC)
	}
	return fw
}

// retireTunnel removes the rules of the network's tunnel, which is gone, unless it
// has endpoints.
func (n *Network) retireTunnel(ctx context.Context) error {
	err := n.c.endpoints.Alone(ctx, n.def.Name, func() error {
		return errors.Join(n.c.rules.RemoveNetwork(ctx, "", n.def.Config.Backend, firewall.Network{Name: model.NetworkOwner(n.def.Name)}), n.c.book().Drop(ctx, n.Plan(), state.Endpoint{Bridge: n.def.Config.Bridge}))
	})
	if errors.Is(err, state.ErrInUse) {
		return nil
	}
	return err
}

package engine

import (
	"context"

	"github.com/libnet-cni/libnet/internal/model"
)

// mend puts back what an attachment needs of its host, and its rules, without
// touching its link: another program may have changed settings, or flushed rules.
func (e *Endpoint) mend(ctx context.Context) error {
	c := e.n.c
	p, err := e.plan()
	if err != nil {
		return err
	}
	if e.rec.Bridge != e.n.config.Bridge {
		return model.BadConfig("bridge", e.n.config.Bridge, "the attachment is on "+e.rec.Bridge)
	}
	ns, err := openNetns(e.rec.Netns)
	if err != nil {
		return err
	}
	mtu := e.n.config.MTU
	defer func() {
		_ = ns.Close()
		e.n.config.MTU = mtu // as configured: an ADD that follows compares it with the record's
	}()
	if p.rules { // before what they guard
		if err := e.reapply(ctx); err != nil {
			return err
		}
	}
	var undo undoStack // a bridge that was missing is made for the ADD that follows
	br, err := e.n.ensureBridge(ctx, e.Addressing(), e.ID(), &undo)
	if err != nil {
		return err
	}
	if br.Created { // what cannot be put back of others does not concern this one
		if _, mac, _ := c.reconnect(ctx, e.n, true, e.ID()); mac != nil {
			br.MAC = mac
		}
	}
	p.link.Netns, p.link.MTU, p.link.State = ns, 0, br
	if _, err := c.links.Plug(ctx, p.link); err != nil {
		return err
	}
	if err := c.links.Settle(ctx, p.link); err != nil {
		return err
	}
	if p.localnet {
		if _, err := c.published.SetRouteLocalnet(e.rec.Bridge, true); err != nil {
			return err
		}
	}
	if p.v4 || p.v6 {
		return c.bridges.Forward(ctx, p.v4, p.v6)
	}
	return nil
}

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// Remove takes away whatever exists of an attachment, however it came to be:
// link, rules, addresses, record. Nothing of it has to be there; missing is
// success. A failure does not keep the rest from being removed, but for the addresses:
// these stay held while the link that has them does.
func (n *Network) Remove(ctx context.Context, id model.ID) error { return n.RemoveFrom(ctx, id, "") }

// RemoveFrom is Remove for an attachment that may have neither record nor
// alias, as the reference bridge plugin makes it: a veth without an owner that
// is the interface in the namespace at path netns goes, too, if the pool holds
// an address for the ID. Without one it is another plugin's, which an ADD of
// ours has failed on. An empty path, and the host's own namespace, are as in
// Remove.
func (n *Network) RemoveFrom(ctx context.Context, id model.ID, netns string) (err error) {
	leave, err := n.c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	if err := id.Validate(); err != nil {
		return nil // nothing can have been made for it
	}
	rec, err := n.removeAlone(ctx, id, netns)
	if err != nil {
		return err
	}
	return errors.Join(n.retireGateways(ctx, &rec), n.c.removed(ctx, id))
}

// removeAlone is RemoveFrom without the container's guests. It returns what the record told.
func (n *Network) removeAlone(ctx context.Context, id model.ID, netns string) (state.Endpoint, error) {
	n.c.steps.At("lock")
	release, err := n.c.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return state.Endpoint{}, err
	}
	defer release()
	n.c.steps.At("record")
	return n.removeRecorded(ctx, id, netns)
}

// removeGuest is removeAlone for a guest. Its mark goes while it is owned: one that is made anew
// has a mark of its own.
func (n *Network) removeGuest(ctx context.Context, id model.ID) error {
	release, err := n.c.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return err
	}
	defer release()
	if err := n.remove(ctx, id); err != nil {
		return err
	}
	return n.c.guests.RemoveGuest(id.Network, id.ContainerID, id.IfName)
}

// forgetGuest removes the mark of a guest that is gone, and has not been made anew.
func (c *Controller) forgetGuest(ctx context.Context, id model.ID) error {
	release, err := c.endpoints.Own(ctx, id.Network, id.ContainerID, id.IfName, state.OnlyExisting)
	if err != nil {
		return err
	}
	defer release()
	if _, err := c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName); !state.Missing(err) {
		return err
	}
	return c.guests.RemoveGuest(id.Network, id.ContainerID, id.IfName)
}

// removed is for after an attachment was removed, and while none is owned. The guests of
// its container go with the last one that is none. A guest that comes meanwhile is noted
// before it looks for what it goes with (see HasHost), so one of both sees the other.
func (c *Controller) removed(ctx context.Context, id model.ID) error {
	all, err := c.guests.Guests(id.ContainerID)
	if err != nil || len(all) == 0 {
		return err
	}
	if slices.Contains(all, state.Guest{Network: id.Network, IfName: id.IfName}) {
		return c.forgetGuest(ctx, id)
	}
	if has, err := c.guests.HasHost(id.ContainerID); has || err != nil {
		return err
	}
	var errs []error
	for _, g := range all {
		guest := model.ID{Network: g.Network, ContainerID: id.ContainerID, IfName: g.IfName}
		n, err := c.networkOfGuest(guest)
		if err == nil {
			err = n.removeGuest(ctx, guest)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("network %q, which lnctl connected: %w", g.Network, err))
		}
	}
	return errors.Join(errs...)
}

// networkOfGuest is a guest's network, if its record is lost as the guest tells of it.
func (c *Controller) networkOfGuest(id model.ID) (*Network, error) {
	n, err := c.Network(id.Network)
	if !errors.Is(err, model.ErrNotFound) && !errors.Is(err, state.ErrCorrupt) {
		return n, err
	}
	rec, err := c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if err != nil && !state.Missing(err) {
		return nil, err
	}
	return c.Left(id.Network, plan.DriverBridge, cmp.Or(rec.Bridge, model.BridgeName(id.Network))), nil
}

// Abandoned says of a guest that its container has no attachment any more which its runtime
// made; false for an attachment that is no guest.
func (c *Controller) Abandoned(id model.ID) (bool, error) {
	if !c.IsGuest(id) {
		return false, nil
	}
	has, err := c.guests.HasHost(id.ContainerID)
	return !has, err
}

// IsGuest says whether an attachment is one that its container's runtime does not know of;
// see AsGuest.
func (c *Controller) IsGuest(id model.ID) bool {
	return c.guests.IsGuest(id.Network, id.ContainerID, id.IfName)
}

// Disconnect removes a guest; ErrNotFound if the attachment is none.
func (c *Controller) Disconnect(ctx context.Context, id model.ID) (err error) {
	leave, err := c.Enter()
	if err != nil {
		return err
	}
	defer leave(&err)
	if !c.IsGuest(id) {
		return fmt.Errorf("guest %s %s of network %q: %w", id.ContainerID, id.IfName, id.Network, model.ErrNotFound)
	}
	n, err := c.networkOfGuest(id)
	if err != nil {
		return err
	}
	return n.removeGuest(ctx, id)
}

// Guests are the guests of a container (see AsGuest), also those that are not whole.
func (c *Controller) Guests(containerID string) ([]model.ID, error) {
	all, err := c.guests.Guests(containerID)
	var ids []model.ID
	for _, g := range all {
		ids = append(ids, model.ID{Network: g.Network, ContainerID: containerID, IfName: g.IfName})
	}
	return ids, err
}

// keepGuests has guests stay as long as their containers live, whatever the runtime's list of
// attachments says: they are not on it.
func (c *Controller) keepGuests(keep func(life.Holder) bool) func(life.Holder) bool {
	return func(h life.Holder) bool {
		stays := keep(h)
		if !c.IsGuest(h.ID) {
			return stays
		}
		abandoned, err := c.Abandoned(h.ID)
		return !c.Dead(h) && (!abandoned || err != nil)
	}
}

// remove is Remove for a caller that owns the attachment.
func (n *Network) remove(ctx context.Context, id model.ID) error {
	_, err := n.removeRecorded(ctx, id, "")
	return err
}

// removeRecorded is RemoveFrom for a caller that owns the attachment. It returns what the record
// told.
func (n *Network) removeRecorded(ctx context.Context, id model.ID, netns string) (state.Endpoint, error) {
	rec, err := n.c.endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrCorrupt) {
		// The kernel still tells what is ours.
		rec = state.Endpoint{
			Network: id.Network, ContainerID: id.ContainerID, IfName: id.IfName,
			HostName: id.HostName(), Bridge: n.def.Config.Bridge, Rules: true,
		}
		if pool, ok := n.ipam.(*address.Pool); ok && pool.Verify(ctx, id, nil) == nil {
			return rec, n.takeAway(ctx, rec, notOwn(netns))
		}
	} else if err != nil {
		return rec, err
	}
	return rec, n.takeAway(ctx, rec, "")
}

// takeAway removes link, rules, addresses and record. A veth without an owner
// in the namespace at path netns goes with them; empty: none does.
func (n *Network) takeAway(ctx context.Context, rec state.Endpoint, netns string) error {
	had, err := n.c.endpoints.HasEndpoint(n.def.Name, rec)
	if err = errors.Join(err, n.takeApart(ctx, rec, netns)); err != nil {
		return err // the record tells the next call what there is
	}
	return n.takeOut(ctx, rec, had)
}

// takeOut forgets an attachment of which nothing is left but names, addresses and record. had says
// that there were others.
func (n *Network) takeOut(ctx context.Context, rec state.Endpoint, had bool) error {
	if !had { // while the record tells
		if err := n.c.names.Forget(ctx, &rec); err != nil {
			return err
		}
	}
	if err := n.release(ctx, rec); err != nil || !had && rec.Rules {
		return err
	}
	if had { // of several that went at once each saw another one
		if err := n.c.names.Forget(ctx, &rec); err != nil {
			return err
		}
	}
	return n.dropTables(ctx, rec)
}

// dropTables removes our tables if nothing is in them, after the last of several
// endpoints that went at once: each of these saw another one.
func (n *Network) dropTables(ctx context.Context, rec state.Endpoint) error {
	has, err := n.c.endpoints.HasEndpoint(n.def.Name, rec)
	if has || err != nil {
		return err
	}
	return n.c.rules.NFTables.RemoveNetwork(ctx, n.tables())
}

// takeApart removes rules, link and connections. The kernel frees the rules
// while it frees the link, each of which takes it some 20 ms, and a child may wait
// for both; so rules go first, from a link that is down.
func (n *Network) takeApart(ctx context.Context, rec state.Endpoint, netns string) error {
	n.c.steps.At("ports")
	release, err := n.c.Ports().LockGoing(ctx, rec)
	if err != nil {
		return err
	}
	defer release()
	if err := n.c.services.Left(ctx, rec); err != nil { // before it stops answering
		return err
	}
	ref := (&Endpoint{n: n, rec: rec}).ref()
	ref.NetnsPath = netns
	n.c.steps.At("rules")
	down, err := n.cutOff(ctx, rec, ref)
	n.c.steps.At("link")
	errs := []error{err, n.c.links.Detach(ctx, ref)}
	n.c.steps.At("connections")
	if !down {
		errs = append(errs, n.retireRules(ctx, rec))
	}
	if errs = append(errs, n.c.Ports().EndAllFlows(ctx, rec)); rec.Phase != state.PhaseReady { // of a killed ADD no record tells
		errs = append(errs, n.c.shortcuts.Sweep(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return errors.Join(n.c.book().Leave(ctx, n.Plan(), rec), n.c.Ports().WaitNoMore(rec))
}

// cutOff removes names, the fast path and, from a link that is down, rules. down: it is, or there
// is none.
func (n *Network) cutOff(ctx context.Context, rec state.Endpoint, ref link.Ref) (down bool, err error) {
	namesErr := n.c.names.Remove(ctx, &rec) // first: no query is answered with what goes
	fastErr := n.c.shortcuts.Remove(ctx, &rec)
	handErr, downErr := n.c.Ports().HandOver(ctx, rec), n.c.links.SetDown(ctx, ref)
	errs, down := []error{namesErr, fastErr, handErr, downErr}, downErr == nil
	if down {
		errs = append(errs, n.retireRules(ctx, rec))
	}
	return down, errors.Join(errs...)
}

// notOwn returns the path unless it is the host's own namespace, or none.
func notOwn(path string) string {
	ns, err := life.NetnsIDOf(path)
	own, ownErr := life.NetnsIDOf("/proc/thread-self/ns/net")
	if err != nil || ownErr != nil || ns.Same(own) {
		return ""
	}
	return path
}

// release gives the addresses back and then removes the record, so that a
// record tells of addresses that may still be held.
func (n *Network) release(ctx context.Context, rec state.Endpoint) error {
	n.c.steps.At("lease")
	if err := n.giveBack(ctx, rec); err != nil {
		return err
	}
	n.c.steps.At("record")
	return n.forget(rec)
}

// forget removes the record.
func (n *Network) forget(rec state.Endpoint) error {
	return n.c.endpoints.DeleteEndpoint(rec.Network, rec.ContainerID, rec.IfName)
}

// giveBack gives the addresses back.
func (n *Network) giveBack(ctx context.Context, rec state.Endpoint) error {
	id := life.IDOf(rec)
	if kind, dir := n.LeaseDir(); n.ipam != nil && (rec.Boot == "" || rec.IPAM == kind && rec.DataDir == dir) { // else it never gave any
		if err := n.ipam.Remove(ctx, id); err != nil {
			return err
		}
	}
	return n.forgetElsewhere(ctx, rec, id)
}

// forgetElsewhere gives addresses back that the record knows of and the
// network's configuration of today does not.
func (n *Network) forgetElsewhere(ctx context.Context, rec state.Endpoint, id model.ID) error {
	kind, dir := n.LeaseDir()
	switch {
	case rec.IPAM == kind && rec.DataDir == dir:
		return nil
	case rec.IPAM == address.PoolType:
		pool, err := address.NewPool(ipamstore.Config{Network: id.Network, DataDir: rec.DataDir}, model.Addressing{})
		if err != nil {
			return err
		}
		return pool.Remove(ctx, id)
	case rec.IPAM != "" && n.ipam == nil && n.foreign != "":
		return model.ErrForeignIPAM
	}
	return nil
}

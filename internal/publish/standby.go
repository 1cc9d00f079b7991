package publish

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// Runtimes hand the same port mappings to every network of a container. A port
// of the host leads to the attachment that published it first; for the others of
// the same container it is on standby: their records ask for it, their rules
// leave it out, and a file per container says so. The attachment that goes hands
// its ports over in the transaction that puts them in place for the next one.
//
// All that publishes or removes ports of a container holds the container's lock
// (lockPorts), always after the attachment's own one (Own).

// Standbys are the files that say which attachments wait for ports.
type Standbys interface {
	OwnPorts(ctx context.Context, containerID string) (release func(), err error)
	GiveAddrs(addrs []netip.Addr, bridge string, mac net.HardwareAddr) (state.Given, error)
	NoteBridge(name string, mac net.HardwareAddr) error
	LoadStandby(containerID string) (state.Standby, error)
	SaveStandby(state.Standby) error
	Standbys() ([]string, error)
}

var _ Standbys = (*state.Dir)(nil)

// ownerOf is the owner of a record's rules.
func ownerOf(rec state.Endpoint) string {
	if rec.IsPublication() {
		return model.PublicationOwner(life.IDOf(rec))
	}
	return life.IDOf(rec).String()
}

// anyOwner reads the owner of whatever rule.
func anyOwner(owner string) (model.ID, bool) {
	if id, ok := model.ParsePublication(owner); ok {
		return id, true
	}
	return model.ParseOwner(owner)
}

func waits(w state.Waiting, rec state.Endpoint) bool {
	return w.Network == rec.Network && w.IfName == rec.IfName && w.Publication == rec.IsPublication()
}

// Lock keeps others from the ports of an attachment's container. A record
// that is complete and has no ports needs no lock.
func (k *Ports) Lock(ctx context.Context, rec state.Endpoint) (release func(), err error) {
	if rec.Phase == state.PhaseReady && len(rec.Ports) == 0 {
		return func() {}, nil
	}
	return k.Standby.OwnPorts(ctx, rec.ContainerID)
}

// LockGoing is lockPorts for an attachment that goes: what cannot be locked,
// as its directory cannot be written to, must not keep it from going.
func (k *Ports) LockGoing(ctx context.Context, rec state.Endpoint) (release func(), err error) {
	release, err = k.Lock(ctx, rec)
	if err != nil && !errors.Is(err, flock.ErrLocked) {
		return func() {}, nil
	}
	return release, err
}

// Waiting returns the ports that an attachment waits for.
func (k *Ports) Waiting(rec state.Endpoint) ([]firewall.PortMap, error) {
	if len(rec.Ports) == 0 && rec.Phase == state.PhaseReady {
		return nil, nil
	}
	s, err := k.Standby.LoadStandby(rec.ContainerID)
	for _, w := range s.Waiting {
		if waits(w, rec) {
			return standbyPorts(w), err
		}
	}
	return nil, err
}

func standbyPorts(w state.Waiting) []firewall.PortMap {
	var all []firewall.PortMap
	for _, p := range w.Ports {
		all = append(all, model.PortMapping(p).Firewall())
	}
	return all
}

// SetWaiting writes what an attachment waits for. The caller has the lock.
func (k *Ports) SetWaiting(rec state.Endpoint, ports []firewall.PortMap) error {
	s, err := k.Standby.LoadStandby(rec.ContainerID)
	if err != nil && !errors.Is(err, state.ErrCorrupt) {
		return err
	}
	i := slices.IndexFunc(s.Waiting, func(w state.Waiting) bool { return waits(w, rec) })
	if i < 0 && len(ports) == 0 {
		return nil
	}
	w := state.Waiting{Network: rec.Network, IfName: rec.IfName, Publication: rec.IsPublication(), Ports: savedStandby(ports)}
	switch {
	case i < 0:
		s.Waiting = append(s.Waiting, w)
	case len(ports) == 0:
		s.Waiting = slices.Delete(s.Waiting, i, i+1)
	default:
		s.Waiting[i] = w
	}
	s.ContainerID = rec.ContainerID
	return k.Standby.SaveStandby(s)
}

// WaitNoMore is setWaiting for an attachment that is gone.
func (k *Ports) WaitNoMore(rec state.Endpoint) error {
	if rec.Phase == state.PhaseReady && len(rec.Ports) == 0 {
		return nil
	}
	return k.SetWaiting(rec, nil)
}

func savedStandby(ports []firewall.PortMap) []state.Port {
	var all []state.Port
	for _, p := range firewall.JoinPorts(ports) {
		all = append(all, state.Port{
			Protocol: p.Protocol.String(), HostIP: p.HostIP, HostPort: int(p.HostPort), HostPortEnd: int(p.HostPortEnd), ContainerPort: int(p.HostPort),
		})
	}
	return all
}

// sameContainer says whether the owner of a rule is another living attachment of
// the container that a record is of.
func (k *Ports) sameContainer(ctx context.Context, rec state.Endpoint, owner string) (bool, error) {
	if rec.ContainerID == "" {
		return false, nil
	}
	id, whole := anyOwner(owner)
	if whole && id.ContainerID != rec.ContainerID {
		return false, nil
	}
	other, err := k.recordOf(owner)
	if errors.Is(err, state.ErrNotFound) && whole {
		dead, err := k.deadOwner(ctx, owner)
		return !dead, err
	}
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	same := other.ContainerID == rec.ContainerID && !life.OfRecord(other).Dead(k.Boot) &&
		(other.Netns == "" || rec.Netns == "" || life.NetnsID(other.NetnsID).Same(life.NetnsID(rec.NetnsID)))
	return same, err
}

// recordOf returns the record of the owner of a rule.
func (k *Ports) recordOf(owner string) (state.Endpoint, error) {
	for i, dir := range []Records{k.Endpoints, k.Publications} {
		id, ok := model.ParseOwner(owner)
		if i > 0 {
			id, ok = model.ParsePublication(owner)
		}
		var rec state.Endpoint
		var err error
		if ok {
			rec, err = dir.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
		} else {
			rec, err = findOwner(dir, owner)
		}
		if err == nil || !errors.Is(err, state.ErrNotFound) && !errors.Is(err, state.ErrCorrupt) {
			return rec, err
		}
	}
	return state.Endpoint{}, state.ErrNotFound
}

// HandOver gives the ports of an attachment that goes to those of the same
// container that wait for them. The caller has the lock of lockPorts until the
// attachment's rules are gone, and then calls setWaiting for it: what it waits for
// tells until then where its own rules are.
func (k *Ports) HandOver(ctx context.Context, gone state.Endpoint) error {
	return k.serveWaiting(ctx, gone.ContainerID, func(w state.Waiting) bool { return waits(w, gone) }, ownerOf(gone))
}

// serveWaiting has each attachment of a container that waits get what is free or
// from's, which may be empty. Those that leave says of get nothing.
func (k *Ports) serveWaiting(ctx context.Context, containerID string, leaves func(state.Waiting) bool, from string) error {
	s, err := k.Standby.LoadStandby(containerID)
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside: nothing is known to wait
	}
	if err != nil || len(s.Waiting) == 0 {
		return err
	}
	var left []state.Waiting
	var errs []error
	for _, w := range s.Waiting {
		if leaves(w) {
			left = append(left, w)
			continue
		}
		rec, err := k.waiter(containerID, w)
		if err != nil || rec.Phase != state.PhaseReady || life.OfRecord(rec).Dead(k.Boot) {
			continue // of an ADD that was killed; its DEL looks for all it has
		}
		still, err := k.takeOver(ctx, rec, standbyPorts(w), from)
		errs = append(errs, err)
		if w.Ports = savedStandby(still); len(still) > 0 {
			left = append(left, w)
		}
	}
	s.Waiting = left
	return errors.Join(append(errs, k.Standby.SaveStandby(s))...)
}

func (k *Ports) waiter(containerID string, w state.Waiting) (state.Endpoint, error) {
	dir := k.Endpoints
	if w.Publication {
		dir = k.Publications
	}
	return dir.LoadEndpoint(w.Network, containerID, w.IfName)
}

// takeOver puts the ports in place that an attachment waits for, as far as they
// are free or from's, and returns those for which it goes on waiting.
func (k *Ports) takeOver(ctx context.Context, rec state.Endpoint, was []firewall.PortMap, from string) (still []firewall.PortMap, err error) {
	r, err := k.rulesetOf(rec)
	if err != nil {
		return was, err
	}
	r.Endpoint.Standby, r.Endpoint.Handover, r.waits = nil, &firewall.Handover{From: from, Was: was}, waitForAny
	if _, err := k.applyBy(ctx, k.Guard.Rules.Of(rec.Backend), &r); err != nil {
		return was, fmt.Errorf("hand ports over to %s: %w", ownerOf(rec), err)
	}
	return r.Endpoint.Standby, k.EndFlows(ctx, rec, r.Endpoint.Standby)
}

// rulesetOf returns the rules of an attachment as its record has them.
func (k *Ports) rulesetOf(rec state.Endpoint) (Ruleset, error) {
	if rec.IsPublication() {
		p, err := k.PublisherOf(rec)
		if err != nil {
			return Ruleset{}, err
		}
		return p.ruleset(rec), nil
	}
	n, err := k.network(rec.Network)
	if err != nil {
		return Ruleset{}, err
	}
	p, err := n.Recorded(rec)
	return Ruleset{Member: n, Endpoint: p.Endpoint, Rec: rec}, err
}

// TakeOwnFree gives what is free to the attachments of a container, if one waits.
func (k *Ports) TakeOwnFree(ctx context.Context, rec state.Endpoint) error {
	if standby, err := k.Waiting(rec); len(standby) == 0 || err != nil {
		return err
	}
	return k.takeFreeOf(ctx, rec.ContainerID)
}

func (k *Ports) takeFreeOf(ctx context.Context, containerID string) error {
	release, err := k.Standby.OwnPorts(ctx, containerID)
	if err != nil {
		return err
	}
	defer release()
	return k.serveWaiting(ctx, containerID, func(state.Waiting) bool { return false }, "")
}

// TakeFree gives what is free to all attachments that wait: after a process was
// killed while it handed ports over.
func (k *Ports) TakeFree(ctx context.Context) error {
	all, err := k.Standby.Standbys()
	errs := []error{err}
	for _, containerID := range all {
		errs = append(errs, k.takeFreeOf(ctx, containerID))
	}
	return errors.Join(errs...)
}

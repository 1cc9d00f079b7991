package publish

import (
	"context"
	"errors"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/either"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/policy"
	"github.com/libnet-cni/libnet/internal/state"
)

// Ruleset is rules to be applied by one of the backends.
type Ruleset struct {
	Backend  model.Backend
	Member   *plan.Network // whose rules, with the guard of its bridge, hold; nil: none
	Endpoint firewall.Endpoint
	Rec      state.Endpoint     // of the attachment; zero: of a network only
	chosen   []firewall.PortMap // ports that were chosen, and can be others
	waits    waitFor
	Fresh    bool // the bridge had no guard before
}

// waitFor says whose ports an attachment may wait for.
type waitFor uint8

const (
	waitForContainer waitFor = iota // for those of other attachments of the container
	waitForAny                      // for another container's, too: it waits for them already
)

// applyRules puts rules in place and returns the backend that holds them, and
// whether it had lost all before. Ports that a dead owner holds are taken; for
// those of another attachment of the container r waits: they come into its Standby.
func (k *Ports) applyRules(ctx context.Context, r *Ruleset) (used model.Backend, restored bool, err error) {
	if r.Backend != model.BackendIPTables {
		restored, err = k.applyBy(ctx, k.Guard.Rules.NFTables, r)
		if r.Backend == model.BackendNFTables || !errors.Is(err, firewall.ErrUnsupported) || k.Guard.Rules.IPTables.Available() != nil {
			return model.BackendNFTables, restored, err
		}
	}
	restored, err = k.applyBy(ctx, k.Guard.Rules.IPTables, r)
	return model.BackendIPTables, restored, err
}

// maxDead bounds how many owners of ports are met for one attachment.
const maxDead = 100

func (k *Ports) applyBy(ctx context.Context, by either.Rules, r *Ruleset) (restored bool, err error) {
	for range maxDead {
		restored, err = k.applyOnce(ctx, by, r)
		var port *firewall.PortHeldError
		var addr *firewall.HeldError
		switch {
		case errors.As(err, &port):
			settled, settleErr := k.settleHeld(ctx, r, port)
			if settleErr != nil || !settled {
				return false, errors.Join(&PortHeldError{Owner: port.Owner, Port: port.Port, all: port.All}, settleErr)
			}
		case errors.As(err, &addr):
			dead, deadErr := k.TakeFromDead(ctx, r.Rec, addr.Owner)
			if deadErr != nil || !dead {
				return false, errors.Join(&AddressHeldError{Owner: addr.Owner, Rule: addr.Element}, deadErr)
			}
		default:
			return restored, err
		}
	}
	return restored, err
}

// applyOnce asks the other backend, too, whose ports they are. The guard cannot
// change meanwhile.
func (k *Ports) applyOnce(ctx context.Context, by either.Rules, r *Ruleset) (restored bool, err error) {
	other, used := k.Guard.Rules.IPTables, model.BackendNFTables
	if by == k.Guard.Rules.IPTables {
		other, used = k.Guard.Rules.NFTables, model.BackendIPTables
	}
	if len(r.Endpoint.Ports) > 0 && other.Used() {
		if err := other.CheckPorts(ctx, r.Endpoint); err != nil {
			return false, err
		}
	}
	if r.Member == nil {
		return by.Apply(ctx, firewall.Network{}, r.Endpoint)
	}
	g, err := k.Guard.HoldFor(ctx, r.Member, r.Rec)
	if err != nil {
		return false, err
	}
	if g.Fresh || !policy.Closes(g.Rules) { // else connections from the time without rules have to end
		r.Endpoint.First = func() bool { return k.isFirst(r.Rec) }
	}
	restored, err = by.Apply(ctx, g.Rules, r.Endpoint)
	r.Fresh = r.Fresh || g.Fresh
	return restored, errors.Join(err, g.Free(err == nil, used))
}

// Reapply puts the rules of an attachment in place as they were: what it waited
// for it waits for. Restored says that those of others may be gone.
func (k *Ports) Reapply(ctx context.Context, backend string, r Ruleset) (restored bool, err error) {
	release, err := k.Lock(ctx, r.Rec)
	if err != nil {
		return false, err
	}
	defer release()
	before, err := k.Waiting(r.Rec)
	if err != nil {
		return false, err
	}
	r.Endpoint.Standby = before
	if restored, err = k.applyBy(ctx, k.Guard.Rules.Of(backend), &r); err != nil {
		return restored, err
	}
	if len(r.Endpoint.Standby) == len(before) {
		return restored, nil
	}
	return restored, k.SetWaiting(r.Rec, r.Endpoint.Standby)
}

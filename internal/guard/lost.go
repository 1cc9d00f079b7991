package guard

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/policy"
	"github.com/libnet-cni/libnet/internal/state"
)

// Loss is what the index of a bridge lacks of the attachments that live there.
type Loss struct {
	Bridge string
	// Guards are what they asked for, by the records of their networks, or their own.
	Guards []state.Guard
	// Untold are links of which no record tells what they asked for.
	Untold []link.Owned
}

// Lost finds bridges whose index lacks what attachments asked for: parts of the
// records are lost. It lists all links, and reads the records of all.
func (k *Book) Lost(ctx context.Context) ([]Loss, error) {
	links, err := k.Links.List(ctx, model.OwnerPrefix)
	if err != nil {
		return nil, err
	}
	byBridge := map[string][]link.Owned{}
	var bridges []string
	for _, o := range links {
		if _, ok := model.ParseOwner(o.Owner); !ok || o.Bridge || o.Master == "" {
			continue
		}
		if byBridge[o.Master] == nil {
			bridges = append(bridges, o.Master)
		}
		byBridge[o.Master] = append(byBridge[o.Master], o)
	}
	var all []Loss
	var errs []error
	for _, bridge := range bridges {
		known, err := k.readIndex(ctx, bridge)
		loss := Loss{Bridge: bridge}
		if err == nil {
			loss, err = k.lossOf(bridge, byBridge[bridge], known)
		}
		errs = append(errs, err)
		if len(loss.Guards) > 0 || len(loss.Untold) > 0 {
			all = append(all, loss)
		}
	}
	return all, errors.Join(errs...)
}

// readIndex returns the guards of a bridge's index that can be read.
func (k *Book) readIndex(ctx context.Context, bridge string) ([]state.Guard, error) {
	b, err := k.Index.LockBridge(ctx, bridge, unix.LOCK_SH, state.OnlyExisting)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer b.Unlock()
	return readableGuards(b)
}

// lossOf is what known lacks of the attachments with these links on a bridge.
func (k *Book) lossOf(bridge string, links []link.Owned, known []state.Guard) (Loss, error) {
	loss := Loss{Bridge: bridge}
	for _, o := range links {
		id, _ := model.ParseOwner(o.Owner)
		g, told, err := k.askedBy(id, bridge, append(slices.Clone(known), loss.Guards...))
		switch {
		case err != nil:
			return loss, err
		case !told:
			loss.Untold = append(loss.Untold, o)
		case g.Network != "":
			loss.Guards = append(loss.Guards, g)
		}
	}
	return loss, nil
}

// askedBy returns what an attachment asked of its bridge, unless known has it or it
// asked for nothing; told is false where no record tells.
func (k *Book) askedBy(id model.ID, bridge string, known []state.Guard) (g state.Guard, told bool, err error) {
	has := func(is func(state.Guard) bool) bool { return slices.ContainsFunc(known, is) }
	rec, err := k.Endpoints.LoadEndpoint(id.Network, id.ContainerID, id.IfName)
	lost := state.Missing(err)
	if err != nil && !lost {
		return g, false, err
	}
	if !lost && (rec.Bridge != bridge || rec.Guard == nothing() || has(func(o state.Guard) bool { return o.ID == rec.Guard })) {
		return g, true, nil
	}
	g, err = k.askedByNetwork(id.Network, bridge)
	switch {
	case err != nil && !state.Missing(err):
		return g, false, err
	case err == nil && (lost || rec.Guard == "" || rec.Guard == g.ID):
		if g.ID == nothing() || has(func(o state.Guard) bool { return o.Network == g.Network && o.ID == g.ID }) {
			g = state.Guard{}
		}
		return g, true, nil
	case lost || rec.Guard == "":
		return state.Guard{}, has(func(o state.Guard) bool { return o.Network == id.Network }), nil
	}
	g, err = guessed(rec)
	if has(func(o state.Guard) bool { return o.Network == g.Network && o.ID == g.ID }) {
		g = state.Guard{}
	}
	return g, true, err
}

// nothing is the ID of what asks for nothing.
func nothing() string { return policy.ID(firewall.Network{}) }

// askedByNetwork is what a network asks of a bridge by its record, which is missing
// where the network has another bridge by now.
func (k *Book) askedByNetwork(name, bridge string) (state.Guard, error) {
	rec, err := k.Networks.LoadNetwork(name)
	if err != nil {
		return state.Guard{}, err
	}
	if rec.Bridge != bridge {
		return state.Guard{}, state.ErrNotFound
	}
	return guardOf(rec)
}

// guessed is what an attachment asked of its bridge by the ID alone that its record
// has of it. Where that tells only that the bridge was closed, it is closed to
// whatever no port is published for.
func guessed(rec state.Endpoint) (state.Guard, error) {
	rules, ok := policy.WithID(rec.Guard)
	if !ok {
		rules = firewall.Network{IPv4: firewall.Published, IPv6: firewall.Published}
	}
	rules.Guard, rules.Bridge = plan.GuardOwner(rec.Bridge), rec.Bridge
	data, err := json.Marshal(rules)
	return state.Guard{Network: rec.Network, ID: policy.ID(rules), Backend: rec.Backend, Rules: data}, err
}

// refill has the index of each bridge, and its guard, hold what Lost finds.
func (k *Book) refill(ctx context.Context) error {
	lost, err := k.Lost(ctx)
	errs := []error{err}
	for _, l := range lost {
		if len(l.Guards) > 0 {
			errs = append(errs, k.refillBridge(ctx, l.Bridge))
		}
	}
	return errors.Join(errs...)
}

// refillBridge looks again under the bridge's lock.
func (k *Book) refillBridge(ctx context.Context, bridge string) error {
	b, err := k.Index.LockBridge(ctx, bridge, unix.LOCK_EX, state.Create)
	if err != nil {
		return err
	}
	defer b.Unlock()
	more, err := k.refillIndex(ctx, bridge, b)
	if b.Len() == 0 && len(more) == 0 {
		return errors.Join(err, b.Remove())
	}
	return err
}

// refillIndex is refillBridge for the bridge whose index is b. It returns what it put
// there.
func (k *Book) refillIndex(ctx context.Context, bridge string, b Bridge) ([]state.Guard, error) {
	known, err := readableGuards(b)
	if err != nil {
		return nil, err
	}
	var more []state.Guard
	how := firewall.AddOnly
	if b.Len() == 0 { // as of a release before v0.2, too: see seedIndex
		if more, _, err = k.seedGuards(bridge, state.Guard{}); err == nil {
			how, err = k.ExactWithoutIndex(ctx, true)
		}
		if err != nil {
			return nil, err
		}
	}
	links, err := k.Links.List(ctx, model.OwnerPrefix)
	if err != nil {
		return nil, err
	}
	links = slices.DeleteFunc(links, func(o link.Owned) bool {
		_, ok := model.ParseOwner(o.Owner)
		return !ok || o.Bridge || o.Master != bridge
	})
	loss, err := k.lossOf(bridge, links, append(slices.Clone(known), more...))
	more = append(more, loss.Guards...)
	if err != nil || !slices.ContainsFunc(more, func(g state.Guard) bool { return g.ID != nothing() }) {
		return nil, err // what asked for it has left meanwhile
	}
	if _, err := k.applyGuard(ctx, bridge, append(known, more...), min(how, firewall.AdoptBridge)); err != nil {
		return nil, err
	}
	var errs []error
	for _, g := range more {
		errs = append(errs, b.Put(g))
	}
	return more, errors.Join(errs...)
}

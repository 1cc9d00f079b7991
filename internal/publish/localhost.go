package publish

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/guard"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// HeldBy are the ports by whose keys the rules of a record are found; nil
// where parts of them are on standby: then they are found by their comment.
func (k *Ports) HeldBy(rec state.Endpoint) []firewall.PortMap {
	if standby, err := k.Waiting(rec); len(standby) > 0 || err != nil {
		return nil
	}
	return model.FirewallPorts(plan.PortsOf(rec))
}

// hasLocalhost says that another endpoint than gone, or a publication, has a port
// that 127.0.0.0/8 leads to by gone's bridge, the guards of which are b, if any.
func (k *Ports) hasLocalhost(b guard.Bridge, gone state.Endpoint) (bool, error) {
	other := func(rec state.Endpoint) bool {
		same := life.IDOf(rec) == life.IDOf(gone) && rec.HostName == gone.HostName // of a publication that is empty
		return rec.Bridge == gone.Bridge && !same
	}
	recs, err := k.PublicationRecords()
	if slices.ContainsFunc(recs, func(rec state.Endpoint) bool { return other(rec) && k.publicationOpens(rec) }) {
		return true, nil
	}
	names := []string{gone.Network}
	var all []state.Guard
	if b != nil {
		var guardsErr error
		all, guardsErr = b.Guards()
		err = errors.Join(err, guardsErr)
		for _, g := range all {
			names = append(names, g.Network)
		}
	}
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside
	}
	for _, name := range names {
		has, endpointsErr := k.Endpoints.AnyEndpoint(name, func(rec state.Endpoint) bool { return other(rec) && k.opensLocalhost(rec, all) })
		if has || endpointsErr != nil {
			return has, endpointsErr
		}
	}
	return false, err
}

// opensLocalhost says that 127.0.0.0/8 leads to ports of an endpoint by its record,
// as plan says it of one that is made now. In which gateway mode its ports are
// published the guard tells that it came with, which is one of guards, else its
// network's record; where nothing tells, they are open.
func (k *Ports) opensLocalhost(rec state.Endpoint, guards []state.Guard) bool {
	hairpin := rec.OwnRules == nil || !rec.OwnRules.NoHairpin
	// The record of an ADD under way may not have its addresses yet.
	ipv4 := rec.Phase != state.PhaseReady || slices.ContainsFunc(rec.Addrs(), netip.Addr.Is4)
	if !hairpin || !ipv4 || !model.PublishesLocalhost(plan.PortsOf(rec)) {
		return false
	}
	i := slices.IndexFunc(guards, func(g state.Guard) bool { return g.Network == rec.Network && g.ID == rec.Guard })
	if i >= 0 {
		var asked firewall.Network
		return json.Unmarshal(guards[i].Rules, &asked) != nil || asked.IPv4 != firewall.Routed
	}
	n, err := k.network(rec.Network)
	return err != nil || n.Config.GatewayModeIPv4 != model.GatewayRouted
}

// publicationOpens is opensLocalhost for the record of a publication.
func (k *Ports) publicationOpens(rec state.Endpoint) bool {
	p, err := k.PublisherOf(rec)
	return err != nil || p.opensLocalhost(rec)
}

// CloseLocalhost switches route_localnet of an endpoint's bridge off, unless another
// endpoint or a publication has a port that 127.0.0.0/8 leads to by it. The lock
// keeps those out that are about to have one.
func (k *Ports) CloseLocalhost(ctx context.Context, gone state.Endpoint) error {
	b, err := k.Guard.Index.LockBridge(ctx, gone.Bridge, unix.LOCK_EX, state.OnlyExisting)
	switch {
	case err == nil:
		defer b.Unlock()
	case !errors.Is(err, state.ErrNotFound):
		return err
	}
	has, err := k.hasLocalhost(b, gone)
	if has || err != nil {
		return err
	}
	_, err = k.Host.SetRouteLocalnet(gone.Bridge, false)
	return err
}

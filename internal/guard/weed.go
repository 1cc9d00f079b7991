package guard

import (
	"errors"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/state"
)

// seedGuards returns what networks ask of a bridge on which their endpoints live,
// but for mine, by their records: for an index that is new or was lost. Living says
// that there is such an endpoint.
func (k *Book) seedGuards(bridge string, mine state.Guard) (all []state.Guard, living bool, err error) {
	recs, err := k.Networks.Networks()
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // set aside
	}
	errs := []error{err}
	for _, rec := range recs {
		if rec.Bridge != bridge {
			continue
		}
		has, err := k.Endpoints.AnyEndpoint(rec.Name, func(e state.Endpoint) bool {
			return e.Bridge == bridge && (rec.Name != mine.Network || e.Guard != mine.ID)
		})
		living = living || has
		if err == nil && has {
			var g state.Guard
			if g, err = guardOf(rec); err == nil && (g.Network != mine.Network || g.ID != mine.ID) {
				all = append(all, g)
			}
		}
		errs = append(errs, err)
	}
	return all, living, errors.Join(errs...)
}

// weedGuards divides the guards of an index into those that an endpoint other than
// gone needs, or a tunnel, and the others.
func (k *Book) weedGuards(b Bridge, bridge string, gone model.ID) (left, stale []state.Guard, err error) {
	all, err := readableGuards(b)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, g := range all {
		needed, err := k.Endpoints.AnyEndpoint(g.Network, func(e state.Endpoint) bool {
			known := b.Has(state.Guard{Network: g.Network, ID: e.Guard})
			return e.Bridge == bridge && life.IDOf(e) != gone && (e.Guard == g.ID || !known)
		})
		for _, device := range []string{g.Tunnel, g.Spare} {
			if err == nil && !needed && device != "" {
				needed, err = k.Tunnels.HasTunnel(device, model.NetworkOwner(g.Network))
				if errors.Is(err, netlink.ErrExists) {
					err = nil
				}
			}
		}
		errs = append(errs, err)
		if needed {
			left = append(left, g)
		} else {
			stale = append(stale, g)
		}
	}
	return left, stale, errors.Join(errs...)
}
